"""Search spaces, devices and latency sources of other packages, found by their entry points."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from device_agents.devices import open_device
from device_agents.errors import DeviceAddressError, DeviceUnavailableError
from nas_edge.errors import ConfigError, SpaceError
from nas_edge.latency import LATENCY_SOURCES, LatencyContext, LatencySettings, open_latency_source
from nas_edge.spaces import find_space
from tests.support.command_line import nas_edge
from tests.support.packages import install
from tests.support.pages import install_page
from tests.support.sources import FunctionSource, timed
from tests.support.spaces import small_space

SPACES, DEVICES, SOURCES = "nas_edge.spaces", "nas_edge.devices", "nas_edge.latency_sources"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the module path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    return site


def without(site: Path, *arguments: str) -> CompletedProcess[str]:
    """Runs `nas-edge` where what `site` holds is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [place for place in sys.path if place != str(site)])
        return nas_edge(*arguments)


def one_line(done: CompletedProcess[str]) -> str:
    line, *others = done.stderr.strip().splitlines()
    assert not others
    assert line.startswith("nas-edge: ")
    return line


def open_source(address: str) -> None:
    settings = LATENCY_SOURCES.settings(address)
    assert isinstance(settings, LatencySettings)
    open_latency_source(settings, LatencyContext(small_space(), "int8", FunctionSource(lambda _: timed(1.0))))


BROKEN = {
    "missing_module": ("nowhere:make", "No module named 'nowhere'"),
    "missing_object": ("{module}:nothing", "has no attribute 'nothing'"),
    "raises": ("{module}:raises", "division by zero; run again with --debug"),
    "looks_up": ("{module}:looks_up", "'gpu' is missing; run again with --debug"),
    "exits": ("{module}:exits", r"it ended the program \(3\)"),
    "wrong_thing": ("{module}:wrong", "expected a .*, received int"),
    "wrong_arguments": ("{module}:no_arguments", "takes 0 positional arguments but [0-9] w"),
}
BROKEN_SOURCE = """
import sys

def raises(*_): return 1 / 0
def looks_up(*_): return {}["gpu"]
def exits(*_): sys.exit(3)
def wrong(*_): return 3
def no_arguments(): return 3
"""


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_named_with_its_package_and_entry_point(site: Path, kind: str) -> None:
    module = f"broken_{kind}"
    target, reason = BROKEN[kind]
    target = target.format(module=module)
    install(site, "my-toys", {group: {"toy": target} for group in (SPACES, DEVICES, SOURCES)}, {module: BROKEN_SOURCE})
    message = rf"'toy' of my-toys 1.0 \(entry point toy = {target} of nas_edge\.\w+\) is broken: .*{reason}"
    with pytest.raises(SpaceError, match=message):
        find_space("toy")(16, 1.0, 10, 1)
    with pytest.raises(DeviceAddressError, match=message):
        open_device("toy:1")
    with pytest.raises(ConfigError, match=message):
        open_source("toy:1")


def test_errors_that_a_plugin_raises_on_purpose_are_passed_on(site: Path) -> None:
    source = """
from device_agents.errors import DeviceUnavailableError
from nas_edge.errors import ConfigError

def agent(rest): raise DeviceUnavailableError(f"{rest} is asleep")
def source(rest, space, precision): raise ConfigError(f"{rest} for {space.name} in {precision} is no number")
"""
    entries = {DEVICES: {"toy": "on_purpose:agent"}, SOURCES: {"toy": "on_purpose:source"}}
    install(site, "my-toys", entries, {"on_purpose": source})
    with pytest.raises(DeviceUnavailableError, match=r"^board 7 is asleep$"):
        open_device("toy:board 7")
    with pytest.raises(ConfigError, match=r"^x:y for small in int8 is no number$"):
        open_source("toy:x:y")


def test_a_name_that_is_built_in_is_refused(site: Path) -> None:
    taken = {SPACES: {"proxylessnas": "a:b"}, DEVICES: {"host": "a:b"}, SOURCES: {"device": "a:b", "table": "a:b"}}
    install(site, "my-toys", taken)
    message = "is built in, but my-toys 1.0 offers one of that name too; uninstall that package"
    with pytest.raises(SpaceError, match=message):
        find_space("proxylessnas")
    with pytest.raises(DeviceAddressError, match=message):
        open_device("host:")
    for address in ("device", "table:x.json"):
        with pytest.raises(ConfigError, match=message):
            open_source(address)
    assert find_space("proxylessnas-enlarged")(16, 1.0, 10, 1).name == "proxylessnas-enlarged"


