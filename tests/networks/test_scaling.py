"""Networks made deeper and wider: what is scaled, what is not, and the published families that come of it."""

from __future__ import annotations

import numpy as np
import pytest

from nas_edge.networks import layers as L
from nas_edge.networks.analysis import analyze
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.scaling import scaled
from nas_edge.networks.template import decode, resolve
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import NetworkSpace
from nas_edge.spaces.reference import reference_network
from tests.support.spaces import small_space

LITE = {1: (1.1, 1.0, 240), 2: (1.2, 1.1, 260), 3: (1.4, 1.2, 280), 4: (1.8, 1.4, 300)}


def widths(network: NetworkSpec, ends: str) -> dict[str, int]:
    return {node.name: node.shape[-1] for node in network.nodes if node.name.endswith(ends)}


@pytest.mark.parametrize("make", [small_space, lambda: find_space("mobilenet-v3-like")(32, 0.5, 10, 3)])
def test_a_resolved_template_makes_the_same_network(make: object) -> None:
    space = make()  # type: ignore[operator]
    assert isinstance(space, NetworkSpace)
    rng = np.random.default_rng(0)
    for _ in range(5):
        architecture = space.sample(rng)
        fixed = resolve(space.template, space.choices(architecture))
        network = space.decode(architecture)
        assert decode(fixed, space.input_shape, {}) == network
        assert decode(scaled(fixed, 1, 1), space.input_shape, {}) == network


@pytest.mark.parametrize("number", LITE)
def test_lite0_scaled_is_the_published_family(number: int) -> None:
    depth, width, input_size = LITE[number]

    def change(template: L.Layer) -> L.Layer:
        return scaled(template, depth, width)

    made = reference_network("efficientnet-lite0", input_size, 1.0, 1000, change=change)
    published = reference_network(f"efficientnet-lite{number}", input_size, 1.0, 1000)
    assert [node.shape for node in made.nodes] == [node.shape for node in published.nodes]
    assert analyze(made) == analyze(published)


def proxyless(depth: float, width: float) -> NetworkSpec:
    space = find_space("proxylessnas")(64, 1.0, 10, 3)
    kept = {path: 1 if path.startswith("block3.layer") and path.endswith(".op") else 0 for path in space.index}
    kept["block3.layer1.op"] = 0
    return decode(scaled(resolve(space.template, kept), depth, width), space.input_shape, {})


def test_stem_and_head_stay_and_layers_are_whole() -> None:
    found, wider = proxyless(1, 1), proxyless(1, 1.3)
    for name in ("stem.conv", "head.conv", "logits"):
        assert widths(wider, name) == widths(found, name)
    scaled_widths = widths(wider, "project.conv").values()
    for before, after in zip(widths(found, "project.conv").values(), scaled_widths, strict=True):
        assert after % 8 == 0
        assert after >= 0.9 * 1.3 * before
    deeper, shallower = (widths(proxyless(depth, 1), "project.conv") for depth in (1.3, 0.4))

    def layers(block: int, of: dict[str, int]) -> int:
        return sum(name.startswith(f"block{block}.") for name in of)

    assert [layers(block, deeper) for block in range(1, 8)] == [1, 6, 2, 6, 6, 6, 1]
    assert [layers(block, shallower) for block in range(1, 8)] == [1, 2, 1, 2, 2, 2, 1]


def test_a_layer_without_residual_ones_is_repeated_without_its_stride() -> None:
    deeper = proxyless(2, 1)
    added = {node.name: node for node in deeper.nodes if node.name.startswith("block3.layer2.")}
    shapes = {node.shape[:2] for node in added.values()}
    assert len(shapes) == 1
    assert added["block3.layer2.add"].shape == deeper.shapes["block3.layer1.project.norm"]
