"""Checks that a delivered file computes the same outputs on the device as on this machine.

Runtimes have two families of integer kernels that round differently: XNNPACK's and the built-in ones. Measured on this
project's int8 networks with test images: the families differ by up to 15 quantisation steps at the output (3 for the
median image), within one version of LiteRT, while the built-in kernels of LiteRT 2.3.0 and of TFLite 2.14.0 agree to
the bit. So a device is compared with both, and the nearer one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from device_agents.errors import DeviceError
from nas_edge.export import verify
from nas_edge.runs.result import OnDeviceCheck

Array: TypeAlias = "np.ndarray[Any, Any]"
RunOnDevice: TypeAlias = Callable[[bytes, Sequence[Array]], list[Array]]
# Share of examples, 0 to 1, for which two arrays of outputs are the same answer; see `NetworkTask.same_answer`.
SameAnswer: TypeAlias = Callable[[Array, Array], float]


def check_on_device(model: bytes, images: Array, run: RunOnDevice, same_answer: SameAnswer) -> OnDeviceCheck:
    """Runs a file on the device and on this machine, and compares the outputs.

    Args:
        model: a TFLite file with one input, of batch one, and one output.
        images: float32 `[n, height, width, channels]`, preprocessed.
        run: runs a file on the device once, as `DeviceAgent.run` does.
        same_answer: of the task.

    Raises:
        DataError: when the images do not fit the model.
        ExportError: when this machine cannot run the file.
    """
    source, result = verify.input_output(model)
    try:
        stored = np.concatenate([run(model, [source.quantize(image[None])])[0] for image in images])
    except DeviceError as error:
        return OnDeviceCheck(len(images), problem=" ".join(str(error).split()))
    theirs = result.dequantize(stored)
    compared = []
    for kernels in verify.KERNELS:
        ours = verify.run_tflite(model, images, kernels=kernels)
        same = same_answer(ours, theirs)
        compared.append((verify.max_difference(ours, theirs), verify.tolerance(result, ours), kernels, same))
    nearest, tolerance, kernels, same = min(compared, key=lambda entry: entry[0])
    return OnDeviceCheck(
        images=len(images),
        agrees=nearest <= tolerance,
        kernels=kernels,
        max_difference=nearest,
        max_steps=None if result.scale is None else round(nearest / result.scale, 3),
        same_answer=same,
    )
