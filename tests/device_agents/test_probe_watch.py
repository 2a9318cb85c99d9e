from __future__ import annotations

import pytest

from device_agents.probe_watch import REFERENCE, Probe, ProbeWatch
from device_agents.quiet import VisitSettings, VisitTime

SETTINGS = VisitSettings()


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def watch(*names: str, floors_ms: dict[str, float] | None = None, clock: Clock | None = None) -> ProbeWatch:
    return ProbeWatch([Probe(name, name.encode()) for name in names], SETTINGS, floors_ms, clock or Clock())


def take(watched: ProbeWatch, name: str, *times_ms: float, first_round: int = 1) -> list[str]:
    return [watched.take(name, time_ms, first_round + number) for number, time_ms in enumerate(times_ms)]


def test_a_floor_is_what_the_lowest_visits_agree_on() -> None:
    watched = watch("compute")
    take(watched, "compute", 1.5, 1.0)
    assert watched.floors_ms == {}
    take(watched, "compute", 1.7, 1.02, 1.01)
    assert watched.floors_ms == {"compute": 1.01}


def test_a_device_whose_visits_are_all_at_their_floors_is_quiet() -> None:
    watched = watch("compute", "memory")
    for name in ("compute", "memory"):
        take(watched, name, *[1.0, 1.01] * 10)
    share = watched.quiet_share()
    assert share is not None
    assert share > 0.85
    assert watched.disturbance() == ""


def test_the_probe_that_is_disturbed_most_counts() -> None:
    watched = watch("compute", "memory")
    take(watched, "compute", *[1.0] * 20)
    take(watched, "memory", *[1.0, 1.5, 1.6, 1.0, 1.8, 1.0, 1.4, 1.7, 1.9, 1.5] * 2)
    share = watched.quiet_share()
    assert share is not None
    assert 0.2 < share < 0.4
    assert "other programs are busy" in watched.disturbance()
    assert not watched.is_throttled


def test_a_disturbance_that_has_just_begun_counts_more_than_the_quiet_before() -> None:
    watched = watch("memory")
    take(watched, "memory", *[1.0] * 20)
    take(watched, "memory", *[1.5] * 6, first_round=21)
    now, since = watched.quiet_share(), watched.quiet_share([VisitTime(1.0, 21)])
    assert now is not None
    assert since is not None
    assert since < 0.25 < now


def test_a_probe_says_nothing_against_a_network_that_does_not_feel_what_disturbs_it() -> None:
    watched = watch("memory", floors_ms={"memory": 1.0})
    take(watched, "memory", *[1.2, 1.5, 1.9, 1.3, 2.4] * 6)
    steady = [VisitTime(2.0 + 0.002 * (number % 5), number) for number in range(1, 31)]
    swaying = [VisitTime(2.0 + 0.5 * (number % 5), number) for number in range(1, 31)]
    assert (watched.quiet_share(steady) or 0) > 0.9
    assert (watched.quiet_share(swaying) or 0) < 0.05
    assert (watched.quiet_share(steady[:20]) or 0) < 0.05, "too few to say"
    less_swaying = [VisitTime(2.0 + 0.15 * (number % 5), number) for number in range(1, 31)]
    assert (watched.quiet_share(less_swaying) or 0) < 0.05, "it feels some of it"


def test_a_probe_that_is_slowed_alike_all_the_time_does_not_tell_what_a_network_feels() -> None:
    watched = watch("memory", floors_ms={"memory": 1.0})
    take(watched, "memory", *[1.5, 1.51] * 15)
    assert (watched.quiet_share([VisitTime(2.0, number) for number in range(1, 31)]) or 0) < 0.05


def test_without_probes_nothing_is_known() -> None:
    assert watch().quiet_share() is None
    assert watch().disturbance() == ""
    assert not watch().is_throttled


def test_a_floor_of_an_earlier_session_tells_that_all_of_this_one_is_disturbed() -> None:
    known, unknown = watch("memory", floors_ms={"memory": 1.0}), watch("memory")
    for watched in (known, unknown):
        take(watched, "memory", *[1.3] * 20)
    assert (known.quiet_share() or 0) < 0.05
    assert (unknown.quiet_share() or 0) > 0.85
    assert "1.30 times" in known.disturbance()


def test_all_probes_slow_is_throttling_and_one_of_them_is_contention() -> None:
    floors_ms = {"compute": 1.0, "memory": 1.0}
    contended, throttled = (
        watch("compute", "memory", floors_ms=floors_ms),
        watch("compute", "memory", floors_ms=floors_ms),
    )
    for watched, compute_ms in ((contended, 1.0), (throttled, 1.4)):
        take(watched, "compute", *[compute_ms] * 5)
        take(watched, "memory", *[1.4] * 5)
    assert (contended.is_throttled, throttled.is_throttled) == (False, True)
    assert "the memory probe takes 1.40 times" in contended.disturbance()
    assert "all probes take at least 1.40 times" in throttled.disturbance()


