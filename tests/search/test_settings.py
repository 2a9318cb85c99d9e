"""What settings of searches accept, where they end, and what they are where nothing is said."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from nas_edge.search.multi_trial import MultiTrialSettings
from nas_edge.search.one_shot import OneShotSettings

LEAST = 1e-9
# Warm-up may not outlast the delay.
LONG_DELAY = {"delay_fraction": 0.9}


@pytest.mark.parametrize(
    ("name", "default", "accepted", "refused", "beside"),
    [
        ("steps", 27_050, [1, 10**9], [0, 10**9 + 1], {}),
        ("samples_per_step", 1, [1, 1024], [0, 1025], {}),
        ("reward", "absolute", ["hard", "soft"], ["quadratic"], {}),
        ("evaluation_batch_size", None, [2, 4096], [1], {}),
        ("delay_fraction", 0.25, [0.25, 0.999], [-LEAST, 1.0], {}),
        ("op_warmup_fraction", 0.25, [0.0, 0.9], [-LEAST, 0.90001], LONG_DELAY),
        ("filter_warmup_fraction", 0.25, [0.0, 0.9], [-LEAST, 0.90001], LONG_DELAY),
        ("reward_delay_steps", 0, [0, 1000], [-1, 1001], {}),
        ("op_warmup_decisions", None, [1, 30], [0], {}),
        ("fair_sampling", False, [True], ["maybe"], {}),
        ("sandwich", False, [True], ["maybe"], {}),
        ("complexity_aware", False, [True], ["maybe"], {}),
        ("validation_batch_size", 512, [2], [1], {}),
        ("execution", "sliced", ["masked"], ["lazy", "unmasked"], {}),
        ("precision", "float32", ["mixed_bfloat16", "mixed_float16"], ["float16"], {}),
        ("xla", False, [True], ["maybe"], {"execution": "masked"}),
        ("rematerialize", True, [False], ["maybe"], {}),
        ("distribution", "none", ["mirrored", "multi-worker"], ["tpu"], {"weight_updates": "averaged"}),
        ("weight_updates", "sequential", ["averaged"], ["none"], {}),
        ("random_baseline", True, [False], ["maybe"], {}),
    ],
)
def test_every_setting_of_a_one_shot_search_has_its_default_and_its_limits(
    name: str, default: Any, accepted: list[Any], refused: list[Any], beside: dict[str, Any]
) -> None:
    assert getattr(OneShotSettings(), name) == default
    for value in accepted:
        assert getattr(OneShotSettings(**{**beside, name: value}), name) == value
    for value in refused:
        with pytest.raises(ValidationError, match=name):
            OneShotSettings(**{**beside, name: value})


def test_a_multi_trial_search_is_short_and_has_its_own_quality() -> None:
    settings = MultiTrialSettings()
    assert (settings.steps, settings.random_baseline, settings.delay_steps) == (150, False, 0)
    assert settings.evaluated == 150
    assert MultiTrialSettings(steps=7, samples_per_step=3).evaluated == 21
    assert settings.quality_origin == settings.quality.origin != ""
    for steps in (0, 10**9 + 1):
        with pytest.raises(ValidationError, match="steps"):
            MultiTrialSettings(steps=steps)


def test_only_qualities_of_shared_weights_drift() -> None:
    assert OneShotSettings().quality_drifts
    assert not MultiTrialSettings().quality_drifts
    assert OneShotSettings().quality_origin == "with shared weights"


@pytest.mark.parametrize(
    "settings",
    [
        {"xla": True},
        {"xla": True, "execution": "masked", "distribution": "mirrored", "weight_updates": "averaged"},
        {"precision": "mixed_float16", "distribution": "mirrored", "weight_updates": "averaged"},
        {"distribution": "mirrored"},
        {"op_warmup_fraction": 0.3},
        {"filter_warmup_fraction": 0.3},
        {"delay_fraction": 0.2},
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OneShotSettings(**settings)


def test_in_the_delay_nothing_is_evaluated() -> None:
    settings = OneShotSettings(steps=11, samples_per_step=3)
    assert settings.delay_steps == 2
    assert settings.evaluated == 27


def test_an_averaged_update_is_one_and_as_large_as_its_samples() -> None:
    settings = OneShotSettings(samples_per_step=4)
    one_rate = settings.weights.peak_learning_rate
    assert (settings.updates_per_step, settings.peak_learning_rate) == (4, one_rate)
    averaged = OneShotSettings(samples_per_step=4, weight_updates="averaged")
    assert (averaged.updates_per_step, averaged.peak_learning_rate) == (1, 4 * one_rate)
