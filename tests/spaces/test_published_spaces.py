"""Golden numbers of the spaces and reference networks.

Sizes: the TuNAS README gives about 10^21, 10^28, 10^43; the exact figures were derived from the published space
definitions. Parameters: asserted by the TensorFlow model garden's port for the first three networks; of MnasNet-A1 and
-small the README of tensorflow/tpu's MnasNet says 3.9 and 2.0 million, and 312 and 68 million multiply-adds.
"""

import numpy as np
import pytest

from nas_edge.networks.analysis import analyze
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import Architecture
from nas_edge.spaces.reference import point, reference_network

PROXYLESS_MOBILE = "0:0:0:1:0:0:0:0:0:0:0:1:0:0:1:0:2:0:0:0:0:0:1:0:0:1:0:0:0:2:1:0:1:0:0:1:0:0:1:0:0:0:1:1:0:1:0:0:1:0:0:1:0:0:0:2:1:0:2:1:0:2:0:0:2:0:0:0:2:1:0:0:0"
ENLARGED = {
    "mobilenet-v2": "3:0:1:0:1:0:0:1:0:0:0:1:0:0:1:2:0:1:0:0:1:0:0:1:0:0:0:1:2:0:1:0:0:1:0:0:1:0:0:1:0:3:0:1:0:0:1:0:0:1:0:0:0:1:2:0:1:0:0:1:0:0:1:0:0:0:1:1:0:1:0:1:4",
    "mnasnet-b1": "3:0:1:0:0:0:0:0:0:0:0:0:0:0:1:2:1:0:0:1:0:0:1:0:0:0:0:1:3:1:1:0:1:1:0:1:1:0:0:0:1:4:0:1:0:0:1:0:0:0:1:0:0:1:2:1:1:0:1:1:0:1:1:0:1:1:0:2:0:1:0:1:4",
    "proxylessnas-mobile": "3:0:1:1:0:0:0:0:0:0:0:1:0:0:1:3:2:0:0:0:0:0:1:0:0:1:0:0:3:2:1:0:1:0:0:1:0:0:1:0:0:4:1:1:0:1:0:0:1:0:0:1:0:0:2:2:1:0:2:1:0:2:0:0:2:0:0:2:2:1:0:1:4",
}


@pytest.mark.parametrize(
    ("name", "decisions", "open_decisions", "logits", "size", "distinct"),
    [
        ("proxylessnas", 73, 58, 153, 2.157e21, 17.822),
        ("proxylessnas-enlarged", 73, 67, 197, 1.392e28, 24.632),
        ("mobilenet-v3-like", 86, 86, 306, 8.481e42, 38.415),
    ],
)
def test_space_has_the_published_size(
    name: str, decisions: int, open_decisions: int, logits: int, size: float, distinct: float
) -> None:
    space = find_space(name)(224, 1.0, 1001, 3)
    assert len(space.decisions) == decisions
    assert sum(len(d.choices) > 1 for d in space.decisions) == open_decisions
    assert sum(len(d.choices) for d in space.decisions if len(d.choices) > 1) == logits or (
        sum(len(d.choices) for d in space.decisions) == logits
    )
    assert float(space.size) == pytest.approx(size, rel=5e-4)
    assert np.log10(float(space.distinct_size)) == pytest.approx(distinct, abs=5e-4)


def test_proxylessnas_mobile_has_the_published_index_string() -> None:
    assert str(point(find_space("proxylessnas")(224, 1.0, 1001, 3), "proxylessnas-mobile")) == PROXYLESS_MOBILE


@pytest.mark.parametrize("name", ENLARGED)
def test_reference_is_a_point_of_the_enlarged_space(name: str) -> None:
    space = find_space("proxylessnas-enlarged")(224, 1.0, 1001, 3)
    assert str(point(space, name)) == ENLARGED[name]
    assert space.decode(Architecture.parse(ENLARGED[name])).fingerprint == reference_network(name).fingerprint


