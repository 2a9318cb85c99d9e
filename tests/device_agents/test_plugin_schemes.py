"""Device schemes of other packages: whole ones, with every hook, beside the functions that open a device."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from device_agents.devices import completions, list_devices, open_device
from device_agents.errors import DeviceAddressError
from tests.support.packages import install

DEVICES = "nas_edge.devices"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the module path, here and in commands."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
    return site


def nas_edge(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from nas_edge.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


SCHEME = """
from pathlib import Path

from device_agents.probe_models import compute_model
from device_agents.checks import Check
from device_agents.host import HostAgent
from device_agents.scheme import DeviceRow, Scheme, Setup, SetupOption


KEPT = Path("kept-by-toys")


def set_up(rest, options):
    KEPT.write_text("oil")
    return [("oiled", f"board {rest} with {options['oil']}")]


toy = Scheme(
    name="toy",
    form="toy:NUMBER",
    what="a toy board",
    open=lambda rest: HostAgent(),
    problem=lambda rest: "" if rest.isdecimal() else "a number must follow toy:",
    list=lambda: [DeviceRow("toy:7", "toy", "Toy 7", "ready", "2 cores")],
    doctor=lambda rest: [Check("springs", "pass", f"those of board {rest} are tight")],
    setup=Setup(set_up, (SetupOption("oil", "KIND", "What to oil it with."),)),
    complete=lambda rest: ["7", "77"],
    clean=lambda rest: [f"oil of board {rest}"] if KEPT.exists() and not KEPT.unlink() else [],
)
other = toy
"""


def test_a_scheme_of_another_package_is_used_everywhere(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    install(site, "my-toys", {DEVICES: {"toy": "toys:toy"}}, {"toys": SCHEME})
    listed = nas_edge("devices").stdout
    assert re.search(r"toy:7 +toy +Toy 7 +ready +2 cores", listed)
    done = nas_edge("devices", "setup", "toy:7", "--oil", "olive oil")
    assert "oiled  board 7 with olive oil" in done.stdout, done.stderr
    examined = nas_edge("devices", "doctor", "toy:7", "--watch", "1").stdout
    assert "those of board 7 are tight" in examined
    assert "memory probe" in examined, "how quiet a device is, is watched whatever its own doctor says"
    assert nas_edge("devices", "clean", "toy:7").stdout == "removed  oil of board 7\n"
    assert nas_edge("devices", "clean", "toy:7").stdout == "nothing is kept for toy:7\n"
    refused = nas_edge("devices", "doctor", "toy:x")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "a number must follow toy:" in refused.stderr
    assert completions("toy:") == ["toy:7", "toy:77"]
    with open_device("toy:7") as agent:
        assert agent.info().kind == "host"


def test_a_scheme_has_the_name_of_its_entry_point(site: Path) -> None:
    install(site, "my-toys", {DEVICES: {"ball": "toys2:other"}}, {"toys2": SCHEME})
    with pytest.raises(DeviceAddressError, match=r"'ball' of my-toys 1\.0 calls itself 'toy'"):
        open_device("ball:7")


def test_a_package_that_is_broken_costs_the_list_a_row_and_nobody_else(site: Path) -> None:
    install(site, "my-toys", {DEVICES: {"toy": "explosive:make"}}, {"explosive": "raise SystemExit('loaded')"})
    (row,) = (row for row in list_devices() if row.kind == "toy")
    assert (row.address, row.state, row.present) == ("toy:", "unavailable", False)
    assert "'toy' of my-toys 1.0" in row.detail
    assert row.detail.endswith("is broken: it ended the program (loaded); run again with --debug for the traceback")
    assert completions("to") == ["toy:"], "how addresses begin is known without loading it"


@pytest.mark.parametrize(
    ("made", "reason"), [("3", "'int' object is not callable"), ("lambda rest: 3", "received int")]
)
def test_what_opens_no_device_is_named_with_its_package(site: Path, made: str, reason: str) -> None:
    module = f"no_agent_{len(made)}"
    install(site, "my-toys", {DEVICES: {"toy": f"{module}:toy"}}, {module: f"toy = {made}"})
    with pytest.raises(DeviceAddressError, match=rf"'toy' of my-toys 1\.0 .* is broken: .*{reason}"):
        open_device("toy:7")


def test_a_schemes_open_is_watched_like_a_function(site: Path) -> None:
    source = "from device_agents.scheme import Scheme\ntoy = Scheme('toy', 'toy:', 'a toy', lambda rest: 1 / 0)\n"
    install(site, "my-toys", {DEVICES: {"toy": "toys3:toy"}}, {"toys3": source})
    with pytest.raises(DeviceAddressError, match=r"'toy' of my-toys 1\.0 .* is broken: division by zero"):
        open_device("toy:7")
