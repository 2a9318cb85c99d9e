"""The suite for search spaces notices every promise that is broken."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from nas_edge.networks import layers as L
from nas_edge.networks.graph import NetworkSpec, Weights
from nas_edge.spaces import blocks
from nas_edge.spaces.decisions import Architecture, NetworkSpace
from nas_edge.testing import check_space, check_supernet

COUNT = itertools.count(1)


def make(
    widths: Callable[[], tuple[int, ...]] = lambda: (8, 16),
    kernels: Callable[[int], L.Layer] = lambda k: blocks.depthwise_norm(k, "relu", 2),
    name: str = "two decisions",
) -> Callable[[int, float, int, int], NetworkSpace]:
    """A space with a width and a kernel."""

    def space(input_size: int, width_multiplier: float, classes: int, channels: int) -> NetworkSpace:
        decisions = blocks.Decisions()
        width = decisions.declare(blocks.number("width", widths()))
        kernel = decisions.layers("kernel", {f"k{k}": kernels(k) for k in (3, 5)})
        parts = {"stem": blocks.conv_norm(width, "relu", 3, 2), "body": kernel, "pool": L.GlobalAveragePool()}
        template = L.Sequential(tuple((parts | blocks.classifier(classes, 0.1)).items()))
        return NetworkSpace(name, template, decisions.list, (input_size, input_size, channels), classes)

    return space


class ForgetsItsText(NetworkSpace):
    def parse(self, text: str) -> Architecture:
        return Architecture((0,) * len(self.decisions))


class OtherCanonical(NetworkSpace):
    def canonical(self, architecture: Architecture) -> Architecture:
        return Architecture((0,) * len(self.decisions))


def of_class(cls: type[NetworkSpace], classes_too_many: int = 0) -> Callable[..., NetworkSpace]:
    def space(size: int, width: float, classes: int, channels: int) -> NetworkSpace:
        good = make()(size, width, classes + classes_too_many, channels)
        return cls(good.name, good.template, good.decisions, good.input_shape, classes)

    return space


def test_the_original_is_not_broken() -> None:
    check_space(make())
    check_supernet(make())


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (lambda size, width: None, r"making the space with \(32, 0.5, 7, 1\): TypeError"),
        (lambda *_: "a space", "expected a NetworkSpace, received str"),
        (make(name=""), "has no name"),
        (lambda size, width, classes, channels: make()(size, width, 10, channels), "the input and classes that were"),
        (lambda size, width, classes, channels: make()(size, width, classes, 3), r"expected \(32, 32, 1\) and 7"),
        (make(widths=lambda: (8, 8 * next(COUNT))), "made twice, the space has other decisions"),
        (make(widths=lambda: (8, 8)), "choices 8 and 8 of width make the same network"),
        (make(kernels=lambda k: blocks.depthwise_norm(3, "relu", 2)), "choices 'k3' and 'k5' of kernel make the same"),
        (make(kernels=lambda k: L.Zero()), "decoding architecture 0:0: ValueError"),
        (
            make(kernels=lambda k: L.sequential(conv=L.Conv2D(k), act=L.Activation("relu"), norm=L.BatchNorm())),
            "writing architecture .* as float32 TFLite",
        ),
        (make(kernels=lambda k: blocks.depthwise_norm(k + 2 * next(COUNT), "relu", 2)), "makes other networks of"),
        (of_class(NetworkSpace, classes_too_many=1), r"must end in one output per class, \[7\]: received \[8\]"),
        (of_class(ForgetsItsText), "is not read back from its text"),
        (of_class(OtherCanonical), "is another network once its inactive decisions are set to 0"),
    ],
)
def test_a_broken_promise_is_named(broken: Callable[..., NetworkSpace], promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_space(broken)


def test_a_space_of_one_network_is_none() -> None:
    def one(size: int, _: float, classes: int, channels: int) -> NetworkSpace:
        template = L.Sequential((("pool", L.GlobalAveragePool()), *blocks.classifier(classes, 0.1).items()))
        return NetworkSpace("one", template, [], (size, size, channels), classes)

    with pytest.raises(AssertionError, match="there is nothing to search"):
        check_space(one)


@pytest.mark.parametrize(
    ("name", "promise"),
    [("weights_of", "computes something else in the supernet than alone"), ("call", "outputs are not finite")],
)
def test_a_supernet_that_computes_something_else_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, promise: str
) -> None:
    import tensorflow as tf

    from nas_edge.supernet.supernet import Supernet

    weights_of, call = Supernet.weights_of, Supernet.call

    def other_weights(self: Supernet, spec: NetworkSpec) -> Weights:
        return {node: tuple(array * 1.5 for array in arrays) for node, arrays in weights_of(self, spec).items()}

    def nan_in_warmup(self: Supernet, images: Any, masks: Any) -> tuple[Any, Any]:
        logits, penalty = call(self, images, masks)
        return tf.where(tf.reduce_any((masks > 0) & (masks < 1)), float("nan"), logits), penalty

    monkeypatch.setattr(Supernet, name, {"weights_of": other_weights, "call": nan_in_warmup}[name])
    with pytest.raises(AssertionError, match=promise):
        check_supernet(make())


def test_choices_that_cannot_share_weights_are_named() -> None:
    """Each network is fine alone; side by side they do not add up."""
    broken = make(kernels=lambda k: blocks.conv_norm(k, "relu", 3, 2))
    check_space(broken)
    with pytest.raises(AssertionError, match="choices of one decision must end in the same shape"):
        check_supernet(broken)
