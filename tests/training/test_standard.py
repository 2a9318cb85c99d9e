"""The standard training in a run's context."""

from __future__ import annotations

import numpy as np

from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.testing.trainings import bright_or_dark, small_network
from nas_edge.training.context import TrainingContext, training_data
from nas_edge.training.standard import StandardSettings, train_standard

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
