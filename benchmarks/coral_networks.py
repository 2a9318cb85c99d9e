"""The networks that Google published Coral latencies of, as the work of their operators.

Those that the project's layers can express are its reference networks. Of the others (branches that are joined, pools,
kernels that are not square, unpadded edges, transposed convolutions) there is a table of operators, written down from
the papers and the code in which they were published:

    squeezenet    version 1.0, arXiv:1602.07360; that TFLite hosted a 1.0 is why it is taken for the 1.0
    inception_v1  arXiv:1409.4842, with one 3x3 in place of 5x5 as in tensorflow/models `slim/nets/inception_v1.py`
    inception_v4  arXiv:1602.07261, `slim/nets/inception_v4.py`
    resnet50_v1   arXiv:1512.03385, strides in the first convolution of a block
    unet_mv2      TensorFlow's tutorial on image segmentation: MobileNetV2 and pix2pix's upsampling

What is published of their parameters and multiply-accumulates is compared with them in
`tests/latency/test_coral_networks.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import TypeAlias

from nas_edge.networks.work import OperatorWork, kernel_work, network_work
from nas_edge.spaces.reference import reference_network

Image: TypeAlias = tuple[int, int, int]  # height, width, channels


class _Operators:
    """Writes down operators; each method adds some and returns the shape that the last one makes."""

    def __init__(self) -> None:
        self.works: list[OperatorWork] = []

    def conv(
        self, source: Image, width: int, kernel: int | tuple[int, int] = 1, strides: int = 1, same: bool = True
    ) -> Image:
        """A convolution with a bias; batch norm and activation are part of it."""
        tall, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
        output = (*_slid(source, (tall, wide), strides, same), width)
        self.works.append(kernel_work("CONV_2D", source, (width, tall, wide, source[-1]), output))
        return output

    def depthwise(self, source: Image, kernel: int, strides: int = 1) -> Image:
        """A depthwise convolution."""
        output = (*_slid(source, (kernel, kernel), strides, True), source[-1])
        self.works.append(kernel_work("DEPTHWISE_CONV_2D", source, (1, kernel, kernel, source[-1]), output))
        return output

    def doubled(self, source: Image, width: int, kernel: int = 3) -> Image:
        """A transposed convolution of stride 2."""
        output = (2 * source[0], 2 * source[1], width)
        self.works.append(kernel_work("TRANSPOSE_CONV", source, (width, kernel, kernel, source[-1]), output))
        return output

    def pool(self, source: Image, kernel: int = 3, strides: int = 2, same: bool = True) -> Image:
        """A maximum or average over windows, which take the same time here."""
        return self._plain("MAX_POOL_2D", (*_slid(source, (kernel, kernel), strides, same), source[-1]), source)

    def add(self, *sources: Image) -> Image:
        """The sum."""
        return self._plain("ADD", sources[0], *sources)

    def joined(self, *sources: Image) -> Image:
        """All channels side by side."""
        height, width, _ = sources[0]
        return self._plain("CONCATENATION", (height, width, sum(source[-1] for source in sources)), *sources)

    def mean(self, source: Image) -> Image:
        """The mean of each channel."""
        return self._plain("MEAN", (1, 1, source[-1]), source)

    def classes(self, source: Image, count: int) -> list[OperatorWork]:
        """The classifier, and all operators."""
        logits = self.conv(self.mean(source), count)
        self._plain("RESHAPE", logits, logits)
        return self.works

    def _plain(self, kind: str, output: Image, *sources: Image) -> Image:
        self.works.append(OperatorWork(kind, prod(output) + sum(map(prod, sources))))
        return output


def _slid(source: Image, kernel: tuple[int, int], strides: int, same: bool) -> tuple[int, int]:
    """Height and width of what a window makes, with padding or without."""
    if same:
        return -(-source[0] // strides), -(-source[1] // strides)
    return (source[0] - kernel[0]) // strides + 1, (source[1] - kernel[1]) // strides + 1


def squeezenet() -> list[OperatorWork]:
    """SqueezeNet 1.0."""
    net = _Operators()

    def fire(source: Image, squeezed: int, expanded: int) -> Image:
        squeeze = net.conv(source, squeezed)
        return net.joined(net.conv(squeeze, expanded), net.conv(squeeze, expanded, 3))

    x = net.pool(net.conv((224, 224, 3), 96, 7, 2))
    for squeezed, expanded in ((16, 64), (16, 64), (32, 128)):
        x = fire(x, squeezed, expanded)
    x = net.pool(x)
    for squeezed, expanded in ((32, 128), (48, 192), (48, 192), (64, 256)):
        x = fire(x, squeezed, expanded)
    x = fire(net.pool(x), 64, 256)
    net.mean(net.conv(x, 1000))
    return net.works


def inception_v1() -> list[OperatorWork]:
    """GoogLeNet, without its auxiliary classifiers."""
    net = _Operators()

    def mixed(source: Image, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> Image:
        branches = [net.conv(source, one)]
        branches += [net.conv(net.conv(source, reduced), width, 3) for reduced, width in (three, five)]
        return net.joined(*branches, net.conv(net.pool(source, 3, 1), pooled))

    x = net.pool(net.conv((224, 224, 3), 64, 7, 2))
    x = net.pool(net.conv(net.conv(x, 64), 192, 3))
    x = mixed(x, 64, (96, 128), (16, 32), 32)
    x = net.pool(mixed(x, 128, (128, 192), (32, 96), 64))
    x = mixed(x, 192, (96, 208), (16, 48), 64)
    x = mixed(x, 160, (112, 224), (24, 64), 64)
    x = mixed(x, 128, (128, 256), (24, 64), 64)
    x = mixed(x, 112, (144, 288), (32, 64), 64)
    x = net.pool(mixed(x, 256, (160, 320), (32, 128), 128), 2)
    x = mixed(x, 256, (160, 320), (32, 128), 128)
    return net.classes(mixed(x, 384, (192, 384), (48, 128), 128), 1001)


def inception_v4() -> list[OperatorWork]:
    """Inception-v4, without its auxiliary classifier."""
    net = _Operators()
    conv, pool = net.conv, net.pool
    row, column = (1, 7), (7, 1)

    def chain(source: Image, *layers: tuple[int, int | tuple[int, int]]) -> Image:
        for width, kernel in layers:
            source = conv(source, width, kernel)
        return source

    x = conv(conv(conv((299, 299, 3), 32, 3, 2, False), 32, 3, 1, False), 64, 3)
    x = net.joined(pool(x, same=False), conv(x, 96, 3, 2, False))
    left = conv(conv(x, 64), 96, 3, 1, False)
    x = net.joined(left, conv(chain(x, (64, 1), (64, row), (64, column)), 96, 3, 1, False))
    x = net.joined(conv(x, 192, 3, 2, False), pool(x, same=False))
    for _ in range(4):
        branches = [conv(x, 96), chain(x, (64, 1), (96, 3)), chain(x, (64, 1), (96, 3), (96, 3))]
        x = net.joined(*branches, conv(pool(x, 3, 1), 96))
    deep = conv(chain(x, (192, 1), (224, 3)), 256, 3, 2, False)
    x = net.joined(conv(x, 384, 3, 2, False), deep, pool(x, same=False))
    for _ in range(7):
        branches = [
            conv(x, 384),
            chain(x, (192, 1), (224, row), (256, column)),
            chain(x, (192, 1), (192, column), (224, row), (224, column), (256, row)),
        ]
        x = net.joined(*branches, conv(pool(x, 3, 1), 128))
    left = conv(conv(x, 192), 192, 3, 2, False)
    deep = conv(chain(x, (256, 1), (256, row), (320, column)), 320, 3, 2, False)
    x = net.joined(left, deep, pool(x, same=False))
    for _ in range(3):
        parts = [conv(x, 256)]
        for inner in (conv(x, 384), chain(x, (384, 1), (448, (3, 1)), (512, (1, 3)))):
            parts += [conv(inner, 256, (1, 3)), conv(inner, 256, (3, 1))]
        x = net.joined(*parts, conv(pool(x, 3, 1), 256))
    return net.classes(x, 1001)


def resnet50_v1() -> list[OperatorWork]:
    """ResNet-50 at 299 pixels."""
    net = _Operators()
    x = net.pool(net.conv((299, 299, 3), 64, 7, 2))
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            strides = 2 if stage > 0 and block == 0 else 1
            shortcut = net.conv(x, 4 * width, 1, strides) if block == 0 else x
            x = net.add(shortcut, net.conv(net.conv(net.conv(x, width, 1, strides), width, 3), 4 * width))
    return net.classes(x, 1001)


def unet_mv2() -> list[OperatorWork]:
    """The segmentation network: MobileNetV2 at 128 pixels, its expanded layers handed across."""
    net = _Operators()
    x = net.conv(net.depthwise(net.conv((128, 128, 3), 32, 3, 2), 3), 16)
    across: list[Image] = []
    for width, blocks, strides in ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)):
        for block in range(blocks):
            expanded = net.conv(x, 6 * x[-1])
            if block == 0 and strides == 2:
                across.append(expanded)
            projected = net.conv(net.depthwise(expanded, 3, strides if block == 0 else 1), width)
            x = projected if block == 0 else net.add(x, projected)
    for width, skipped in zip((512, 256, 128, 64), reversed(across), strict=True):
        x = net.joined(net.doubled(x, width), skipped)
    net.doubled(x, 3)
    return net.works


def _reference(name: str, input_size: int = 224) -> list[OperatorWork]:
    return network_work(reference_network(name, input_size))


# By the names of the published rows.
CORAL_NETWORKS: Mapping[str, Callable[[], Sequence[OperatorWork]]] = {
    "mobilenet_v1_224": partial(_reference, "mobilenet-v1"),
    "mobilenet_v2_224": partial(_reference, "mobilenet-v2"),
    "squeezenet_224": squeezenet,
    "inception_v1_224": inception_v1,
    "inception_v4_299": inception_v4,
    "resnet50_v1_299": resnet50_v1,
    "efficientnet-edgetpu-S": partial(_reference, "efficientnet-edgetpu-s"),
    "efficientnet-edgetpu-M": partial(_reference, "efficientnet-edgetpu-m", 240),
    "unet_mv2_128": unet_mv2,
}