def test_what_is_installed_or_removed_while_a_process_runs_is_noticed(site: Path) -> None:
    with pytest.raises(SpaceError, match="unknown space 'toy'"):
        find_space("toy")
    install(site, "my-toys", {SPACES: {"toy": "nowhere:make"}})
    with pytest.raises(SpaceError, match="nowhere"):
        find_space("toy")(16, 1.0, 10, 1)
    shutil.rmtree(site / "my_toys-1.0.dist-info")
    with pytest.raises(SpaceError, match="unknown space 'toy'"):
        find_space("toy")


def test_a_name_that_two_packages_offer_is_refused(site: Path) -> None:
    for name in ("toys", "more-toys"):
        install(site, name, {SPACES: {"toy": "a:b"}})
    with pytest.raises(SpaceError, match=r"'toy' is offered by more-toys 1\.0 and toys 1\.0"):
        find_space("toy")


def test_an_unknown_name_is_answered_with_what_there_is(site: Path) -> None:
    install(site, "my-toys", {group: {"toy": "a:b"} for group in (SPACES, DEVICES, SOURCES)})
    with pytest.raises(SpaceError, match=r"^unknown space 'ball'; supported: proxylessnas, .*, table, toy$"):
        find_space("ball")
    with pytest.raises(DeviceAddressError, match=r"toy:\.\.\."):
        open_device("ball:")
    supported = "device, table, column, sim, model, accelerator, hybrid, toy"
    with pytest.raises(ConfigError, match=rf"^unknown latency source 'ball'; supported: {supported}$"):
        open_source("ball:")


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"[nas_edge.spaces]\nno equals sign\n", b"[unfinished", b"\x00" * 100])
def test_damaged_metadata_of_any_package_disturbs_nobody(site: Path, damage: bytes) -> None:
    install(site, "damaged", {})
    (site / "damaged-1.0.dist-info" / "entry_points.txt").write_bytes(damage)
    install(site, "my-toys", {SPACES: {"toy": "nowhere:make"}})
    with pytest.raises(SpaceError, match="nowhere"):
        find_space("toy")(16, 1.0, 10, 1)


def test_lists_show_plugins_with_their_package_and_load_none(site: Path) -> None:
    entries = {"toy": "explosive:make", "proxylessnas": "explosive:make"}
    install(site, "my-toys", {SPACES: entries, DEVICES: entries}, {"explosive": "raise SystemExit('loaded')"})
    for command in (["--help"], ["search", "--help"]):
        assert nas_edge(*command).returncode == 0
    listed = nas_edge("spaces")
    assert listed.returncode == 0
    assert "toy           of the package my-toys 1.0\n" in listed.stdout
    assert "of the package my-toys 1.0; cannot be used, since that name is built in" in listed.stdout
    listed = nas_edge("devices")
    assert listed.returncode == 0
    assert "toy:..." in listed.stdout
    assert nas_edge("spaces", "mobilenet-v3-like").returncode == 0
    named = nas_edge("spaces", "toy")
    assert named.returncode == 2
    assert "it ended the program (loaded)" in one_line(named)


PACKAGE = """
from concurrent.futures import Future

from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.source import LatencySource
from nas_edge.networks.analysis import analyze
from tests.support.spaces import tiny_space


def space(input_size, width_multiplier, classes, channels):
    return tiny_space(input_size, channels, classes)


class ByMacs(LatencySource):
    def __init__(self, macs_per_ms):
        self.macs_per_ms = macs_per_ms

    @property
    def name(self):
        return f"{self.macs_per_ms} MACs per ms"

    def submit(self, candidate):
        future = Future()
        macs = analyze(candidate.network).macs
        future.set_result(LatencyAnswer.estimated(LatencyKind.PREDICTED, macs / self.macs_per_ms))
        return future


def by_macs(rest, space, precision):
    return ByMacs(float(rest))
"""


