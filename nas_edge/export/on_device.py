"""Checks that a delivered file computes the same outputs on the device as on this machine.

Runtimes have two families of integer kernels that round differently: XNNPACK's and the built-in ones. Measured on this
project's int8 networks with test images: the families differ by up to 15 quantisation steps at the output (3 for the
median image), within one version of LiteRT, while the built-in kernels of LiteRT 2.3.0 and of TFLite 2.14.0 agree to
the bit. So a device is compared with both, and the nearer one counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from device_agents.api import DeviceInfo
from device_agents.errors import DeviceError
from nas_edge.export import verify
from nas_edge.runs.result import OnDeviceCheck, OnDeviceQuality
from nas_edge.seeds import generator
from nas_edge.tasks.base import NetworkTask, TaskData
from nas_edge.tasks.comparing import ScoreWithInterval

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


# Images that are held in memory; a device takes them one by one.
_AT_ONCE = 32


def quality_on_device(
    model: bytes,
    run: RunOnDevice,
    device: DeviceInfo,
    task: NetworkTask,
    data: TaskData,
    seed: int,
    limit_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> OnDeviceQuality:
    """How good a file is on a device: on test images in random order, for as long as there is time.

    Args:
        model: see `check_on_device`.
        run: likewise.
        device: what the device is.
        task: what good is.
        data: with the test images.
        seed: of their order, which is the same for all files.
        limit_s: no further image is begun after it; at least one is run.
        clock: in seconds.

    Raises:
        DataError: when the images do not fit the model.
        ExportError: when this machine cannot run the file.
    """
    result = verify.input_output(model)[1]
    order = generator(seed, "test on the device").permutation(np.asarray(data.split.test))
    score, done, problem, started_s = ScoreWithInterval(task), 0, "", clock()
    for images, targets in data.in_order(order, _AT_ONCE):
        # The first image of all is run in any case.
        answers, problem = _answers(model, images, run, lambda: clock() - started_s >= limit_s, at_least_one=not done)
        if answers:
            score.take(result.dequantize(np.concatenate(answers)), targets[: len(answers)])
            done += len(answers)
        if len(answers) < len(images):
            break
    seconds, there, here = clock() - started_s, None, None
    if done:
        there = _finite(score.value())
        here = _finite(verify.file_quality(model, data.in_order(order[:done], _AT_ONCE), task).value)
    return OnDeviceQuality(
        metric=task.metric.name,
        value=there,
        here=here,
        interval=score.interval() if done else None,
        images=done,
        test_images=len(order),
        seed=seed,
        seconds=round(seconds, 3),
        limit_s=limit_s,
        device=device.model,
        runtime=f"{device.runtime} {device.runtime_version}",
        problem=problem,
    )


def _answers(
    model: bytes, images: Array, run: RunOnDevice, late: Callable[[], bool], at_least_one: bool
) -> tuple[list[Array], str]:
    """What a device answers to images until it is late, as it stores them; and why it failed, if it did."""
    source, answers = verify.input_output(model)[0], list[Array]()
    for image in images:
        if (answers or not at_least_one) and late():
            break
        try:
            answers.append(run(model, [source.quantize(image[None])])[0])
        except DeviceError as error:
            return answers, " ".join(str(error).split())
    return answers, ""


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
