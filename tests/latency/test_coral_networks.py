"""The tables of operators of `benchmarks.coral_networks` beside what was published of these networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from benchmarks.coral_networks import (
    CORAL_NETWORKS,
    inception_v1,
    inception_v4,
    resnet50_v1,
    squeezenet,
    unet_mv2,
)
from nas_edge.networks.work import OperatorWork


def parameters(works: Sequence[OperatorWork]) -> int:
    """Kernels and biases, as numbers."""
    return sum(work.parameter_bytes - 3 * work.channels for work in works)


@pytest.mark.parametrize(
    ("network", "millions", "giga_macs"),
    [
        (squeezenet, 1.248, 0.86),  # arXiv:1602.07360: 4.8 MB; MACs by many, for 227 pixels
        (inception_v1, 6.62, 1.5),  # arXiv:1409.4842: 1.5 billion multiply-adds
        (inception_v4, 42.68, 12.3),  # arXiv:1602.07261 and the model collections that ported it
        (resnet50_v1, 25.56, 4.1 * (299 / 224) ** 2),  # arXiv:1512.03385, at 224 pixels, strides aside
        (unet_mv2, 6.50, None),  # the tutorial's summary: 6,504,227, batch norm included
    ],
)
def test_it_has_the_published_size(
    network: Callable[[], Sequence[OperatorWork]], millions: float, giga_macs: float | None
) -> None:
    works = network()
    assert parameters(works) / 1e6 == pytest.approx(millions, rel=0.012)
    if giga_macs is not None:
        assert sum(work.macs for work in works) / 1e9 == pytest.approx(giga_macs, rel=0.05)


@pytest.mark.slow  # Keras builds them
@pytest.mark.parametrize(
    ("name", "model", "size"),
    [
        ("resnet50_v1_299", "ResNet50", 299),
        ("mobilenet_v1_224", "MobileNet", 224),
        ("mobilenet_v2_224", "MobileNetV2", 224),
    ],
)
def test_it_has_the_kernels_of_keras(name: str, model: str, size: int) -> None:
    import keras

    built = getattr(keras.applications, model)(weights=None, input_shape=(size, size, 3), classes=1001)
    expected = []
    for layer in built.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            height, width = layer.output.shape[1:3]
            summed = layer.kernel.shape[0] * layer.kernel.shape[1]
            full = not isinstance(layer, keras.layers.DepthwiseConv2D)
            expected.append((height * width, summed * (layer.kernel.shape[2] if full else 1), layer.output.shape[-1]))
        elif isinstance(layer, keras.layers.Dense):
            expected.append((1, layer.kernel.shape[0], layer.kernel.shape[1]))
    found = [(work.pixels, work.summed, work.channels) for work in CORAL_NETWORKS[name]() if work.pixels]
    assert sorted(found) == sorted(expected)
