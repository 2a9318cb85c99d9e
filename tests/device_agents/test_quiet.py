from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.api import PRESETS, BenchmarkSpec
from device_agents.quiet import (
    VisitSettings,
    VisitTime,
    agreed,
    corrected,
    likely_share,
    nearly_agreed,
    sensitivity,
    time_of,
    visits_needed,
)

SETTINGS = VisitSettings()
TIMES_MS = st.lists(st.floats(0.01, 100), min_size=1, max_size=60)


def visits(*times_ms: float) -> list[VisitTime]:
    """One in each round."""
    return [VisitTime(time_ms, number) for number, time_ms in enumerate(times_ms)]


def test_three_low_visits_that_agree_are_the_quiet_latency_however_slow_the_others_are() -> None:
    quiet = agreed(visits(1.9, 1.01, 2.5, 1.0, 1.7, 1.03, 3.0), SETTINGS)
    assert quiet is not None
    assert (quiet.latency_ms, quiet.interval_ms, quiet.visits) == (1.01, (1.0, 1.03), 3)


@pytest.mark.parametrize("times_ms", [(1.0, 1.04), (1.0, 1.04, 1.06), (1.0, 1.2, 1.4, 1.6)])
def test_fewer_visits_and_visits_that_differ_by_more_than_the_tolerance_say_nothing(times_ms: tuple[float]) -> None:
    assert agreed(visits(*times_ms), SETTINGS) is None


def test_visits_of_a_single_round_do_not_confirm_each_other() -> None:
    assert agreed([VisitTime(1.0, 7)] * 5, SETTINGS) is None
    assert agreed([*[VisitTime(1.0, 7)] * 2, VisitTime(1.0, 8)], SETTINGS) is not None


def test_many_quiet_visits_do_not_pull_the_latency_down_to_the_lowest() -> None:
    scattered = [1.0 + 0.0004 * number for number in range(101)]  # 1.00 to 1.04
    quiet = agreed(visits(*scattered), SETTINGS)
    assert quiet is not None
    assert quiet.latency_ms == pytest.approx(1.01)
    assert quiet.interval_ms[0] == 1.0
    assert quiet.latency_ms < quiet.interval_ms[1] < 1.03


def test_visits_that_were_slightly_disturbed_do_not_pull_the_latency_up() -> None:
    quiet = agreed(visits(1.0, 1.01, 1.015, *[1.045] * 30), SETTINGS)
    assert quiet is not None
    assert (quiet.latency_ms, quiet.visits) == (1.01, 33)
    assert quiet.interval_ms == (1.0, 1.045)


@given(TIMES_MS)
def test_the_quiet_latency_is_within_the_tolerance_of_the_lowest_visit(times_ms: list[float]) -> None:
    quiet = agreed(visits(*times_ms), SETTINGS)
    if quiet is not None:
        assert min(times_ms) <= quiet.interval_ms[0] <= quiet.latency_ms <= quiet.interval_ms[1]
        assert quiet.interval_ms[1] <= min(times_ms) * (1 + SETTINGS.tolerance)


@given(TIMES_MS, st.floats(100.1, 1e6))
def test_a_disturbed_visit_more_changes_nothing(times_ms: list[float], disturbed_ms: float) -> None:
    before = agreed(visits(*times_ms), SETTINGS)
    if before is not None and min(times_ms) * (1 + SETTINGS.tolerance) < disturbed_ms:
        assert agreed(visits(*times_ms, disturbed_ms), SETTINGS) == before


def test_two_visits_suffice_for_a_correction() -> None:
    near = nearly_agreed(visits(1.0, 1.06, 1.5, 1.9), SETTINGS)
    assert near is not None
    assert near.latency_ms == pytest.approx(1.03)
    assert nearly_agreed(visits(1.0, 1.2, 1.5), SETTINGS) is None


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9])
def test_so_many_visits_are_needed_that_hardly_ever_all_are_disturbed(share: float) -> None:
    needed = visits_needed(share, 0.01, SETTINGS)
    assert (1 - share) ** needed <= 0.01
    assert needed == SETTINGS.agreeing or (1 - share) ** (needed - 1) > 0.01


