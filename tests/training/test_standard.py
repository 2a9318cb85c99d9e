"""The standard training in a run's context."""

from __future__ import annotations

import numpy as np
import pytest

from nas_edge.export.convert import float32_tflite
from nas_edge.export.quantize import quantized_tflite
from nas_edge.export.verify import check_precision, file_quality
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.testing.trainings import bright_or_dark, small_network
from nas_edge.training.context import TrainingContext, TrainingStep, training_data
from nas_edge.training.standard import StandardSettings, train_standard
from nas_edge.training.trainer import recalibrate

NETWORK = small_network()


def test_no_epochs_leave_the_weights_as_they_are_and_take_their_batch_statistics() -> None:
    (task, data), initial = bright_or_dark(), get_weights(keras_model(NETWORK, seed=5), NETWORK)
    settings, reports = StandardSettings(epochs=0, batch_size=16), list[object]()
    weights = train_standard(settings, TrainingContext(NETWORK, initial, task, data, 0), reports.append)
    assert not reports
    norms = [node.name for node in NETWORK.nodes if type(node.layer).__name__ == "BatchNorm"]
    for name, group in weights.items():
        trained = group[:2] if name in norms else group  # gamma and beta; then mean and variance
        for array, before in zip(trained, initial[name], strict=False):
            np.testing.assert_array_equal(array, before)
    assert norms
    assert all(not np.array_equal(weights[name][2], initial[name][2]) for name in norms)


def test_validation_images_are_held_out_where_they_are_not_to_be_trained_with() -> None:
    _, data = bright_or_dark()
    with_them, without = (
        training_data(StandardSettings(images=images), data)  # type: ignore[arg-type]
        for images in ("train+validation", "train")
    )
    assert with_them is data
    np.testing.assert_array_equal(without.training_indices, data.split.train)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("batches_per_step", [1, 2])
def test_a_lower_precision_trains_float32_weights_that_are_delivered_like_any_others(
    precision: str, batches_per_step: int
) -> None:
    task, data = bright_or_dark()
    common = {"epochs": 6, "batch_size": 16, "learning_rate": 2.0, "batches_per_step": batches_per_step}
    context = TrainingContext(NETWORK, None, task, data, 0)
    reports: dict[str, list[TrainingStep]] = {"float32": [], precision: []}
    for name, found in reports.items():
        weights = train_standard(StandardSettings(**common, precision=name), context, found.append)
    exact, rounded = ([report.loss for report in found] for found in reports.values())
    assert rounded != exact
    np.testing.assert_allclose(rounded[:2], exact[:2], rtol=0.02)
    assert np.mean(rounded[-4:]) < 0.7 * np.mean(rounded[:4])
    assert {array.dtype for group in weights.values() for array in group} == {np.dtype(np.float32)}

    model = keras_model(NETWORK, weights)
    images, _ = data.arrays(data.split.train)
    files = [float32_tflite(model), quantized_tflite(model, "int8", lambda: [images])]
    check_precision(files[1], "int8")
    for file in files:
        assert file_quality(file, data.in_order(data.split.test, 16), task).value > 0.9


def test_batch_statistics_are_those_of_the_float32_network() -> None:
    task, data = bright_or_dark()
    settings = StandardSettings(epochs=2, batch_size=16, precision="mixed_bfloat16")
    weights = train_standard(settings, TrainingContext(NETWORK, None, task, data, 0), lambda step: None)
    model = keras_model(NETWORK, weights)
    recalibrate(model, data, data.training_indices, 16)
    for name, group in get_weights(model, NETWORK).items():
        for one, other in zip(group, weights[name], strict=True):
            np.testing.assert_array_equal(one, other)