def test_a_device_that_stays_slow_has_settled_at_another_speed() -> None:
    clock = Clock()
    watched = watch("compute", clock=clock)
    take(watched, "compute", *[1.0] * 5)
    told = []
    for number in range(60):
        clock.now_s += SETTINGS.settle_s / 30
        told += take(watched, "compute", 1.5, first_round=10 + number)
    assert [word for word in told if word] == [f"all probes have been slow for {SETTINGS.settle_s:.0f} s"]
    assert watched.floors_ms == {"compute": 1.5}
    assert watched.drift_ratio() == pytest.approx(1.5)


def test_contention_that_lasts_is_not_taken_for_another_speed() -> None:
    clock = Clock()
    watched = watch("compute", "memory", clock=clock)
    for number in range(100):
        clock.now_s += SETTINGS.settle_s / 20
        take(watched, "compute", 1.0, first_round=number)
        assert take(watched, "memory", 1.0 if number < 10 else 1.5, first_round=number) == [""]
    assert watched.floors_ms == {"compute": 1.0, "memory": 1.0}


def test_a_floor_that_falls_tells_that_what_was_measured_before_was_disturbed() -> None:
    watched = watch("compute")
    assert not any(take(watched, "compute", *[1.5] * 5))
    told = take(watched, "compute", 1.0, 1.0, 1.0, first_round=6)
    assert [bool(word) for word in told] == [False, False, True]
    assert "the compute probe takes 0.67 times its time so far" in told[-1]


def test_a_probe_that_the_device_does_not_run_says_nothing() -> None:
    watched = watch("compute", "memory")
    watched.drop("memory")
    assert [probe.name for probe in watched.probes] == ["compute"]
    assert watched.take("memory", 1.0, 1) == ""


def test_a_network_is_corrected_by_the_reference_of_the_same_rounds() -> None:
    watched = watch(REFERENCE, floors_ms={REFERENCE: 2.0})
    take(watched, REFERENCE, *[2.2] * 10)
    found = watched.corrected([VisitTime(3.3, number) for number in range(1, 11)])
    assert found is not None
    assert found.latency_ms == pytest.approx(3.0)
    assert watch("compute", floors_ms={"compute": 1.0}).corrected([VisitTime(3.3, 1)] * 10) is None


def test_of_several_slow_probes_the_slowest_is_named() -> None:
    names = ("compute", "cache", "memory")
    watched = watch(*names, floors_ms=dict.fromkeys(names, 1.0))
    for name, time_ms in zip(names, (1.0, 1.9, 1.3), strict=True):
        take(watched, name, *[time_ms] * 5)
    assert watched.disturbance().startswith("the cache probe takes 1.90 times")


def test_a_visit_just_within_the_tolerance_is_quiet() -> None:
    slowest_ms = 1 + SETTINGS.probe_tolerance
    watched = watch("compute", "memory", floors_ms={"compute": 1.0, "memory": 1.0})
    for name in ("compute", "memory"):
        take(watched, name, *[slowest_ms] * 5)
    assert [state.quiet_share for state in watched.states()] == [1.0, 1.0]
    assert not watched.is_throttled
    assert watched.disturbance() == watched.slow_since(0) == ""


def test_how_a_probe_stands_is_told_relative_to_its_floor() -> None:
    watched = watch("compute", floors_ms={"compute": 2.0})
    (state,) = watched.states()
    assert (state.floor_ms, state.level, state.median_level, state.high_level) == (2.0, None, None, None)
    assert (state.quiet_share, state.visits, state.session_ms) == (0.0, 0, None)
    take(watched, "compute", 2.0, 2.1, 2.02, 4.0, 6.0)
    (state,) = watched.states()
    assert (state.level, state.median_level, state.quiet_share, state.visits) == (1.0, 1.05, 0.6, 5)
    assert state.high_level == pytest.approx(2.6)
    assert state.session_ms == pytest.approx(2.02)


def test_the_floor_of_a_session_is_its_own() -> None:
    watched = watch("compute", floors_ms={"compute": 1.0})
    take(watched, "compute", 1.5, 1.5, 1.5, 1.3, 1.3, 1.3)
    (state,) = watched.states()
    assert (state.floor_ms, state.session_ms) == (1.0, 1.3)


def test_drift_is_that_of_the_compute_probe_or_else_of_the_first() -> None:
    watched = watch("memory", "compute", floors_ms={"memory": 1.0, "compute": 1.0})
    assert watched.drift_ratio() is None
    take(watched, "memory", 1.5)
    take(watched, "compute", 1.2, 1.1)
    assert watched.drift_ratio() == pytest.approx(1.1)
    watched.drop("compute")
    assert watched.drift_ratio() == pytest.approx(1.5)
    assert watch().drift_ratio() is None


def test_reference_networks_are_kept_apart_by_their_files() -> None:
    first, other = Probe(REFERENCE, b"1"), Probe(REFERENCE, b"2")
    assert first.kept_as != other.kept_as
    assert first.kept_as.startswith(REFERENCE)
    assert Probe("compute", b"1").kept_as == Probe("compute", b"2").kept_as == "compute"
