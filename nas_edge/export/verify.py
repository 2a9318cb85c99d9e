"""Checks a TFLite file as an app will run it: its operators, outputs and quality. Does not require TensorFlow."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from nas_edge.errors import DataError, ExportError
from nas_edge.formatting import reason
from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.networks.tflite_model import OperatorInfo, operators
from nas_edge.quiet import held_stderr
from nas_edge.tasks.base import Batch, NetworkTask
from nas_edge.tasks.comparing import ScoreWithInterval

Array: TypeAlias = "np.ndarray[Any, Any]"

_NAMED_OFFENDERS = 5

_MAX_THREADS = 4

Kernels: TypeAlias = Literal["XNNPACK", "built-in"]
KERNELS: tuple[Kernels, ...] = ("XNNPACK", "built-in")

# A few steps for int8, a relative error for float32.
INT8_TOLERANCE_STEPS = 2
FLOAT32_TOLERANCE = 1e-3


@dataclass(frozen=True)
class TensorInfo:
    """Input or output of a TFLite file.

    Attributes:
        name: in the file.
        shape: batch included.
        dtype: NumPy's name, for example `int8`.
        scale: real value of one step, or None for a float tensor; `real = scale * (stored - zero_point)`.
        zero_point: the stored value of zero, or None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> TensorInfo:
        """The inverse of `dataclasses.asdict`, after JSON.

        Raises:
            KeyError, TypeError, ValueError: when it is none.
        """
        scale, zero_point, dtype = facts["scale"], facts["zero_point"], np.dtype(str(facts["dtype"]))
        if dtype.kind not in ("fiu" if scale is None else "iu"):
            raise ValueError(f"expected {'a number' if scale is None else 'an integer'}, received {dtype.name}")
        return cls(
            str(facts["name"]),
            tuple(int(size) for size in facts["shape"]),
            dtype.name,
            None if scale is None else float(scale),
            None if zero_point is None else int(zero_point),
        )

    def quantize(self, values: Array) -> Array:
        """Real values as the tensor stores them."""
        if self.scale is None or self.zero_point is None:
            return np.asarray(values, self.dtype)
        limits = np.iinfo(self.dtype)
        stored = np.rint(values / np.float32(self.scale)) + self.zero_point
        return np.asarray(np.clip(stored, limits.min, limits.max), self.dtype)

    def dequantize(self, stored: Array) -> Array:
        """Stored values as float32 real values."""
        if self.scale is None or self.zero_point is None:
            return np.asarray(stored, np.float32)
        return np.asarray(np.float32(self.scale) * (stored.astype(np.float32) - np.float32(self.zero_point)))


def tolerance(result: TensorInfo, expected: Array) -> float:
    """The largest difference allowed between outputs of the same kernels, in real values, as processors and versions
    round differently.

    Args:
        result: the output.
        expected: its real values.
    """
    if result.scale is not None:
        return INT8_TOLERANCE_STEPS * result.scale
    return FLOAT32_TOLERANCE * max(1.0, float(np.abs(expected).max()))


def run_tflite(model: bytes, images: Array, threads: int | None = None, kernels: Kernels = "XNNPACK") -> Array:
    """Runs a file image by image, as an app does.

    Args:
        model: a TFLite file with one input, of batch one, and one output.
        images: float32 `[n, height, width, channels]`, preprocessed; quantised here if the file's input is integer.
        threads: of the runtime; None for up to four.
        kernels: XNNPACK's where available, or only the built-in ones.

    Returns:
        Outputs, float32 `[n, ...]`, dequantised.

    Raises:
        DataError: when the images do not fit.
        ExportError: when the runtime cannot run the file.
    """
    return _Runner(model, threads, kernels)(images)


