"""Block strings are read as published, written as they are read, and refused where they say nothing."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_edge.errors import SpaceError
from nas_edge.networks.analysis import analyze
from nas_edge.networks.template import decode
from nas_edge.spaces import block_strings
from nas_edge.spaces.block_strings import EXAMPLE, Block
from nas_edge.spaces.published import BLOCK_STRING_STYLE
from nas_edge.spaces.reference import reference_network

MNASNET_B1 = (
    "r1_k3_s11_e1_i32_o16_noskip",
    "r3_k3_s22_e3_i16_o24",
    "r3_k5_s22_e3_i24_o40",
    "r3_k5_s22_e6_i40_o80",
    "r2_k3_s11_e6_i80_o96",
    "r4_k5_s22_e6_i96_o192",
    "r1_k3_s11_e6_i192_o320_noskip",
)


@pytest.mark.parametrize("texts", [MNASNET_B1, *(style.blocks for style in BLOCK_STRING_STYLE.values())])
def test_published_strings_are_written_as_they_were_read(texts: tuple[str, ...]) -> None:
    assert tuple(map(str, block_strings.parse_all(texts))) == texts


def test_a_string_says_what_a_block_is() -> None:
    assert Block.parse(EXAMPLE) == Block(2, 3, 2, 6, 16, 24, 0.25, "none")
    assert Block.parse("r2_k5_s11_conv_i16_o24_poolskip") == Block(2, 5, 1, None, 16, 24, 0.0, "pool")
    # In any order, as the published reader takes them.
    assert Block.parse("o24_i16_e6_s22_k3_r2") == Block(2, 3, 2, 6, 16, 24)


BLOCKS = st.builds(
    Block,
    layers=st.integers(1, 9),
    kernel=st.sampled_from((3, 5, 7)),
    strides=st.integers(1, 2),
    expansion=st.none() | st.integers(1, 9),
    in_filters=st.integers(1, 999),
    filters=st.integers(1, 999),
    squeezed=st.sampled_from((0.0, 0.0625, 0.25, 1.0)),
    skip=st.sampled_from(("none", "pool", "identity")),
)


@given(block=BLOCKS)
def test_any_block_is_read_back(block: Block) -> None:
    assert Block.parse(str(block)) == block


@given(text=st.text(alphabet="rksioe0125.-_ +Infnaposkcv", max_size=60) | st.text(max_size=200))
def test_any_text_is_a_block_or_refused(text: str) -> None:
    with suppress(SpaceError):
        assert Block.parse(str(Block.parse(text))) == Block.parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "unknown part ''"),
        ("r2_k3_s22_e6_i16", "o is missing"),
        ("r2_k3_s22_i16_o24", "it must have either e or conv"),
        ("r2_k3_s22_e6_conv_i16_o24", "it must have either e or conv"),
        ("r2_k3_s21_e6_i16_o24", "s must be two equal strides, as in s22"),
        ("r2_k3_s2_e6_i16_o24", "s must be two equal strides, as in s22"),
        ("r2_k3_s222_e6_i16_o24", "s must be an integer from 1 to 99"),
        ("r2_k4_s22_e6_i16_o24", "k must be odd"),
        ("r0_k3_s22_e6_i16_o24", "r must be an integer from 1 to 100"),
        ("r1000_k3_s22_e6_i16_o24", "r must be an integer from 1 to 100"),
        ("r2.5_k3_s22_e6_i16_o24", "r must be an integer from 1 to 100"),
        ("r2_r2_k3_s22_e6_i16_o24", "r is given twice"),
        ("r2_k3_s22_e6_i16_o24_se", "se needs a number"),
        ("r2_k3_s22_e6_i16_o24_se0", "se must be a ratio above 0 and at most 1"),
        ("r2_k3_s22_e6_i16_o24_se2", "se must be a ratio above 0 and at most 1"),
        ("r2_k3_s22_e6_i16_o24_noskip1", "noskip takes no number"),
        ("r2_k3_s22_e6_i16_o24_noskip_poolskip", "noskip and poolskip are mutually exclusive"),
        ("r2_k3_s22_e6_i16_o24_cn", "unknown part 'cn'"),
        ("r-2_k3_s22_e6_i16_o24", "unknown part 'r-2'"),
        ("r2_k3_s22_e6_i16_o٢٤", "unknown part 'o٢٤'"),
        ("r2_" * 100, "it has more than 100 characters"),
    ],
)
def test_what_is_no_block_string_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(SpaceError, match=re.escape(f"is not a block string: {why}; expected one such as {EXAMPLE}")):
        Block.parse(text)


def test_blocks_that_do_not_join_are_refused() -> None:
    with pytest.raises(
        SpaceError, match="r1_k3_s11_e6_i16_o24 has i16, but the block before it, r1_k3_s11_e1_i32_o8, has o8"
    ):
        block_strings.parse_all(("r1_k3_s11_e1_i32_o8", "r1_k3_s11_e6_i16_o24"))
    with pytest.raises(SpaceError, match="a network has 1 to 100 blocks; received 0"):
        block_strings.parse_all(())


def costs(texts: tuple[str, ...], **more: Any) -> tuple[int, float]:
    template = block_strings.template(block_strings.parse_all(texts), 1001, 0.2, **more)
    found = analyze(decode(template, (224, 224, 3), {}))
    return found.parameters, found.macs / 1e6


def test_mnasnet_b1_has_the_published_cost_and_that_of_the_reference() -> None:
    reference = analyze(reference_network("mnasnet-b1"))
    assert costs(MNASNET_B1) == (reference.parameters, reference.macs / 1e6)
    assert costs(MNASNET_B1) == (4_384_593, pytest.approx(314.4, abs=0.05))


@pytest.mark.parametrize(("size", "published"), [(224, 312), (192, 232), (160, 161.6), (128, 104.1), (96, 59.3)])
def test_mnasnet_a1_has_the_published_cost_at_every_size(size: int, published: float) -> None:
    """Of the table in the README of tensorflow/tpu's MnasNet, which counts more than convolutions."""
    assert analyze(reference_network("mnasnet-a1", size)).macs / 1e6 == pytest.approx(published, rel=0.02)


def test_a_layer_has_a_skip_where_its_input_and_output_are_alike() -> None:
    names = {node.name for node in reference_network("mnasnet-small", 32).nodes}
    skips = sorted(name.removesuffix(".add") for name in names if name.endswith(".add"))
    # Block 5 reads as many filters as it makes, at strides of 1; block 1 reads 16, by its string.
    assert skips[:1] == ["block3.layer2"]
    assert [name for name in skips if name.startswith("block5")] == [f"block5.layer{i}" for i in (1, 2, 3)]
