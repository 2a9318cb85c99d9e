"""What a network takes of other weights: layers that fit, as a whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from nas_edge.networks.donor import Donor, Start
from nas_edge.networks.graph import NetworkSpec, Weights
from nas_edge.networks.primitives import Weight
from nas_edge.spaces.decisions import Architecture
from tests.support.spaces import tiny_space

# Channels of the stem: 2 * (1 + choice).
NARROW, WIDE = Architecture((1, 3)), Architecture((1, 15))
NAMES = ("stem.k5.conv", "stem.k5.norm", "logits")


def network(architecture: Architecture, classes: int = 3, channels: int = 1) -> NetworkSpec:
    return tiny_space(8, channels, classes).decode(architecture)


def numbered(spec: NetworkSpec, start: float, trained_only: bool = False) -> Weights:
    """Weights that all differ."""
    numbers: Iterator[float] = iter(start + 0.001 * i for i in range(100_000))

    def filled(weight: Weight, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.array([next(numbers) for _ in range(int(np.prod(shape)))], np.float32).reshape(shape)

    return {
        node.name: tuple(
            filled(weight, weight.shape_for(spec.input_shapes(node)[0][-1], node.shape[-1]))
            for weight in node.layer.weights()
            if weight.trainable or not trained_only
        )
        for node in spec.nodes
        if node.layer.weights()
    }


def same(one: Weights, other: Weights, names: tuple[str, ...]) -> bool:
    return all(np.array_equal(a, b) for name in names for a, b in zip(one[name], other[name], strict=True))


def test_of_the_same_network_everything_is_taken() -> None:
    spec = network(NARROW)
    given, fresh = numbered(spec, 1), numbered(spec, 2)
    started, start = Donor(given, shared=False).start(spec, fresh)
    assert start == Start(NAMES, ())
    assert str(start) == "all 3 layers with weights"
    assert same(started, given, NAMES)


def test_a_head_for_other_classes_starts_fresh_and_is_named() -> None:
    spec = network(NARROW, classes=7)
    for shared in (False, True):
        given, fresh = numbered(network(NARROW, classes=9), 1, shared), numbered(spec, 2)
        started, start = Donor(given, shared).start(spec, fresh)
        assert (start.taken, start.fresh) == (NAMES[:2], NAMES[2:])
        assert str(start) == "2 of 3 layers with weights; fresh: logits"
        assert same(started, fresh, NAMES[2:])


def test_of_shared_weights_a_network_takes_its_first_channels() -> None:
    spec = network(NARROW)
    given, fresh = numbered(network(WIDE), 1, trained_only=True), numbered(spec, 2)
    started, start = Donor(given, shared=True).start(spec, fresh)
    assert start == Start(NAMES, ())
    np.testing.assert_array_equal(started["stem.k5.conv"][0], given["stem.k5.conv"][0][..., :8])
    np.testing.assert_array_equal(started["logits"][0], given["logits"][0][..., :8, :])
    np.testing.assert_array_equal(started["stem.k5.norm"][1], given["stem.k5.norm"][1][:8])
    np.testing.assert_array_equal(started["stem.k5.norm"][2], fresh["stem.k5.norm"][2], "statistics are not trained")


@pytest.mark.parametrize("shared", [False, True])
def test_layers_of_other_shapes_are_not_cut(shared: bool) -> None:
    cases = [(WIDE, NARROW), (NARROW, WIDE)] if not shared else [(NARROW, WIDE)]
    for donor, receiver in cases:
        spec = network(receiver)
        start = Donor(numbered(network(donor), 1, shared), shared).start(spec, numbered(spec, 2))[1]
        assert start == Start((), NAMES)


def test_images_of_other_channels_leave_the_first_layer_fresh() -> None:
    spec = network(NARROW)
    given = numbered(network(NARROW, channels=3), 1, trained_only=True)
    assert Donor(given, shared=True).start(spec, numbered(spec, 2))[1].fresh == NAMES[:1]
