"""Whether two CPUs share a core: what the system lists, what is measured, and what is said of both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_agents import siblings
from device_agents.api import PRESETS, BenchmarkSpec, Measurement, Verdict
from device_agents.host import HostAgent, pick_cores
from device_agents.siblings import CorePair, listed_siblings, sibling_check, watch_pair
from device_agents.worker.system import allowed_cores, busy_s
from tests.support.agents import FunctionAgent

TOPOLOGY = "sys/devices/system/cpu/cpu{}/topology/{}"
SPEC = PRESETS["search"].replace(cores=(3,))


def put(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
@pytest.mark.parametrize(("text", "expected"), [("1,3\n", (1, 3)), ("2-3\n", (2, 3)), ("3\n", (3,))])
def test_what_the_system_lists(tmp_path: Path, name: str, text: str, expected: tuple[int, ...]) -> None:
    put(tmp_path, TOPOLOGY.format(3, name), text)
    assert listed_siblings(3, tmp_path) == expected


@pytest.mark.parametrize("text", ["", "big", "0-", "0,1", "\x00", "0-99999999999", "é"])
def test_a_list_that_makes_no_sense_is_none(tmp_path: Path, text: str) -> None:
    put(tmp_path, TOPOLOGY.format(3, "core_cpus_list"), text)
    assert listed_siblings(3, tmp_path) is None
    assert listed_siblings(2, tmp_path) is None


@pytest.mark.parametrize(
    ("pair", "state", "expected"),
    [
        (CorePair(3, 1, 1.74, True), "warn", "1 and 3 share a core: the compute probe takes 1.74 times as long on 3"),
        (CorePair(3, 1, 1.74, True), "warn", "while 1 is busy, and the system says so"),
        (CorePair(3, 1, 1.74, False), "warn", "share a core: the compute probe takes 1.74 times"),
        (CorePair(3, 1, 1.74, False), "warn", "though the system says no"),
        (CorePair(3, 1, 1.74, None, 1.0), "warn", "share a core"),
        (CorePair(3, 1, 1.15, None), "warn", "slow each other"),
        (CorePair(3, 1, 1.02, None, 0.1), "pass", "do not slow each other"),
        (CorePair(3, 1, 1.02, True), "pass", "though the system says that they share a core"),
        (CorePair(3, 1, 1.00, None, 0.9), "pass", "could not be measured: other programs keep CPU 1 busy"),
        (CorePair(3, 1, 1.00, True, 0.9), "warn", "other programs keep CPU 1 busy; the system says so"),
        (CorePair(3, 1, None, True), "warn", "could not be measured; the system says so"),
        (CorePair(3, 1, None, None), "pass", "could not be measured; the system does not say"),
    ],
)  # fmt: skip
def test_what_is_said(pair: CorePair, state: str, expected: str, tmp_path: Path) -> None:
    check = sibling_check(pair, (0, 1, 2, 3), tmp_path)
    assert (check.name, check.state) == ("cores", state)
    assert expected in check.found
    assert bool(check.fix) == (state == "warn")
    if state == "warn":
        assert check.fix == "keep CPU 1 idle while measuring: run other programs with taskset -c 0,2"


def test_where_there_is_no_third_cpu_nothing_else_should_run(tmp_path: Path) -> None:
    pair = CorePair(1, 0, 1.7, True)
    assert sibling_check(pair, (0, 1), tmp_path).fix == "run nothing else beside a search"
    switch = put(tmp_path, "sys/devices/system/cpu/smt/control", "on\n")
    assert sibling_check(pair, (0, 1), tmp_path).fix.endswith(f"echo off | sudo tee {switch}")
    switch.write_text("notsupported\n")
    assert "tee" not in sibling_check(pair, (0, 1), tmp_path).fix


def test_the_system_s_sibling_is_burnt_or_else_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = FunctionAgent(lambda model, spec: Measurement(Verdict.OK, samples_ms=(1.0,) * 3))
    monkeypatch.setattr(siblings, "_BURN", "import sys; print(flush=True); sys.stdin.read()")
    assert watch_pair(agent, SPEC, (0, 1, 2, 3), tmp_path).other == 2
    put(tmp_path, TOPOLOGY.format(3, "core_cpus_list"), "1,3")
    assert watch_pair(agent, SPEC, (0, 1, 2, 3), tmp_path) == CorePair(3, 1, 1.0, True)
    pair = watch_pair(agent, SPEC, (0, 3), tmp_path)
    assert (pair.other, pair.listed) == (0, False)


def test_where_nothing_can_be_burnt_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "_BURN", "raise SystemExit('no such CPU')")
    agent = FunctionAgent(lambda model, spec: Measurement(Verdict.OK, samples_ms=(1.0,) * 3))
    assert watch_pair(agent, SPEC, (0, 3), tmp_path) == CorePair(3, 0, None, None)


def test_a_probe_that_fails_claims_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "_BURN", "import sys; print(flush=True); sys.stdin.read()")
    agent = FunctionAgent(lambda model, spec: Measurement(Verdict.RUN_FAILED, "no"))
    assert watch_pair(agent, SPEC, (0, 3), tmp_path).ratio is None


needs_two = pytest.mark.skipif(pick_cores(1) is None, reason="needs two CPUs and a system that pins programs to them")


@needs_two
def test_a_slowed_probe_shows_in_the_ratio(tmp_path: Path) -> None:
    """What burns is real: the agent is slow whenever the other CPU's burner has just run."""
    usable = allowed_cores() or ()
    other = usable[-2]
    speed = {True: 1.5, False: 1.0}

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        return Measurement(Verdict.OK, samples_ms=(speed[_burns(other)],) * 3)

    pair = watch_pair(FunctionAgent(measure), SPEC.replace(cores=usable[-1:]), usable, tmp_path)
    assert (pair.other, pair.ratio) == (other, 1.5)


def _burns(core: int) -> bool:
    """Whether the child of this process that is pinned to a CPU runs, rather than being stopped."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
            pid = int(file.parent.name)
            if int(fields[1]) == os.getpid() and os.sched_getaffinity(pid) == {core}:
                return fields[0] != "T"
        except OSError:
            continue
    raise AssertionError("nothing burns")


@needs_two
def test_on_this_machine_a_pair_is_measured_and_nothing_burns_on(
    agent: HostAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(siblings, "_LONGEST_S", 1e6)  # so long it would be waited for, if it were not ended
    usable = allowed_cores() or ()
    pair = watch_pair(agent, PRESETS["search"].replace(cores=pick_cores(1)), usable)
    assert pair.measured == usable[-1]
    assert pair.ratio is not None
    assert pair.ratio > 0
    assert (pair.used_share is None) == (busy_s((pair.other,)) is None)
    with pytest.raises(AssertionError, match="nothing burns"):
        _burns(pair.other)


@needs_two
@pytest.mark.parametrize("is_burning", [True, False])
def test_what_burns_ends_with_the_process_that_started_it(is_burning: bool) -> None:
    code = (
        "import os, signal, sys\nfrom device_agents import siblings\n"
        "with siblings._burner(int(sys.argv[1])) as burn:\n"
        f"    burn({is_burning})\n"
        "    child = open(f'/proc/self/task/{os.getpid()}/children').read()\n"
        "    print(child, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str((allowed_cores() or ())[0])], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    burner, until_s = Path(f"/proc/{int(done.stdout)}"), time.monotonic() + 60
    while burner.exists() and " Z " not in (burner / "stat").read_text():
        assert time.monotonic() < until_s, "it burns on"
        time.sleep(0.1)