class _Runner:
    """A file that stays loaded; arguments, results and errors are those of `run_tflite`."""

    def __init__(self, model: bytes, threads: int | None = None, kernels: Kernels = "XNNPACK") -> None:
        self._interpreter = open_interpreter(model, threads, kernels)
        feed, fetch = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]
        self._feed, self._fetch = feed["index"], fetch["index"]
        self._source, self._result = tensor_info(feed), tensor_info(fetch)

    def __call__(self, images: Array) -> Array:
        if self._source.shape != (1, *images.shape[1:]):
            raise DataError(
                "the images have the wrong shape",
                expected=f"[n, {', '.join(map(str, self._source.shape[1:]))}]",
                received=f"{list(images.shape)}",
            )
        stored = np.empty((len(images), *self._result.shape[1:]), self._result.dtype)
        try:
            for index, image in enumerate(images):
                self._interpreter.set_tensor(self._feed, self._source.quantize(image[None]))
                self._interpreter.invoke()
                stored[index] = self._interpreter.get_tensor(self._fetch)[0]
        except (RuntimeError, ValueError) as e:
            raise ExportError(f"the runtime cannot run the file: {reason(e)}") from e
        return self._result.dequantize(stored)


@dataclass(frozen=True)
class FileQuality:
    """How good a file is.

    Attributes:
        value: in the task's metric.
        example_scores: `[n]`, see `NetworkTask.example_scores`; None for a metric without a paired test, and where
            outputs are not numbers.
        breakdown: see `NetworkTask.breakdown`; None without one, and where outputs are not numbers.
        interval: 95% interval of the value; None where it is not known, and where outputs are not numbers.
    """

    value: float
    example_scores: Array | None
    breakdown: Array | None = None
    interval: tuple[float, float] | None = None


def file_quality(model: bytes, batches: Iterable[Batch], task: NetworkTask, threads: int | None = None) -> FileQuality:
    """How good a file is, on images of which one batch is held at a time.

    Args:
        model: a TFLite file with one input, of batch one, and one output.
        batches: preprocessed images, and their targets.
        task: what good is.
        threads: of the runtime; None for up to four.

    Raises:
        DataError: when there are no images, or they do not fit.
        ExportError: when the runtime cannot run the file.
    """
    run, score = _Runner(model, threads), ScoreWithInterval(task)
    scores: list[Array | None] = []
    parts: list[Array | None] = []
    for images, targets in batches:
        if len(images) != len(targets):
            raise DataError(f"expected as many targets as images; received {len(targets)} and {len(images)}")
        outputs = run(images)
        score.take(outputs, targets)
        finite = bool(np.isfinite(outputs).all())
        scores.append(task.example_scores(outputs, targets) if finite else None)
        parts.append(task.breakdown(outputs, targets) if finite else None)
    known, told = ([part for part in some if part is not None] for some in (scores, parts))
    return FileQuality(
        score.value(),
        np.concatenate(known) if known and len(known) == len(scores) else None,
        task.join_breakdowns(told) if told and len(told) == len(parts) else None,
        score.interval(),
    )


def check_outputs(model: bytes, images: Array, expected: Array, reference: str, share: float = 0.0) -> None:
    """Checks that a file computes what it was made of computes.

    Args:
        model: a TFLite file.
        images: float32 `[n, height, width, channels]`, preprocessed.
        expected: `[n, ...]`, what the reference makes of them.
        reference: what that is, in words.
        share: of the range of its outputs, by which they may differ for roundings at other places.

    Raises:
        ExportError: when the outputs differ by more than rounding, on average over the outputs.
    """
    result = input_output(model)[1]
    difference = float(np.abs(run_tflite(model, images) - expected).mean())
    allowed = max(tolerance(result, expected), share * float(np.ptp(expected)))
    if not difference <= allowed:
        raise ExportError(
            f"the file's outputs differ from {reference} by {difference:.4g} on average",
            expected=f"at most {allowed:.4g}",
        )


def max_difference(first: Array, second: Array) -> float:
    """The largest difference of any output of two arrays of one shape, in real values."""
    return float(np.abs(first - second).max())


