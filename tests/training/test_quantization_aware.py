"""Quantisation-aware training: what it computes is what the int8 file computes, with the ranges that it learned."""

from __future__ import annotations

import numpy as np
import pytest

from nas_edge.export.verify import check_precision, file_quality, input_output, run_tflite
from nas_edge.networks import layers as L
from nas_edge.networks.fake_quant import fake_quant_model, learned, observe_ranges
from nas_edge.networks.graph import Weights, ranges_of, with_ranges, without_ranges
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.networks.template import decode
from nas_edge.networks.tflite_model import operators, tflite_model
from nas_edge.testing.trainings import bright_or_dark, small_network
from nas_edge.training.context import TrainingContext, TrainingStep
from nas_edge.training.quantization_aware import QuantizationAwareSettings, train_quantization_aware, tuning_settings
from nas_edge.training.standard import StandardSettings
from tests.support.exported import tiny_spec

NETWORK = small_network()
SHORT = {"optimizer": "adam", "learning_rate": 0.2, "batch_size": 16, "epochs": 5}


def test_the_model_computes_what_its_int8_file_computes() -> None:
    spec = tiny_spec()
    weights = get_weights(keras_model(spec, seed=1), spec)
    rng = np.random.default_rng(0)
    for node in spec.nodes:  # statistics and factors that make folding matter
        if isinstance(node.layer, L.BatchNorm):
            weights[node.name] = tuple(rng.uniform(0.5, 1.5, array.shape).astype("f") for array in weights[node.name])
    images = rng.normal(size=(32, 12, 12, 1)).astype(np.float32)
    model = fake_quant_model(spec, weights)
    observe_ranges(model, [images])
    kept = with_ranges(*learned(model, spec))
    for name, group in without_ranges(kept).items():
        for array, before in zip(group, weights[name], strict=True):
            np.testing.assert_array_equal(array, before)
    file = tflite_model(spec, "int8", kept)
    check_precision(file, "int8")
    assert operators(file) == operators(tflite_model(spec, "int8", weights, ranges_of(kept)))
    rounded = fake_quant_model(spec, kept)(images, training=False).numpy()
    step = input_output(file)[1].scale
    assert step is not None
    computed = run_tflite(file, images, kernels="built-in")
    assert np.abs(rounded - computed).max() <= 6 * step  # the file's hard swish rounds in between
    plain = keras_model(spec, kept)(images, training=False).numpy()
    assert np.abs(rounded - computed).mean() < 0.5 * np.abs(plain - computed).mean()


def test_the_last_share_of_the_steps_rounds_and_the_ranges_stay_with_the_weights() -> None:
    task, data = bright_or_dark()
    settings, reports = QuantizationAwareSettings(**SHORT, aware_share=0.4), list[TrainingStep]()
    weights = train_quantization_aware(settings, TrainingContext(NETWORK, None, task, data, 0), reports.append)
    steps = settings.steps(len(data.training_indices))
    assert [report.step for report in reports] == list(range(1, steps + 1))
    assert reports[-round(0.4 * steps)].learning_rate < reports[steps // 3].learning_rate
    assert set(ranges_of(weights)) >= {"input", NETWORK.nodes[2].name}
    file = tflite_model(NETWORK, "int8", weights)
    check_precision(file, "int8")
    assert file_quality(file, data.in_order(data.split.test, 16), task).value > 0.9


def test_tuning_starts_from_the_weights_it_is_given_and_follows_the_batches() -> None:
    task, data = bright_or_dark()
    given: Weights = get_weights(keras_model(NETWORK, seed=3), NETWORK)
    trained_with = StandardSettings(**SHORT)
    settings = tuning_settings(trained_with, share=0.4, rate=1e-6)
    assert (settings.epochs, settings.aware_share, settings.batch_size) == (2, 1, 16)
    weights = train_quantization_aware(settings, TrainingContext(NETWORK, given, task, data, 0), lambda step: None)
    for name, group in without_ranges(weights).items():
        for array, before in zip(group, given[name], strict=True):
            np.testing.assert_allclose(array, before, atol=1e-4)
    none = tuning_settings(trained_with.model_copy(update={"epochs": 0}), share=0.4, rate=1e-6)
    observed = train_quantization_aware(none, TrainingContext(NETWORK, given, task, data, 0), lambda step: None)
    assert ranges_of(weights) != ranges_of(observed), "the ranges did not move with the batches"


def test_rounding_passes_gradients_on() -> None:
    import tensorflow as tf

    model = fake_quant_model(NETWORK, get_weights(keras_model(NETWORK, seed=3), NETWORK))
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype(np.float32)
    observe_ranges(model, [images])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images, training=True)[:, 0])
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    assert len(gradients) == 5  # kernel, gamma, beta; kernel and bias of the classifier
    assert all(float(tf.reduce_max(tf.abs(gradient))) > 0 for gradient in gradients)


def test_a_layer_with_weights_of_another_kind_is_refused_by_name() -> None:
    spec = decode(L.sequential(conv=L.Conv2D(4, 3), norm=L.BatchNorm()), (8, 8, 1), {})
    weights = get_weights(keras_model(spec), spec)

    class Scaled(L.Flatten):
        def weights(self):  # type: ignore[no-untyped-def]
            return L.BatchNorm().weights()

    odd = decode(L.sequential(conv=L.Conv2D(4, 8, 8), scaled=Scaled()), (8, 8, 1), {})
    with pytest.raises(ValueError, match="scaled: Scaled cannot be trained quantisation-aware"):
        fake_quant_model(odd, weights)
