"""What settings of trainings accept, where they end, and what they are where nothing is said."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from nas_edge.training.settings import OptimizationSettings
from nas_edge.training.standard import StandardSettings

LEAST = 1e-9


@pytest.mark.parametrize(
    ("name", "default", "accepted", "refused"),
    [
        ("learning_rate", 0.165, [LEAST, 10.0], [0.0, -1.0, "fast"]),
        ("batch_size", 128, [2, 4096], [1, 2.5]),
        ("warmup_fraction", 0.025, [0.0, 0.999], [-LEAST, 1.0]),
        ("label_smoothing", 0.1, [0.0, 0.999], [-LEAST, 1.0]),
        ("weight_decay", 4e-5, [0.0, 1.0], [-LEAST]),
        ("epsilon", 1.0, [LEAST], [0.0, -1.0]),
        ("optimizer", "rmsprop", ["sgd", "adam"], ["adagrad"]),
        ("epochs", 90.0, [0.0, 0.5], [-LEAST]),
        ("batches_per_step", 1, [1, 1024], [0, 1025]),
        ("images", "train+validation", ["train"], ["validation"]),
        ("dropout_from_epochs", 0.0, [0.0, 150], [-LEAST]),
        ("path_dropout", 0.0, [0.0, 0.999], [-LEAST, 1.0]),
        ("precision", "float32", ["mixed_bfloat16", "mixed_float16"], ["float16"]),
        ("ema_decay", None, [LEAST, 0.999], [0.0, 1.0]),
    ],
)
def test_every_setting_has_its_default_and_its_limits(
    name: str, default: Any, accepted: list[Any], refused: list[Any]
) -> None:
    assert getattr(StandardSettings(), name) == default
    for value in accepted:
        assert getattr(StandardSettings(**{name: value}), name) == value
    for value in refused:
        with pytest.raises(ValidationError, match=name):
            StandardSettings(**{name: value})


def test_a_training_that_may_stop_early_waits_for_one_epoch_at_least() -> None:
    assert StandardSettings(images="train", early_stopping=1).early_stopping == 1
    with pytest.raises(ValidationError, match="early_stopping"):
        StandardSettings(images="train", early_stopping=0)


def test_the_shared_weights_have_the_same_defaults_and_go_by_steps() -> None:
    shared = OptimizationSettings()
    alone = StandardSettings()
    assert all(getattr(shared, name) == getattr(alone, name) for name in OptimizationSettings.model_fields)
    assert shared.batches_in_step == 1
    with pytest.raises(ValidationError, match="epochs"):
        OptimizationSettings(epochs=0)


def test_the_rate_grows_with_the_images_of_a_step() -> None:
    assert StandardSettings(learning_rate=1.0, batch_size=64).peak_learning_rate == 0.25
    assert StandardSettings(learning_rate=1.0, batch_size=64, batches_per_step=8).peak_learning_rate == 2.0


def test_steps_are_those_of_whole_batches_and_at_least_one() -> None:
    assert StandardSettings(epochs=2, batch_size=8).steps(100) == 25
    assert StandardSettings(epochs=2, batch_size=8, batches_per_step=2).steps(100) == 12
    assert StandardSettings(epochs=0.5, batch_size=8).steps(3) == 1
    assert StandardSettings(epochs=0, batch_size=8).steps(100) == 0
