"""MnasNet's space: its size, its networks as block strings, shared weights and what the Edge TPU gets of it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from nas_edge.errors import ConfigError, SpaceError
from nas_edge.export.quantize import quantized_tflite
from nas_edge.hardware import HARDWARE
from nas_edge.hardware.lint import fit_space
from nas_edge.networks.analysis import analyze
from nas_edge.networks.keras_model import keras_model
from nas_edge.networks.template import decode
from nas_edge.networks.tflite_model import operators, tflite_model
from nas_edge.spaces import SPACES, block_strings
from nas_edge.spaces.decisions import Architecture
from nas_edge.spaces.extremes import largest
from nas_edge.spaces.mnas import MOBILENET_V2, MnasSpace
from nas_edge.spaces.published import BLOCK_STRING_STYLE
from nas_edge.spaces.reference import reference_network
from nas_edge.testing import check_supernet

MNASNET_A1 = BLOCK_STRING_STYLE["mnasnet-a1"].blocks
# Two blocks to search around, of which the second changes the size of the image.
TWO = ("r1_k3_s11_e1_i8_o8_noskip", "r2_k3_s22_e6_i8_o16")


@cache
def space_of(blocks: tuple[str, ...] = MOBILENET_V2, size: int = 224, width: float = 1.0) -> MnasSpace:
    return MnasSpace(block_strings.parse_all(blocks), size, width, 10, 3)


def test_the_size_follows_from_what_blocks_offer() -> None:
    space = space_of()
    assert len(space.decisions) == 7 * 7
    # Kernel, gate and the operator, of which one has two ratios: 16 kinds of layers. One block has no fewer layers than
    # one, nor three multiples of 8 near 16 filters; and a block of one layer has no skip to decide on.
    skips_and_layers = [1 + 3, 1 + 3 + 3, *4 * (3 + 3 + 3,), 1 + 3]
    filters = [2, 3, 3, 3, 3, 3, 3]
    assert space.distinct_size == np.prod([16 * a * b for a, b in zip(skips_and_layers, filters, strict=True)])
    assert 16 * skips_and_layers[2] * filters[2] == 432
    assert space.size == 24 * 3 * 2 * 2 * (24 * 3 * 3 * 3) ** 5 * 24 * 3 * 2 * 3


def test_mobilenet_v2_is_the_point_that_it_is_searched_around() -> None:
    point = space_of().point(MOBILENET_V2)
    assert space_of().describe(point)["block4.filters"] == 64
    found, published = analyze(space_of().decode(point)), analyze(reference_network("mobilenet-v2", classes=10))
    assert (found.parameters, found.macs) == (published.parameters, published.macs)


def test_mnasnet_a1_is_a_point_around_its_own_widths() -> None:
    space = space_of(MNASNET_A1)
    reference = reference_network("mnasnet-a1", classes=10)
    assert space.decode(space.point(MNASNET_A1)).fingerprint == reference.fingerprint
    with pytest.raises(SpaceError, match=r"mnas: block5\.filters offers \(72, 96, 120\); received 112"):
        space_of().point(MNASNET_A1)


@pytest.mark.parametrize("width", [0.25, 1.0])
def test_architectures_are_written_as_block_strings_and_read_back(width: float) -> None:
    space, rng = space_of(size=32, width=width), np.random.default_rng(0)
    longest = 0
    for _ in range(30):
        architecture = space.canonical(space.sample(rng))
        texts = space.block_strings(architecture)
        assert space.point(texts) == architecture
        template = block_strings.template(block_strings.parse_all(texts), 10, 0.2)
        if width == 1.0:  # the head of other widths is scaled, too
            assert decode(template, space.input_shape, {}).fingerprint == space.decode(architecture).fingerprint
        longest = max(longest, len(texts))
    # Where a block makes what it reads, at strides of 1, its first layer stands apart, since it has no skip.
    assert (longest > 7) == (width == 0.25)


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        (TWO[:1], "mnas has 2 blocks; received 1"),
        ((TWO[0], "r2_k3_s11_e6_i8_o16"), "expected r2_k3_s22_e6_i8_o16, received r2_k3_s11_e6_i8_o16"),
        (("r1_k3_s11_e1_i16_o8", TWO[1]), "expected r1_k3_s11_e1_i8_o8_noskip, received r1_k3_s11_e1_i16_o8_noskip"),
        (("r2_k3_s11_e1_i8_o8", TWO[1]), "mnas has no skip in the first layer of a block; received r2_k3_s11_e1_i8_o8"),
        ((TWO[0], "r4_k3_s22_e6_i8_o16"), r"block2.layers offers \(1, 2, 3\); received 4"),
        ((TWO[0], "r2_k3_s22_e4_i8_o16"), r"block2.ratio offers \(3, 6\); received 4"),
        ((TWO[0], "r2_k7_s22_e6_i8_o16"), r"block2.kernel offers \('k3', 'k5'\); received '7'"),
        ((TWO[0], "r2_k3_s22_e6_i8_o16_se0.5"), r"block2.se offers \('none', 'se'\); received '0.5'"),
        ((TWO[0], "hello"), "'hello' is not a block string"),
    ],
)
def test_networks_of_elsewhere_are_refused(blocks: tuple[str, ...], words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        space_of(TWO).point(blocks)


def test_the_largest_architecture_has_the_most_of_everything() -> None:
    assert space_of(TWO).block_strings(largest(space_of(TWO))) == (
        "r1_k5_s11_e6_i8_o8_se0.25_noskip",
        "r1_k5_s11_e6_i8_o8_se0.25",
        "r3_k5_s22_e6_i8_o24_se0.25",
    )


def test_its_weights_are_shared() -> None:
    around = block_strings.parse_all(TWO)
    check_supernet(lambda *arguments: MnasSpace(around, *arguments), input_size=16)


def every_op() -> tuple[MnasSpace, Architecture]:
    """An architecture with every operator, a gate, and every skip."""
    space = space_of((*TWO, "r2_k3_s11_e1_i16_o24", "r2_k3_s22_e3_i24_o32"), 16)
    strings = ("r2_k3_s11_e1_i8_o8_noskip", "r2_k5_s22_conv_i8_o16_se0.25_poolskip")
    return space, space.point((*strings, "r2_k3_s11_e6_i16_o24_se0.25", "r3_k5_s22_e3_i24_o24"))


def test_files_have_the_converters_operators_and_no_float() -> None:
    space, architecture = every_op()
    network = space.decode(architecture)
    images = np.random.default_rng(0).normal(size=(4, *network.input_shape)).astype(np.float32)
    written = operators(tflite_model(network, "int8"))
    assert written == operators(quantized_tflite(keras_model(network), "int8", lambda: [images]))
    assert {operator.name for operator in written} == {
        *("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "MUL", "LOGISTIC", "AVERAGE_POOL_2D", "RESHAPE"),
    }


def test_the_edge_tpu_gets_neither_gates_nor_pooled_skips() -> None:
    fitted = fit_space(space_of(size=64), HARDWARE["edgetpu"])
    assert fitted.changes == ("without pool (7 decisions)", "without se (7 decisions)")
    assert isinstance(fitted.space, MnasSpace)
    texts = fitted.space.block_strings(largest(fitted.space))
    assert [text for text in texts if "se" in text or "pool" in text] == []
    assert len(texts) == 7


def test_settings_take_block_strings_of_a_network_only() -> None:
    assert SPACES.settings({"name": "mnas", "blocks": list(TWO)}).blocks == TWO  # type: ignore[attr-defined]
    with pytest.raises((ConfigError, SpaceError), match=r"'r2' is not a block string"):
        SPACES.settings({"name": "mnas", "blocks": ["r2"]})