def input_output(model: bytes) -> tuple[TensorInfo, TensorInfo]:
    """The input and the output of a file.

    Raises:
        ExportError: when the file is damaged, or has several inputs or outputs.
    """
    interpreter = open_interpreter(model, 1)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ExportError(f"expected a file with one input and one output, received {len(inputs)} and {len(outputs)}")
    return tensor_info(inputs[0]), tensor_info(outputs[0])


def check_precision(model: bytes, precision: Precision) -> None:
    """Checks that a file is what its precision says: in `int8`, int8 input and output, and integer operators only.

    Raises:
        ExportError: naming the operators with tensors of another type, and the input or output that has another.
    """
    types = PRECISIONS[precision]
    found = _operators(model)
    offenders = [
        f"{i}:{op.name} ({', '.join(sorted(set(_types(op)) - types.operator_dtypes)).lower()})"
        for i, op in enumerate(found)
        # Of a float file, further types (indices, conditions) are its author's business.
        if types.calibrated and set(_types(op)) - types.operator_dtypes and op.name not in types.casts
    ]
    offenders += [
        f"{role} {tensor.name!r} ({tensor.dtype})"
        for role, tensor in zip(("input", "output"), input_output(model), strict=True)
        if tensor.dtype != types.io
    ]
    if offenders:
        named = ", ".join(offenders[:_NAMED_OFFENDERS]) + (" ..." if len(offenders) > _NAMED_OFFENDERS else "")
        raise ExportError(
            f"not an {precision} file ({types.what}): {len(offenders)} operator(s), inputs or outputs have other "
            f"types: {named}",
            fix="deliver float32, by a new run with --precision float32",
        )


def operator_histogram(model: bytes) -> dict[str, int]:
    """Number of operators by name and output type, for example `{"ADD int8": 5, "CONV_2D int8": 30}`.

    Raises:
        ExportError: when the file is damaged.
    """
    counts = Counter(" ".join([op.name, *sorted(set(op.output_dtypes))[:1]]) for op in _operators(model))
    return {f"{name.rpartition(' ')[0]} {name.rpartition(' ')[2].lower()}": counts[name] for name in sorted(counts)}


def _types(operator: OperatorInfo) -> tuple[str, ...]:
    return operator.input_dtypes + operator.output_dtypes


def _operators(model: bytes) -> list[OperatorInfo]:
    try:
        return operators(model)
    except ValueError as e:
        raise ExportError(str(e)) from e


def open_interpreter(
    model: bytes, threads: int | None, kernels: Kernels = "XNNPACK", preserve_all: bool = False
) -> Any:
    """An interpreter with its tensors allocated.

    Args:
        model: a TFLite file.
        threads: of the runtime; None for up to four.
        kernels: see `run_tflite`.
        preserve_all: whether the outputs of all operators can be read afterwards.

    Raises:
        ExportError: when the runtime cannot load the file.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolvers = {"XNNPACK": OpResolverType.AUTO, "built-in": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    with held_stderr():
        try:
            interpreter = Interpreter(
                model_content=model,
                num_threads=threads or min(_MAX_THREADS, os.cpu_count() or 1),
                experimental_op_resolver_type=resolvers[kernels],
                experimental_preserve_all_tensors=preserve_all,
            )
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as e:
            raise ExportError(f"the runtime cannot load the file: {reason(e)}") from e
    return interpreter


def tensor_info(details: dict[str, Any]) -> TensorInfo:
    """What an interpreter says of a tensor."""
    scale, zero_point = details["quantization"]
    quantized = scale != 0
    return TensorInfo(
        name=details["name"],
        shape=tuple(int(size) for size in details["shape"]),
        dtype=np.dtype(details["dtype"]).name,
        scale=float(scale) if quantized else None,
        zero_point=int(zero_point) if quantized else None,
    )
