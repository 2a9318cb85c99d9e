"""The doctor of any device, on this machine and on recorded times; what is kept, and how it is removed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner

from device_agents import schemes
from device_agents.api import PRESETS, BenchmarkSpec, DeviceInfo, Measurement
from device_agents.checks import Check
from device_agents.devices import clean_device
from device_agents.doctor import check_kept, check_noise, examine
from device_agents.errors import DeviceAddressError, DeviceUnavailableError
from device_agents.floors import FloorKey, FloorStore, default_floors
from device_agents.host import HostAgent, host_info, pick_cores
from device_agents.measuring_checks import check_measuring
from device_agents.probe_models import compute_model
from device_agents.replay import model_key, write_recording
from device_agents.scheme import Scheme
from device_agents.worker.system import allowed_cores
from nas_edge import cli
from tests.support.agents import FunctionAgent, steady

NOW = datetime(2024, 2, 29, 12, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is kept yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def by_name(checks: list[Check] | tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_this_machine_is_watched_and_what_is_learnt_is_kept_until_it_is_cleaned() -> None:
    found = by_name([*examine("host:", watch_s=1.0)])
    assert {"device", "measuring", "compute probe", "cache probe", "memory probe", "quiet visits", "candidate"} <= set(
        found
    )
    assert all(check.fix for check in found.values() if check.state != "pass")
    assert ("cores" in found) == (allowed_cores() is not None)
    store, info = FloorStore(default_floors()), host_info()
    floors = store.kept(info)
    assert [floor.cores for floor in floors] == [pick_cores(1)] * len(floors)
    # Where other programs are very busy not even one undisturbed time may have been found out.
    assert ("kept here" in found) == bool(floors)
    store.keep(FloorKey.of(info, PRESETS["search"]), {"memory": 2.0})
    first = CliRunner().invoke(cli.nas_edge, ["devices", "clean", "host:"])
    assert first.output.startswith(f"removed  {len(floors) + 1} undisturbed times of the probes"), first.output
    assert store.kept(info) == []
    assert CliRunner().invoke(cli.nas_edge, ["devices", "clean", "host:"]).output == "nothing is kept for host:\n"


def test_where_nothing_stays_that_is_said() -> None:
    assert clean_device("replay:times.json") is None
    shown = CliRunner().invoke(cli.nas_edge, ["devices", "clean", "replay:times.json"])
    assert (shown.exit_code, shown.output) == (
        0,
        "nothing stays on replay: devices (recorded times, answered in real time)\n",
    )


def test_times_that_do_not_repeat_are_no_reason_not_to_watch() -> None:
    """In one go they seldom do on a busy machine; whether visits help is what watching tells."""
    times_ms = iter([1.0, 9.0])
    found = by_name(check_measuring(FunctionAgent(lambda model, spec: steady(next(times_ms)))))
    assert found["repeatability"].state == "warn"
    assert "800.0% apart" in found["repeatability"].found


def test_what_is_to_be_cleaned_must_be_a_device() -> None:
    with pytest.raises(DeviceAddressError, match="nothing may follow 'host:'"):
        clean_device("host:1")


def test_recorded_times_have_no_noise(tmp_path: Path, agent: HostAgent, spec: BenchmarkSpec) -> None:
    model, file = compute_model(), tmp_path / "times.json"
    write_recording(file, agent.info(), {model_key(model): agent.measure(model, spec)})
    found = by_name([*examine(f"replay:{file}", watch_s=5.0)])
    assert set(found) == {"device", "measuring", "repeatability"}


def test_a_device_that_fails_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def open_(rest: str) -> FunctionAgent:
        opened.append(rest)
        return FunctionAgent(lambda model, spec: steady(1.0))

    ill = Scheme("toy", "toy:", "a toy", open_, doctor=lambda rest: [Check("springs", "fail", "broken", "mend them")])
    monkeypatch.setitem(schemes.SCHEMES, "toy", ill)
    assert [check.name for check in examine("toy:")] == ["springs"]
    assert opened == []


def test_a_device_that_is_lost_while_it_is_watched_is_a_point() -> None:
    def gone(model: bytes, spec: BenchmarkSpec) -> Measurement:
        raise DeviceUnavailableError("It was unplugged", fix="plug it in")

    agent = FunctionAgent(gone)
    with pytest.raises(DeviceUnavailableError):
        check_noise(agent, 1.0)
    assert agent.closed
    with pytest.MonkeyPatch.context() as patch:
        good = Scheme("toy", "toy:", "a toy", lambda rest: FunctionAgent(gone), doctor=lambda rest: [])
        patch.setitem(schemes.SCHEMES, "toy", good)
        (check,) = examine("toy:")
    assert (check.name, check.state, check.found, check.fix) == ("noise", "fail", "It was unplugged", "plug it in")


def test_what_is_kept_is_listed_with_its_age(info: DeviceInfo, tmp_path: Path) -> None:
    store = FloorStore(tmp_path / "floors.json")
    assert check_kept(info, store, NOW) == []
    for hours, threads in ((3, 1), (1.5, 2)):
        key = FloorKey.of(info, PRESETS["search"].replace(threads=threads))
        store.keep(key, {"compute": 1.0, "memory": 2.0}, NOW - timedelta(hours=hours))
    (check,) = check_kept(info, store, NOW)
    assert check.state == "pass"
    assert check.found == (
        f"undisturbed times of the probes (compute, memory), 1.5 to 3.0 hours old, in {store.file}; "
        "nas-edge devices clean host: removes them"
    )
    (check,) = check_kept(info, store, NOW - timedelta(hours=2))
    assert "0.0 to 1.0 hours old" in check.found, "a clock that was set back makes no age below zero"