def test_a_quiet_device_needs_no_more_than_have_to_agree_and_a_disturbed_one_cannot_be_trusted() -> None:
    assert visits_needed(1.0, 0.01, SETTINGS) == visits_needed(0.95, 0.01, SETTINGS) == SETTINGS.agreeing
    assert visits_needed(0.0, 0.01, SETTINGS) == math.inf


def test_a_share_is_guessed_with_caution_while_little_is_known() -> None:
    assert likely_share(0, 0) == 0
    assert likely_share(2, 2) < 0.6 < likely_share(20, 20) < 1
    assert 0 < likely_share(0, 20) < 0.05


def test_a_latency_follows_the_ratio_to_a_reference_that_is_as_disturbed() -> None:
    reference = visits(*[2.2] * 10)  # undisturbed it takes 2.0
    found = corrected(visits(*[3.3] * 10), reference, 2.0, SETTINGS)
    assert found is not None
    assert found.latency_ms == pytest.approx(3.0)
    low_ms, high_ms = found.interval_ms
    assert low_ms < 3.0 < high_ms
    assert found.relative_half_width == pytest.approx(SETTINGS.sensitivity_spread * math.log(1.1))


def test_a_latency_is_never_above_its_lowest_visit_however_little_the_reference_feels() -> None:
    found = corrected(visits(*[3.9] * 9, 3.2), visits(*[2.04] * 10), 2.0, SETTINGS)  # the ratio alone says 3.8
    assert found is not None
    assert found.latency_ms == pytest.approx(3.2)
    assert found.interval_ms[0] < 3.2 < found.interval_ms[1]


def test_a_reference_that_is_disturbed_strongly_or_shares_few_rounds_says_too_little() -> None:
    assert corrected(visits(*[6.0] * 10), visits(*[4.0] * 10), 2.0, SETTINGS) is None
    assert corrected(visits(*[3.0] * 10), visits(*[2.0] * 3), 2.0, SETTINGS) is None


def test_only_a_network_that_hardly_feels_what_disturbs_a_probe_counts_as_less_sensitive() -> None:
    n = SETTINGS.fewest_to_compare
    for felt in (SETTINGS.hardly_felt / 2, SETTINGS.hardly_felt * 1.01, 0.9, 2.0):
        times_ms = [3.0] * n + [3.0 * 4.0**felt] * n
        expected = felt if felt < SETTINGS.hardly_felt else 1.0
        assert sensitivity(times_ms, [1.0] * n + [4.0] * n, SETTINGS) == pytest.approx(expected)


def test_too_few_visits_and_a_probe_at_rest_say_nothing_of_a_sensitivity() -> None:
    n = SETTINGS.fewest_to_compare
    half, disturbed_ms = n // 2, [1.0] * n + [4.0] * n
    assert sensitivity([3.0] * n, disturbed_ms, SETTINGS) == 0
    assert sensitivity([3.0] * (n - 1), disturbed_ms, SETTINGS) == 1
    assert sensitivity([3.0] * n, [1.0] * half + [4.0] * (n - 1 - half), SETTINGS) == 1
    assert sensitivity([3.0] * n, [1.0] * n + [1.0 + SETTINGS.probe_tolerance / 2] * n, SETTINGS) == 1


def test_the_time_of_a_visit_is_a_low_quantile_of_its_runs() -> None:
    assert time_of([4.0, 1.0, 2.0, 3.0, 5.0], SETTINGS) == pytest.approx(1.4)


@pytest.mark.parametrize("spec", PRESETS.values())
def test_a_visit_is_short_whatever_the_whole_is_and_nothing_in_it_is_assessed(spec: BenchmarkSpec) -> None:
    visit = SETTINGS.of_visit(spec)
    assert visit.min_duration_s == visit.max_duration_s <= SETTINGS.longest_s
    assert (visit.min_runs, visit.max_attempts, visit.profile_ops) == (SETTINGS.min_runs, 1, False)
    assert visit.max_relative_half_width > 1e3
    assert (visit.threads, visit.cores, visit.delegate) == (spec.threads, spec.cores, spec.delegate)


def test_other_visits_have_another_digest_and_another_effort_has_not() -> None:
    assert VisitSettings(duration_s=0.05).digest != SETTINGS.digest
    assert VisitSettings(agreeing=4).digest == SETTINGS.digest