@pytest.mark.parametrize(
    ("name", "parameters", "variables", "mega_macs"),
    [
        ("mobilenet-v2", 3_506_153, 158, 300.8),
        ("mnasnet-b1", 4_384_593, 158, 314.4),
        ("proxylessnas-mobile", 4_081_793, 185, 320.4),
        ("mobilenet-v3-large", 5_484_313, 174, 216.6),
        ("mnasnet-a1", 3_888_319, 181, 311.6),
        ("mnasnet-small", 2_031_545, 180, 68.3),
        ("multi-avg", 4_948_873, None, 432.5),
        ("multi-max", 4_422_921, None, 349.2),
    ],
)
def test_reference_network_has_the_published_cost(
    name: str, parameters: int, variables: int | None, mega_macs: float
) -> None:
    analysis = analyze(reference_network(name))
    assert analysis.parameters == parameters
    assert variables is None or analysis.trainable_variables == variables
    assert analysis.macs / 1e6 == pytest.approx(mega_macs, abs=0.05)


@pytest.mark.parametrize(
    ("number", "input_size", "parameters_m", "published_m", "mega_macs", "published_mega_macs"),
    [
        (0, 224, 4.652, 4.7, 385.2, 407),
        (1, 240, 5.417, 5.4, 600.2, 631),
        (2, 260, 6.092, 6.1, 859.7, 899),
        (3, 280, 8.197, 8.2, 1383.3, 1440),
        (4, 300, 13.007, 13.0, 2553.0, 2640),
    ],
)
def test_efficientnet_lite_has_the_published_cost(
    number: int, input_size: int, parameters_m: float, published_m: float, mega_macs: float, published_mega_macs: float
) -> None:
    """Published in tensorflow/tpu, `efficientnet/lite`: its multiply-adds are TensorFlow's count of all operations.

    Ours are those of convolutions alone, 3% to 6% less.
    """
    analysis = analyze(reference_network(f"efficientnet-lite{number}", input_size, 1.0, 1000))
    assert analysis.parameters / 1e6 == pytest.approx(parameters_m, abs=5e-4)
    assert analysis.parameters / 1e6 == pytest.approx(published_m, abs=0.05)
    assert analysis.macs / 1e6 == pytest.approx(mega_macs, abs=0.05)
    assert 0.94 <= analysis.macs / 1e6 / published_mega_macs <= 0.97


@pytest.mark.parametrize(
    ("size", "input_size", "parameters", "mega_macs"),
    [("s", 224, 5_439_673, 1788.7), ("m", 240, 6_900_777, 3013.3), ("l", 300, 10_591_249, 7936.1)],
)
def test_efficientnet_edgetpu_costs_what_its_blocks_do(
    size: str, input_size: int, parameters: int, mega_macs: float
) -> None:
    """Of the published blocks and coefficients; tensorflow/tpu gives accuracies alone."""
    analysis = analyze(reference_network(f"efficientnet-edgetpu-{size}", input_size))
    assert analysis.parameters == parameters
    assert analysis.macs / 1e6 == pytest.approx(mega_macs, abs=0.05)


def test_efficientnet_x_b0_is_made_of_its_published_blocks() -> None:
    """Of the blocks in tensorflow/tpu, `efficientnet_x_builder.py`, which gives no counts: ours are those of the blocks."""
    network = reference_network("efficientnet-x-b0", 224, 1.0, 1000)
    analysis = analyze(network)
    assert analysis.parameters == 7_584_104
    assert analysis.macs / 1e6 == pytest.approx(920.4, abs=0.05)
    widths = [node.shape for node in network.nodes if node.name.endswith("project.conv")]
    assert widths[:4] == [(56, 56, 64), (56, 56, 24), (56, 56, 24), (28, 28, 40)]
    assert widths[-1] == (7, 7, 320)
    products = [node for node in network.nodes if type(node.layer).__name__ == "Multiply"]
    # 16 gates; swish after the expansion and in the gate of each of the four fused blocks.
    assert len(products) == 16 + 2 * 4
