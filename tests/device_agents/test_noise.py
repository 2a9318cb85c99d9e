"""What is said of how quiet a device is: for made-up probes, a simulated device, and this machine."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from device_agents.api import PRESETS, BenchmarkSpec, Conditions, Measurement, Verdict
from device_agents.busy import BusyProgram
from device_agents.checks import Check, healthy
from device_agents.errors import DeviceUnavailableError
from device_agents.noise import (
    USUAL_COSTS,
    WATCH_SETTINGS,
    Noise,
    Outlook,
    VisitCosts,
    _time_check,
    noise_checks,
    noise_line,
    outlook,
    watch_noise,
)
from device_agents.probe_models import memory_model
from device_agents.probe_watch import ProbeState
from device_agents.quiet import VisitSettings, visits_needed
from device_agents.visiting import VisitingAgent
from tests.support.agents import FunctionAgent, fake_info

SPEC = PRESETS["search"]  # 0.06 to 3 s in timed runs
VISITS = VisitSettings()
QUIET = ProbeState("compute", 0.8, 1.0, 1.02, 1.0, 400, 1.04)
BUSY = ProbeState("memory", 2.0, 1.0, 4.3, 0.3, 400, 6.4)
DROWNED = ProbeState("memory", 2.0, 1.02, 4.3, 0.01, 400, 6.4)
UNKNOWN = ProbeState("memory", None, None, None, 0.0, 12)
NEVER = ProbeState("memory", 2.0, None, None, 0.0, 0)


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert all(bool(check.fix) == (check.state != "pass") for check in checks)
    assert all("\n" not in check.found + check.fix for check in checks)
    return {check.name: check for check in checks}


def said_of(*states: ProbeState, busy: list[BusyProgram] | None = None, spec: BenchmarkSpec = SPEC) -> dict[str, Check]:
    return by_name(noise_checks(Noise(states, 12.0, VisitCosts(0.003, 0.004)), spec, "toy:1", busy))


# What a candidate takes


def test_on_a_quiet_device_a_candidate_takes_what_its_settings_ask_for() -> None:
    expected = outlook([QUIET], SPEC)
    assert (expected.needed, expected.quiet_share, expected.is_enough) == (VISITS.agreeing, 1.0, True)
    longer = outlook([QUIET], SPEC.replace(min_duration_s=0.5))
    assert longer.needed == 17
    assert longer.needed_s == pytest.approx(0.51)


def test_visits_and_probes_and_loading_all_count() -> None:
    bare = outlook([QUIET], SPEC, costs=VisitCosts())
    dear = outlook([QUIET], SPEC, costs=VisitCosts(loading_s=1.0, overhead_s=0.1))
    assert outlook([QUIET], SPEC) == outlook([QUIET], SPEC, costs=USUAL_COSTS) != bare
    assert bare.candidate_s == pytest.approx(3 * (VISITS.duration_s + VISITS.probe_duration_s))
    assert dear.candidate_s == pytest.approx(bare.candidate_s + 1.0 + 3 * 2 * 0.1)


def test_the_probe_that_is_disturbed_most_decides() -> None:
    expected = outlook([QUIET, BUSY], SPEC)
    assert expected.quiet_share == 0.3
    assert expected.needed == outlook([BUSY], SPEC).needed >= visits_needed(0.3, SPEC.max_risk, VISITS)
    assert expected.candidate_s > outlook([QUIET], SPEC).candidate_s


def test_what_does_not_fit_into_the_limit_is_given_up_there() -> None:
    short = SPEC.replace(max_duration_s=0.1)
    assert outlook([BUSY], short).most == VISITS.fewest_before_giving_up
    expected = outlook([DROWNED, QUIET], SPEC, costs=VisitCosts())
    assert not expected.is_enough
    assert expected.most == math.ceil(SPEC.max_duration_s / VISITS.duration_s)
    assert expected.candidate_s == pytest.approx(expected.most * (VISITS.duration_s + VISITS.probe_duration_s))


@pytest.mark.parametrize("states", [[UNKNOWN, QUIET], [QUIET, NEVER], [UNKNOWN]])
def test_an_unknown_probe_is_neither_quiet_nor_busy(states: list[ProbeState]) -> None:
    expected = outlook(states, SPEC)
    assert expected.quiet_share is None
    assert not expected.is_enough, "measuring trusts nothing as long as it is so"


def test_what_is_needed_may_be_all_that_there_is_time_for() -> None:
    assert Outlook(0.5, needed=12, most=12, candidate_s=1.0, needed_s=1.0).is_enough
    assert not Outlook(0.5, needed=13, most=12, candidate_s=1.0, needed_s=1.0).is_enough


# The line of a search


@pytest.mark.parametrize(
    ("states", "line"),
    [
        (
            [QUIET, replace(QUIET, name="memory", median_level=1.0, quiet_share=0.83)],
            "this machine: 83% of the visits undisturbed, a candidate takes about 0.3 s; "
            "compute probe 1.02x its floor, memory probe 1.00x its floor",
        ),
        (
            [QUIET, DROWNED],
            "this machine: 1% of the visits undisturbed, too few to trust a candidate within its limit of 3.0 s; "
            "compute probe 1.02x its floor, memory probe 4.30x its floor",
        ),
        (
            [QUIET, UNKNOWN],
            "this machine: how many visits are undisturbed is not known yet, a candidate takes up to 6.2 s; "
            "compute probe 1.02x its floor, memory probe not known yet",
        ),
        ([], "this machine: not watched by probes, so its noise is not known; a candidate takes about 0.6 s"),
    ],
)
def test_one_line_for_the_start_of_a_search(states: list[ProbeState], line: str) -> None:
    assert noise_line(states, SPEC) == line


@pytest.mark.parametrize("order", [*itertools.permutations([QUIET, replace(BUSY, name="compute")])])
def test_of_devices_that_are_alike_the_line_shows_the_one_that_is_disturbed_most(
    order: tuple[ProbeState, ...],
) -> None:
    line = noise_line(order, SPEC, "2 phones")
    assert line.startswith("2 phones: 30% ")
    assert line.endswith("; compute probe 4.30x its floor")
    assert noise_line([*order, replace(UNKNOWN, name="compute")], SPEC).endswith("compute probe not known yet")


# The points of a doctor


def test_a_quiet_device_passes_with_numbers() -> None:
    found = said_of(QUIET, replace(QUIET, name="memory", floor_ms=2.05))
    assert {check.state for check in found.values()} == {"pass"}
    assert found["memory probe"].found == (
        "2.05 ms undisturbed; median 1.02x, 90% of the visits within 1.04x; 100% of 400 visits undisturbed"
    )
    assert found["quiet visits"].found == "100% of the visits in 12 s undisturbed"
    assert found["candidate"].found == "a small network takes about 0.2 s to be trusted: 3 visits and 3 ms of loading"


def test_what_disturbs_is_named() -> None:
    found = said_of(QUIET, BUSY, busy=[BusyProgram("miner", 1.52), BusyProgram("backup", 0.31)])
    assert [found[name].state for name in ("compute probe", "memory probe", "quiet visits")] == ["pass", "warn", "warn"]
    assert "the memory probe is disturbed most" in found["quiet visits"].found
    assert found["quiet visits"].fix == "close miner (1.5 cores), backup (0.3 cores)"
    assert "moves much data" in found["memory probe"].fix


def test_where_nothing_here_is_busy_the_disturbance_is_outside() -> None:
    assert "outside of what this system can see" in said_of(BUSY, busy=[])["quiet visits"].fix
    assert "close apps" in said_of(BUSY, busy=None)["quiet visits"].fix, "on a phone"


def test_another_cpu_is_offered_where_it_can_help() -> None:
    slow = replace(BUSY, name="compute")
    found = by_name(noise_checks(Noise((slow, BUSY), 12.0), SPEC, "host:", [], idle_core=2))
    assert found["compute probe"].fix.endswith("; or measure on CPU 2, which was idle: --cores 2")
    assert "--cores" not in found["memory probe"].fix, "all CPUs share the memory"
    assert "--cores" not in said_of(slow)["compute probe"].fix


def test_how_long_to_measure_is_a_setting_that_is_enough() -> None:
    short = SPEC.replace(max_duration_s=0.2)
    check = said_of(BUSY, spec=short)["candidate"]
    assert check.state == "warn"
    name, value = check.fix.removeprefix("measure for longer: --set measure.").split("=")
    assert name == "max_duration_s"
    assert outlook([BUSY], short.replace(max_duration_s=float(value))).is_enough
    assert said_of(BUSY, spec=short.replace(max_duration_s=float(value)))["candidate"].state == "pass"


def test_where_no_time_is_enough_none_is_promised() -> None:
    for states in ((QUIET, DROWNED), (QUIET, UNKNOWN)):
        check = said_of(*states)["candidate"]
        assert "none can be trusted at the moment" in check.found
        assert "max_duration_s" not in check.fix


def test_a_probe_that_is_not_known_is_not_called_disturbed() -> None:
    found = said_of(QUIET, UNKNOWN)
    assert found["memory probe"].found.startswith("its undisturbed time is not known: the lowest of 12 visits")
    assert found["quiet visits"].found == "their share is not known after 12 s"
    assert said_of(NEVER)["memory probe"].found == "not one visit succeeded"
    assert "%" not in " ".join(check.found for check in said_of(UNKNOWN).values())


def test_a_floor_that_was_undercut_is_doubted() -> None:
    check = said_of(replace(QUIET, level=0.47))["compute probe"]
    assert check.state == "warn"
    assert "one took 0.47x, so that may be less yet" in check.found


def test_all_probes_slow_all_the_time_is_no_other_program() -> None:
    slow = replace(QUIET, level=1.31, median_level=1.4, quiet_share=0.0)
    found = said_of(slow, replace(slow, name="memory", level=1.5))
    assert found["speed"].found.startswith("every probe takes at least 1.31 times as long")
    assert "nas-edge devices clean toy:1" in found["speed"].fix
    assert "speed" not in said_of(slow, BUSY)
    assert "speed" not in said_of(slow, UNKNOWN)


def test_limits_belong_to_what_is_quiet() -> None:
    slowest = 1 + VISITS.probe_tolerance
    just = replace(QUIET, level=slowest, median_level=slowest, quiet_share=0.5)
    found = said_of(just, replace(just, name="memory"))
    assert "speed" not in found
    assert [found[name].state for name in ("compute probe", "memory probe", "quiet visits")] == ["pass"] * 3
    assert said_of(replace(QUIET, level=1 - VISITS.probe_tolerance))["compute probe"].state == "pass"
    assert "disturbed most" not in said_of(replace(QUIET, quiet_share=0.9))["quiet visits"].found
    assert "disturbed most" in said_of(replace(QUIET, quiet_share=0.89))["quiet visits"].found


@pytest.mark.parametrize(
    ("needed_s", "setting"), [(1.01, "1.1"), (9.91, "10.0"), (10.0, "10"), (10.2, "11"), (123.4, "124")]
)
def test_a_setting_that_is_enough_is_rounded_up(needed_s: float, setting: str) -> None:
    expected = Outlook(0.5, needed=100, most=12, candidate_s=1.0, needed_s=needed_s)
    noise = Noise((BUSY,), 12.0)
    fix = _time_check(noise, SPEC, expected).fix
    assert fix == f"measure for longer: --set measure.max_duration_s={setting}"


def test_a_device_that_runs_no_probe_is_told_so() -> None:
    (check,) = noise_checks(Noise((), 0.0), SPEC, "toy:1")
    assert (check.name, check.state) == ("probes", "warn")


@pytest.mark.parametrize("states", [(DROWNED,), (UNKNOWN, NEVER), ()])
def test_noise_is_never_a_failure(states: tuple[ProbeState, ...]) -> None:
    assert healthy(noise_checks(Noise(states, 3.0), SPEC, "toy:1"))


# Watching


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def device(clock: Clock, factor: Callable[[bytes], float]) -> VisitingAgent:
    """A device on which every visit takes a tenth of a second, and a run a millisecond times a factor."""

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        clock.now_s += 0.1
        conditions = Conditions("f", "phone", "litert", "1", spec.delegate, spec.threads, "2024-01-01T00:00:00")
        return Measurement(
            Verdict.OK,
            samples_ms=(factor(model),) * 5,
            init_ms=2.0,
            first_inference_ms=3.0,
            conditions=conditions,
        )

    return VisitingAgent(FunctionAgent(measure, fake_info()), settings=WATCH_SETTINGS, clock=clock)


def test_a_device_that_is_clearly_quiet_is_watched_no_longer() -> None:
    clock = Clock()
    noise = watch_noise(device(clock, lambda model: 1.0), SPEC, 1000.0, clock)
    assert noise.watched_s < 10
    assert [(state.name, state.quiet_share, state.visits) for state in noise.states] == [
        (name, 1.0, 20) for name in ("compute", "cache", "memory")
    ]
    assert noise.costs.loading_s == pytest.approx(0.005)
    assert noise.costs.overhead_s == pytest.approx(0.1 - VISITS.probe_duration_s)


def test_a_busy_device_is_watched_to_the_end_and_all_visits_count() -> None:
    clock, chance = Clock(), random.Random(3)
    noise = watch_noise(device(clock, lambda _: 1.0 if chance.random() < 0.4 else 1.7), SPEC, 100.0, clock)
    assert 100.0 <= noise.watched_s < 101.0
    assert all(state.visits > 300 for state in noise.states)
    assert all(0.3 < state.quiet_share < 0.5 for state in noise.states)
    assert by_name(noise_checks(noise, SPEC, "toy:1"))["quiet visits"].state == "warn"


def test_a_busy_memory_shows_in_its_own_probe() -> None:
    clock, chance = Clock(), random.Random(5)

    def factor(model: bytes) -> float:
        return 2.0 if model == memory_model() and chance.random() < 0.8 else 1.0

    found = by_name(noise_checks(watch_noise(device(clock, factor), SPEC, 30.0, clock), SPEC, "toy:1"))
    assert [found[f"{name} probe"].state for name in ("compute", "cache", "memory")] == ["pass", "pass", "warn"]


def test_probes_that_the_device_refuses_say_nothing() -> None:
    clock = Clock()

    def refuse(model: bytes, spec: BenchmarkSpec) -> Measurement:
        clock.now_s += 0.1
        return Measurement(Verdict.LOAD_FAILED, "no such operator")

    agent = VisitingAgent(FunctionAgent(refuse), settings=WATCH_SETTINGS, clock=clock)
    assert watch_noise(agent, SPEC, 10.0, clock).states == ()


def test_a_device_that_is_gone_is_an_error() -> None:
    def gone(model: bytes, spec: BenchmarkSpec) -> Measurement:
        raise DeviceUnavailableError("unplugged")

    with pytest.raises(DeviceUnavailableError, match="unplugged"):
        watch_noise(VisitingAgent(FunctionAgent(gone), settings=WATCH_SETTINGS), SPEC)
