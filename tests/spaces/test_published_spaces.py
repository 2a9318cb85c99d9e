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
