"""A farm on a real Ray cluster: real hosts (each a Ray node of this machine), real agents, and hosts that are killed.

This machine's devices are real, timed with a real TFLite runtime; those of the scheme `madeup` stand for phones.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_agents.api import BenchmarkSpec, Measurement, Verdict
from device_agents.devices import completions, find_scheme, list_devices, open_device
from device_agents.errors import DeviceUnavailableError
from device_agents.pool import DevicePool, PoolSettings
from nas_edge.testing import check_device_agent, check_device_scheme
from tests.support.farm import Farm
from tests.support.packages import install

pytestmark = [pytest.mark.slow, pytest.mark.needs("ray"), pytest.mark.timeout(200)]

# Stands for a phone: says how long the model is, notes what it was asked, crashes or waits when told to.
MADE_UP = """
import os, time
from pathlib import Path

from device_agents.api import Conditions, DeviceAgent, DeviceInfo, Measurement, Verdict

LOG = Path(__file__).with_name("measured.txt")


class MadeUp(DeviceAgent):
    def __init__(self, rest):
        self._rest = rest

    def info(self):
        return DeviceInfo(f"madeup:{self._rest}", "madeup", "made-up phone", "soc", 1, None, "os", "none", "1")

    def measure(self, model, spec):
        with LOG.open("a") as log:
            log.write(f"{self._rest} {model[:20].decode()}\\n")
        if model.startswith(b"crash"):
            os._exit(9)
        while LOG.with_name(f"hold-{self._rest}").exists():
            time.sleep(0.02)
        return Measurement(Verdict.OK, samples_ms=(float(len(model)),) * 9)

    def run(self, model, inputs):
        return list(inputs)

    def close(self):
        pass
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    install(site, "made-up", {"nas_edge.devices": {"madeup": "madeup:MadeUp"}}, {"madeup": MADE_UP})
    return site


@pytest.fixture(scope="module")
def farm(site: Path) -> Iterator[Farm]:
    with Farm(site) as farm, pytest.MonkeyPatch.context() as patch:
        for name, value in farm.environ.items():
            patch.setenv(name, value)
        farm.add("bench-1", ["host:", "madeup:a", "madeup:b"])
        farm.add("bench-2", ["madeup:c", "madeup:d"])
        yield farm


def test_a_real_device_keeps_all_promises_from_another_host(farm: Farm) -> None:
    address = farm.address("bench-1", "host:")
    check_device_agent(lambda: open_device(address))
    scheme = find_scheme("farm")
    check_device_scheme(scheme, "bench-1/host:", malformed=("", "bench-1", "/host:"))
    assert scheme.doctor is not None
    checks = {check.name: check for check in scheme.doctor("bench-1/host:")}
    assert checks["authentication"].found == "by token"
    assert checks["measuring"].state != "fail"


def test_devices_are_listed_with_who_uses_them(farm: Farm) -> None:
    def listed() -> dict[str, str]:
        return {row.address: row.state for row in list_devices() if row.kind == "farm"}

    offered = [f"farm:bench-{n}/{d}" for n, d in [(1, "host:"), (1, "madeup:a"), (1, "madeup:b"), (2, "madeup:c")]]
    assert dict.fromkeys(offered, "ready").items() <= listed().items()
    with open_device(offered[1]):
        assert listed()[offered[1]] == "in use"
        with pytest.raises(DeviceUnavailableError, match=r"madeup:a is in use by \S+@\S+; wait"):
            open_device(offered[1])
    assert completions("farm:bench-1/h") == [offered[0]], "TAB offers what was listed"


def test_what_is_not_there_is_named_with_what_is(farm: Farm) -> None:
    with pytest.raises(DeviceUnavailableError, match=r"No node bench-9 .* one of bench-1, bench-2, head"):
        open_device("farm:bench-9/host:")
    with pytest.raises(DeviceUnavailableError, match=r'does not offer adb:X; .* --resources=\'\{"nas_edge:adb:X": 1\}'):
        open_device("farm:bench-2/adb:X")


def test_who_has_no_token_is_told_where_it_belongs(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    with pytest.raises(DeviceUnavailableError, match=r"does not let this machine in.*~/\.ray/auth_token"):
        open_device("farm:bench-1/host:")


def answers(pool: DevicePool, models: list[bytes]) -> list[Measurement]:
    return [future.result(timeout=120) for future in [pool.submit(model, BenchmarkSpec()) for model in models]]


def test_a_device_that_crashes_is_started_again_and_its_candidate_is_a_recorded_failure(farm: Farm, site: Path) -> None:
    agents = [open_device(farm.address("bench-1", f"madeup:{name}")) for name in "ab"]
    models = [b"x" * (20 + index) for index in range(8)]
    with DevicePool(agents, PoolSettings(quarantine_s=1.0)) as pool:
        *before, crashed = answers(pool, [*models[:4], b"crash"])
        after = answers(pool, models[4:])
        counted = sum(status.measured for status in pool.status())
    assert [m.latency_ms for m in [*before, *after]] == [len(model) for model in models]
    assert (crashed.verdict, crashed.attempts) == (Verdict.DEVICE_LOST, 3)
    assert counted == len(models), "the one that crashed is no answer"
    log = (site / "measured.txt").read_text().splitlines()
    assert sum(line.endswith("crash") for line in log) == 3, "it was tried as often as is said: Ray repeats nothing"


def test_a_host_that_is_killed_loses_no_candidate_and_is_used_again(farm: Farm, site: Path) -> None:
    log = site / "measured.txt"
    log.write_text("")
    holds = [site / "hold-c", site / "hold-d"]
    for hold in holds:
        hold.touch()
    hosts = {"a": "bench-1", "b": "bench-1", "c": "bench-2", "d": "bench-2"}
    addresses = [farm.address(host, f"madeup:{name}") for name, host in hosts.items()]
    models = [f"{index:02}".encode() + b"x" * index for index in range(18)]
    with DevicePool([open_device(address) for address in addresses], PoolSettings(quarantine_s=1.0)) as pool:
        futures = [pool.submit(model, BenchmarkSpec()) for model in models]
        wait_until(lambda: {"c", "d"} <= {line[0] for line in log.read_text().splitlines()})
        farm.kill("bench-2")
        for hold in holds:
            hold.unlink()
        assert [future.result(timeout=120).latency_ms for future in futures] == [len(model) for model in models]
        assert sum(status.measured for status in pool.status()) == len(models), "each was counted once"
        assert [status.measured for status in pool.status()][2:] == [0, 0]
        in_flight = Counter(line[:1] for line in log.read_text().splitlines())
        asked = sum(in_flight.values())
        assert asked - len(models) == in_flight["c"] + in_flight["d"], "only what was lost is measured again"
        farm.add("bench-2", ["madeup:c", "madeup:d"])
        wait_until(lambda: all(status.state == "idle" for status in pool.status()))
        answers(pool, models)
        assert all(status.measured for status in pool.status()), "it is back"


def wait_until(done: Callable[[], bool], limit_s: float = 100.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
