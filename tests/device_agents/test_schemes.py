"""The table of device schemes: every family in its own room, and nothing outside that names it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import device_agents
import nas_edge
from device_agents import devices
from device_agents.api import BenchmarkSpec
from device_agents.errors import SpecError
from device_agents.host import HostAgent
from device_agents.probe_models import compute_model
from device_agents.replay import model_key, write_recording
from device_agents.scheme import Scheme
from device_agents.schemes import FAMILIES, SCHEMES
from nas_edge import cli
from nas_edge.testing import check_device_scheme

PACKAGES = [Path(str(package.__file__)).parent for package in (nas_edge, device_agents)]
ANDROID = PACKAGES[1] / "android"


def test_nothing_outside_its_room_names_adb() -> None:
    files = [file for package in PACKAGES for file in package.rglob("*.py") if ANDROID not in file.parents]
    assert len(files) > 100
    naming = re.compile(r"(?<![a-z])adb(?![a-z])", re.IGNORECASE)
    assert naming.search("an adb_server or ADB:"), "this is what is looked for"
    named = [
        f"{file}:{n}"
        for file in files
        for n, line in enumerate(file.read_text().splitlines(), 1)
        if naming.search(line)
    ]
    assert named == []


def test_no_scheme_is_named_in_shared_rooms() -> None:
    """A comparison with the name of a scheme is an `if` that the next scheme would need, too."""
    shared = [PACKAGES[1] / f"{name}.py" for name in ("devices", "scheme", "schemes", "doctor", "visiting", "pool")]
    shared += [PACKAGES[0] / f"{name}.py" for name in ("api", "doctor", "pipeline")]
    shared += [file for room in ("benchmarking", "cli", "stages") for file in (PACKAGES[0] / room).glob("*.py")]
    names = "|".join(SCHEMES)
    compared = re.compile(rf"""(==|!=|\bin \(?|startswith\()\s*["']({names}):?["']""")
    assert compared.search('if address.startswith("replay:")'), "this is what is looked for"
    assert [file.name for file in shared if compared.search(file.read_text())] == []


def test_every_scheme_of_every_family_is_in_the_table_under_its_name() -> None:
    assert sum(map(len, FAMILIES)) == len(SCHEMES)
    assert {name: scheme.name for name, scheme in SCHEMES.items()} == {name: name for name in SCHEMES}


def test_the_host_and_recordings_keep_what_schemes_promise(
    tmp_path: Path, agent: HostAgent, spec: BenchmarkSpec
) -> None:
    check_device_scheme(SCHEMES["host"], "", ["1", "//x"])
    model, file = compute_model(), tmp_path / "times.json"
    write_recording(file, agent.info(), {model_key(model): agent.measure(model, spec)})
    check_device_scheme(SCHEMES["replay"], str(file), [""])


def test_what_needs_no_setting_up_says_so_in_one_line() -> None:
    with pytest.raises(SpecError) as caught:
        devices.set_up_device("host:")
    (line,) = str(caught.value).splitlines()
    assert line.startswith("Setup is not needed for host: devices (this machine); supported: ")
    assert line.endswith("'host:'")


def test_a_schemes_setup_gets_the_options_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from device_agents.scheme import Setup, SetupOption

    calls = []

    def run(rest, options):  # type: ignore[no-untyped-def]
        calls.append((rest, options))
        return [("tool", "in place")]

    setup = Setup(run, (SetupOption("big-tool", "FILE", "The tool to install."),), "toy:1 --big-tool hammer")
    toy = Scheme("toy", "toy:NUMBER", "a toy", lambda rest: HostAgent(), setup=setup)
    monkeypatch.setitem(SCHEMES, "toy", toy)
    done = CliRunner().invoke(cli.nas_edge, ["devices", "setup", "toy:1", "--big-tool", "saw"])
    assert done.exit_code == 0, done.output
    assert calls == [("1", {"big-tool": "saw"})]
    assert "tool  in place" in done.output
    assert "Next: nas-edge devices doctor toy:1" in done.output
    shown = " ".join(CliRunner().invoke(cli.nas_edge, ["devices", "setup", "--help"]).output.split())
    assert "--big-tool FILE The tool to install." in shown
    assert "nas-edge devices setup toy:1 --big-tool hammer" in shown.replace("nas-edge nas-edge", "nas-edge")
    other = CliRunner().invoke(cli.nas_edge, ["devices", "setup", "toy:1", "--sha256", "00"])
    assert isinstance(other.exception, SpecError)
    assert "--sha256 is not an option for setting up toy: devices; supported: --big-tool" in str(other.exception)


def test_a_scheme_that_fails_to_list_costs_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEMES, "toy", Scheme("toy", "toy:", "a toy", lambda rest: HostAgent(), list=lambda: 1 / 0))  # type: ignore[arg-type,return-value]
    (row,) = (row for row in devices.list_devices() if row.kind == "toy")
    assert (row.state, row.present) == ("unavailable", False)
    assert "division by zero" in row.detail


@pytest.mark.parametrize("imported", ["nas_edge", "nas_edge.cli", "device_agents.devices", "device_agents.schemes"])
def test_importing_loads_nothing_that_talks_to_devices(imported: str) -> None:
    heavy = ("adb_shell", "adbutils", "usb1", "numpy", "device_agents.android.transport", "device_agents.android.agent")
    code = f"import sys, {imported}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