def test_a_search_in_a_users_space_goes_by_a_users_latency_source(site: Path) -> None:
    entries = {SPACES: {"mine": "my_parts:space"}, SOURCES: {"macs": "my_parts:by_macs"}}
    install(site, "my-parts", entries, {"my_parts": PACKAGE})
    run = site / "run"
    settings = ["search.steps=6", "search.samples_per_step=1", "search.delay_fraction=0.5", "training.epochs=1"]
    settings += ["search.op_warmup_fraction=0", "search.filter_warmup_fraction=0", "export.precision=float32"]
    options = [part for setting in settings for part in ("--set", setting)]
    search = ["search", "--preset", "smoke", *options, "--space", "mine", "--latency", "macs:1e9"]
    refused = nas_edge(*search, "--out", str(run))
    assert refused.returncode == 2
    assert "name a target (--target-ms)" in one_line(refused)
    done = nas_edge(*search, "--target-ms", "50", "--out", str(run))
    assert done.returncode == 0, done.stderr
    assert "the search went by latencies predicted by 1000000000.0 MACs per ms, which gave" in done.stdout
    result = json.loads((run / "result.json").read_text())
    assert result["schema_version"] == 2
    assert result["latency_estimate"]["kind"] == "predicted"
    assert result["latency_estimate"]["source"] == "1000000000.0 MACs per ms"
    assert 0 < result["latency_estimate"]["latency_ms"] < 0.1
    assert result["latency_ms"] != result["latency_estimate"]["latency_ms"], (
        "delivered files are measured on the device"
    )
    assert result["rows"][0]["latency"]["float32"]["conditions"]["runtime"] == "ai_edge_litert"
    manifest = json.loads((run / "bundle" / "manifest.json").read_text())
    assert manifest["details"]["latency_estimate"] == result["latency_estimate"]
    session = json.loads((run / "environment.json").read_text())["sessions"][0]
    assert session["measured_with"]["latency_source"] == "1000000000.0 MACs per ms"
    assert session["measured_with"]["device"] == session["device"]["fingerprint"]
    listed = without(site, "runs", str(site))
    assert "finished  mine" in listed.stdout, "a run can be looked at without the package that its space came from"
    (run / "result.json").unlink()
    refused = without(site, "search", "--resume", str(run))
    assert refused.returncode == 2
    assert "space: unknown space 'mine'" in one_line(refused)


def test_a_search_by_parts_of_another_package_is_resumed_with_it_and_looked_at_without(site: Path) -> None:
    pages = Path(__file__).parents[1] / "docs"
    for page in ("own-search-method.md", "own-controller.md"):
        install_page(site, pages / page)
    rows = ("depth,width,accuracy,ms", "1,16,0.8,1.9", "1,32,0.9,3.1", "2,16,0.91,3.3", "2,32,0.92,6", "")
    (site / "results.csv").write_text("\n".join(rows))
    run = site / "run"
    table = ["--table", str(site / "results.csv"), "--decisions", "depth,width", "--quality-column", "accuracy"]
    table += ["--latency-column", "ms", "--target-ms", "4", "--steps", "12"]
    search = ["search", *table, "--method", "screened", "--controller", "climber"]
    wrong = nas_edge(*search, "--set", "search.slak=2", "--out", str(run))
    assert one_line(wrong) == "nas-edge: search: unknown setting 'slak'; see `nas-edge search --list-settings`"
    listed = nas_edge(*search, "--set", "search.slack=2", "--list-settings")
    assert "search.slack=2.0  # latency, over the target, beyond" in listed.stdout
    assert "search.controller.changes=2  # decisions drawn anew" in listed.stdout
    done = nas_edge(*search, "--set", "search.slack=1.1", "--out", str(run))
    assert done.returncode == 0, done.stderr
    kept = [(run / name).read_bytes() for name in ("journal.jsonl", "result.json", "stages/selection.jsonl")]
    (run / "result.json").unlink()
    assert "search: unknown search method 'screened'" in one_line(without(site, "search", "--resume", str(run)))
    assert without(site, "report", str(run)).returncode == 0
    assert "run  stopped  table" in without(site, "runs", str(site)).stdout
    assert without(site, "select", str(run), "--target-ms", "4").returncode == 0
    resumed = nas_edge("search", "--resume", str(run))
    assert resumed.returncode == 0, resumed.stderr
    assert kept == [(run / name).read_bytes() for name in ("journal.jsonl", "result.json", "stages/selection.jsonl")]
