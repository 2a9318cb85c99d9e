from __future__ import annotations

import keras
import numpy as np
import pytest

from nas_edge.networks import layers as L
from nas_edge.networks.analysis import analyze
from nas_edge.networks.graph import GraphBuilder, NetworkSpec
from nas_edge.networks.keras_functions import hard_swish
from nas_edge.networks.keras_model import get_weights, keras_model, set_weights
from nas_edge.spaces.reference import reference_network


def small_network(filters: int = 16) -> NetworkSpec:
    graph = GraphBuilder((8, 8, 3))
    graph.add("stem.conv", L.Conv2D(filters, 3, 2), "input")
    graph.add("stem.norm", L.BatchNorm(), "stem.conv")
    graph.add("stem.act", L.Activation("hard_swish"), "stem.norm")
    graph.add("dw.conv", L.DepthwiseConv2D(5), "stem.act")
    graph.add("dw.norm", L.BatchNorm(), "dw.conv")
    graph.add("se.pool", L.GlobalAveragePool(), "dw.norm")
    graph.add("se.expand", L.Conv2D(filters, use_bias=True), "se.pool")
    graph.add("se.act", L.Activation("sigmoid"), "se.expand")
    graph.add("se.multiply", L.Multiply(), "dw.norm", "se.act")
    graph.add("add", L.Add(), "stem.act", "se.multiply")
    graph.add("pool", L.GlobalAveragePool(), "add")
    graph.add("dropout", L.Dropout(0.5), "pool")
    graph.add("logits", L.Conv2D(10, use_bias=True, kernel_init="classifier"), "dropout")
    graph.add("flatten", L.Flatten(), "logits")
    return graph.build()


@pytest.mark.parametrize("name", ["mobilenet-v2", "proxylessnas-mobile", "mobilenet-v3-large", "multi-avg"])
def test_parameters_and_variables_are_those_of_the_analysis(name: str) -> None:
    spec = reference_network(name, input_size=32)
    model, expected = keras_model(spec), analyze(spec)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == expected.parameters
    assert len(model.trainable_variables) == expected.trainable_variables


def test_layers_are_called_like_the_nodes_and_give_their_shapes() -> None:
    spec = small_network()
    model = keras_model(spec, batch_size=2)
    assert [layer.name for layer in model.layers] == ["input", *(node.name for node in spec.nodes)]
    for node in spec.nodes:
        assert model.get_layer(node.name).output.shape == (2, *node.shape)


def test_batch_is_free_unless_given() -> None:
    assert keras_model(small_network()).input_shape == (None, 8, 8, 3)
    assert keras_model(small_network(), batch_size=1).input_shape == (1, 8, 8, 3)


def test_weights_survive_the_round_trip() -> None:
    spec = small_network()
    first = keras_model(spec, seed=1)
    rng = np.random.default_rng(0)
    weights = {
        name: tuple(rng.uniform(0.5, 1.5, a.shape).astype(np.float32) for a in arrays)
        for name, arrays in get_weights(first, spec).items()
    }
    second = keras_model(spec, weights)
    restored = get_weights(second, spec)
    assert list(restored) == [
        "stem.conv", "stem.norm", "dw.conv", "dw.norm", "se.expand", "logits"
    ]  # fmt: skip
    for name, arrays in weights.items():
        for expected, received in zip(arrays, restored[name], strict=True):
            np.testing.assert_array_equal(received, expected)
    images = rng.uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    set_weights(first, weights)
    np.testing.assert_array_equal(first(images), second(images))


def test_batch_norm_weights_are_gamma_beta_mean_variance() -> None:
    spec = small_network()
    model = keras_model(spec)
    norm = model.get_layer("dw.norm")
    assert (norm.momentum, norm.epsilon) == (0.99, 1e-3)
    for variable, value in ((norm.gamma, 2), (norm.beta, 3), (norm.moving_mean, 4), (norm.moving_variance, 5)):
        variable.assign(np.full(16, value))
    assert [int(array[0]) for array in get_weights(model, spec)["dw.norm"]] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("dw.conv"), "1 layer.s. are missing, the first being 'dw.conv'"),
        (lambda w: w.update(other=()), "1 layer.s. are unknown, the first being 'other'"),
        (lambda w: w.update({"dw.conv": (np.zeros((3, 3, 16, 1)),)}), "dw.conv: expected weights of shapes"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, message) -> None:  # type: ignore[no-untyped-def]
    spec = small_network()
    weights = get_weights(keras_model(spec), spec)
    change(weights)
    with pytest.raises(ValueError, match=message):
        keras_model(spec, weights)


def test_initial_weights_depend_on_seed_and_layer_only() -> None:
    first, same, other = (get_weights(keras_model(small_network(), seed=s), small_network()) for s in (3, 3, 4))
    for name, arrays in first.items():
        for a, b in zip(arrays, same[name], strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.allclose(first["stem.conv"][0], other["stem.conv"][0])
    assert not np.allclose(first["stem.conv"][0].std(), first["logits"][0].std())


def test_initial_weights_have_the_published_spread() -> None:
    graph = GraphBuilder((8, 8, 32))
    graph.add("conv", L.Conv2D(512, 3), "input")
    graph.add("depthwise", L.DepthwiseConv2D(5), "conv")
    graph.add("norm", L.BatchNorm(), "depthwise")
    graph.add("logits", L.Conv2D(64, use_bias=True, kernel_init="classifier"), "norm")
    spec = graph.build()
    weights = get_weights(keras_model(spec), spec)
    assert weights["conv"][0].std() == pytest.approx(np.sqrt(2 / (3 * 3 * 32)), rel=0.02)
    assert weights["depthwise"][0].std() == pytest.approx(np.sqrt(2 / (5 * 5)), rel=0.02)
    assert weights["logits"][0].std() == pytest.approx(0.01, rel=0.02)
    assert not weights["logits"][1].any()
    assert [set(array) for array in weights["norm"]] == [{1.0}, {0.0}, {0.0}, {1.0}]


def test_hard_swish_follows_its_formula() -> None:
    x = np.linspace(-5, 5, 101, dtype=np.float32)
    np.testing.assert_allclose(hard_swish(x), x * np.clip(x + 3, 0, 6) / 6, atol=1e-6)


def test_model_is_saved_and_loaded(tmp_path) -> None:  # type: ignore[no-untyped-def]
    spec = small_network()
    model = keras_model(spec)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    images = np.ones((1, 8, 8, 3), np.float32)
    np.testing.assert_array_equal(model(images), restored(images))
