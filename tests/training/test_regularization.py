"""What a network is trained with and delivered without."""

from __future__ import annotations

import numpy as np
import pytest

from nas_edge.networks import layers as L
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.networks.template import decode
from nas_edge.training.published import PublishedASettings, PublishedBSettings
from nas_edge.training.regularization import for_training
from nas_edge.training.standard import StandardSettings


def network() -> NetworkSpec:
    body = L.sequential(conv=L.Conv2D(4, 3), norm=L.BatchNorm())
    template = L.sequential(
        stem=L.Conv2D(4), residual=L.Residual(body), pool=L.GlobalAveragePool(), dropout=L.Dropout(0.25),
        logits=L.Conv2D(3, use_bias=True, kernel_init="classifier", regularized=False), flatten=L.Flatten(),
    )  # fmt: skip
    return decode(template, (6, 6, 2), {})


def dropout_rate(spec: NetworkSpec) -> float:
    (rate,) = (node.layer.rate for node in spec.nodes if isinstance(node.layer, L.Dropout))
    return rate


def test_dropout_is_left_out_of_trainings_that_are_too_short_for_it() -> None:
    assert dropout_rate(for_training(network(), StandardSettings(epochs=1))) == 0.25
    assert dropout_rate(for_training(network(), PublishedASettings())) == 0.0
    assert dropout_rate(for_training(network(), PublishedASettings(epochs=149))) == 0.0
    assert dropout_rate(for_training(network(), PublishedASettings(epochs=150))) == 0.25
    assert dropout_rate(for_training(network(), PublishedBSettings())) == 0.25


def test_the_network_that_is_trained_has_the_weights_of_the_one_that_is_delivered() -> None:
    spec = network()
    model = keras_model(for_training(spec, StandardSettings(path_dropout=0.5)), seed=3)
    weights = get_weights(model, spec)
    images = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype(np.float32)
    np.testing.assert_array_equal(model(images, training=False), keras_model(spec, weights)(images, training=False))


def test_a_residual_layer_is_left_out_as_a_whole_or_made_up_for() -> None:
    spec = network()
    model = keras_model(for_training(spec, StandardSettings(path_dropout=0.2)), seed=1)
    dropout = model.get_layer("residual.add.path_dropout")
    values = np.ones((3, 6, 6, 4), np.float32)
    factors = [np.unique(dropout(values, training=True)) for _ in range(200)]
    assert all(len(factor) == 1 for factor in factors)
    assert sorted({round(float(factor[0]), 6) for factor in factors}) == [0.0, 1.25]
    assert np.mean([factor[0] > 0 for factor in factors]) == pytest.approx(0.8, abs=0.1)


def test_published_trainings_have_the_published_numbers() -> None:
    a, b = PublishedASettings(), PublishedBSettings()
    assert a.peak_learning_rate == b.peak_learning_rate == pytest.approx(2.64)
    assert a.steps(1_231_121) == 27_050
    assert b.steps(1_281_167) == 112_602
    assert round(b.steps(1_281_167) * b.warmup_fraction) == 2_815
    assert (a.images, b.images) == ("train", "train+validation")
