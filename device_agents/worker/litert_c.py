"""The part of LiteRT's C API that its Python package leaves out: the profiler.

Sources: litert/c/*.h and litert/c/options/*.h of google-ai-edge/LiteRT; the options are
TOML texts under the identifiers that `LrtGetOpaqueRuntimeOptionsData` and its sibling for
the CPU return. Structures differ between releases, see `CHECKED_VERSIONS`.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .tensors import Array

# A wrong structure would corrupt memory, so others are not tried.
CHECKED_VERSIONS = ("2.3.",)

# LiteRtProfilerEventType.
OPERATOR = 1 << 1
DELEGATE_OPERATOR = 1 << 2
DELEGATE_PROFILED_OPERATOR = 1 << 3
_LARGEST_EVENT_TYPE = 1 << 8
_LARGEST_SOURCE = 2

_CPU_ACCELERATOR = 1
_LOCK_FOR_WRITING = 1
_TAG_AUTO_REGISTER_ACCELERATORS = 24
_ANY_TYPE_INT = 2
_KERNEL_MODES = {"cpu": 0, "none": 2}  # LiteRtCpuKernelMode: delegate, built-in
_SIGNATURE = 0


class LiteRtError(Exception):
    """A call of the C API failed, or what it returned makes no sense."""


@dataclass(frozen=True)
class Event:
    """One record of the profiler.

    Attributes:
        tag: Operator type, or the name of the delegate's kernel.
        kind: One of the event types above.
        start_us: When it began, in microseconds from any origin.
        elapsed_us: How long it took, in whole microseconds.
        node: Index of the operator in the graph, or in the delegate's part of it.
    """

    tag: str
    kind: int
    start_us: int
    elapsed_us: int
    node: int


class ProfiledModel:
    """A model that can be run with the profiler on; use it in a `with` block.

    Args:
        model: A TFLite file.
        threads: Threads of the runtime.
        delegate: A key of `spec.DELEGATES`.

    Raises:
        LiteRtError: If the runtime refuses something.
        OSError: If the library cannot be loaded.
    """

    def __init__(self, model: bytes, threads: int, delegate: str) -> None:
        self._library = _load_library()
        self._cleanup = ExitStack()
        self._alive: list[Any] = [model]  # what the library points to
        self._inputs: ctypes.Array[ctypes.c_void_p] | None = None
        self._outputs: ctypes.Array[ctypes.c_void_p] | None = None
        try:
            self._environment = self._new_environment()
            self._model = self._handle(
                "LiteRtCreateModelFromBuffer",
                self._environment,
                ctypes.c_char_p(model),
                ctypes.c_size_t(len(model)),
                destroy="LiteRtDestroyModel",
            )
            options = self._new_options(threads, delegate)
            self._compiled = self._handle(
                "LiteRtCreateCompiledModel",
                self._environment,
                self._model,
                options,
                destroy="LiteRtDestroyCompiledModel",
            )
            self._profiler = self._handle("LiteRtCompiledModelGetProfiler", self._compiled)
            self._signature = self._handle("LiteRtGetModelSignature", self._model, ctypes.c_size_t(_SIGNATURE))
        except BaseException:
            self._cleanup.close()
            raise

    def __enter__(self) -> ProfiledModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self._cleanup.close()

    @property
    def input_names(self) -> list[str]:
        """Tensor names of the inputs, in the order of `prepare`."""
        return [self._tensor_name(self._tensor("Input", i)) for i in range(self._count("Input"))]

    def prepare(self, values: Sequence[Array]) -> None:
        """Resizes the inputs to the shapes of the values, allocates, and fills them in."""
        for index, value in enumerate(values):
            dims = (ctypes.c_int * value.ndim)(*value.shape)
            if tuple(self._input_layout(index).dims[: value.ndim]) != value.shape:
                self._call("LiteRtCompiledModelResizeInputTensorNonStrict", *self._at(index), dims, _size(value.ndim))
        outputs = self._output_layouts()
        self._inputs = self._buffers("Input", [self._input_layout(i) for i in range(len(values))])
        self._outputs = self._buffers("Output", outputs)
        for buffer, value in zip(self._inputs, values):
            self._fill(ctypes.c_void_p(buffer), value)

    def run(self) -> None:
        """Runs the model once, without the profiler."""
        if self._inputs is None or self._outputs is None:
            raise LiteRtError("run() before prepare()")
        self._call(
            "LiteRtRunCompiledModel",
            self._compiled,
            _size(_SIGNATURE),
            _size(len(self._inputs)),
            self._inputs,
            _size(len(self._outputs)),
            self._outputs,
        )

    def profile(self) -> list[Event]:
        """Runs the model once and returns what the profiler recorded, in order."""
        # A reset also stops it, and a buffer that is never reset would overflow.
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        self.run()
        self._call("LiteRtStopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        if count.value <= 0:
            raise LiteRtError("the profiler recorded nothing")
        # Room to spare, should a structure have grown.
        records = (_Event * (4 * count.value))()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, records)
        return [_read_event(record) for record in records[: count.value]]

    def _new_environment(self) -> ctypes.c_void_p:
        # Left to itself it looks for GPU and NPU libraries, which is slow and of no use here.
        option = _EnvironmentOption(_TAG_AUTO_REGISTER_ACCELERATORS, _ANY_TYPE_INT, _CPU_ACCELERATOR)
        return self._handle(
            "LiteRtCreateEnvironment", ctypes.c_int(1), ctypes.byref(option), destroy="LiteRtDestroyEnvironment"
        )

    def _new_options(self, threads: int, delegate: str) -> ctypes.c_void_p:
        options = self._handle("LiteRtCreateOptions", destroy="LiteRtDestroyOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(_CPU_ACCELERATOR))
        self._add_option(options, b"runtime_options_string", "enable_profiling = true\n")
        self._add_option(options, b"xnnpack", f"num_threads = {threads}\nkernel_mode = {_KERNEL_MODES[delegate]}\n")
        return options

    def _add_option(self, options: ctypes.c_void_p, identifier: bytes, toml: str) -> None:
        text = ctypes.create_string_buffer(toml.encode())
        self._alive.append(text)
        option = self._handle("LiteRtCreateOpaqueOptions", identifier, text, _NO_DESTRUCTOR)
        self._call("LiteRtAddOpaqueOptions", options, option)

    def _count(self, side: str) -> int:
        count = ctypes.c_size_t()
        self._call(f"LiteRtGetNumSignature{side}s", self._signature, ctypes.byref(count))
        return count.value

    def _tensor(self, side: str, index: int) -> ctypes.c_void_p:
        return self._handle(f"LiteRtGetSignature{side}TensorByIndex", self._signature, _size(index))

    def _tensor_name(self, tensor: ctypes.c_void_p) -> str:
        name = ctypes.c_char_p()
        self._call("LiteRtGetTensorName", tensor, ctypes.byref(name))
        return (name.value or b"").decode(errors="replace")

    def _input_layout(self, index: int) -> _Layout:
        layout = _Layout()
        self._call("LiteRtGetCompiledModelInputTensorLayout", *self._at(index), ctypes.byref(layout))
        return layout

    def _output_layouts(self) -> list[_Layout]:
        count = self._count("Output")
        layouts = (_Layout * count)()
        self._call(
            "LiteRtGetCompiledModelOutputTensorLayouts",
            self._compiled,
            _size(_SIGNATURE),
            _size(count),
            layouts,
            ctypes.c_bool(True),
        )
        if any(d <= 0 for layout in layouts for d in layout.dims[: layout.rank]):
            raise LiteRtError("the shape of an output depends on the data")
        return list(layouts)

    def _buffers(self, side: str, layouts: Sequence[_Layout]) -> ctypes.Array[ctypes.c_void_p]:
        buffers = (ctypes.c_void_p * len(layouts))()
        for index, layout in enumerate(layouts):
            requirements = self._handle(f"LiteRtGetCompiledModel{side}BufferRequirements", *self._at(index))
            kind = _TensorType()
            self._call("LiteRtGetRankedTensorType", self._tensor(side, index), ctypes.byref(kind))
            kind.layout = layout
            buffers[index] = self._handle(
                "LiteRtCreateManagedTensorBufferFromRequirements",
                self._environment,
                ctypes.byref(kind),
                requirements,
                destroy="LiteRtDestroyTensorBuffer",
            ).value
        return buffers

    def _fill(self, buffer: ctypes.c_void_p, value: Array) -> None:
        size = ctypes.c_size_t()
        self._call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
        data = value.tobytes()
        if size.value != len(data):
            raise LiteRtError(f"an input takes {size.value} bytes, not {len(data)}")
        address = ctypes.c_void_p()
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), ctypes.c_int(_LOCK_FOR_WRITING))
        if not address.value:
            raise LiteRtError("an input has no address")
        ctypes.memmove(address, data, len(data))
        self._call("LiteRtUnlockTensorBuffer", buffer)

    def _at(self, index: int) -> tuple[Any, ...]:
        return self._compiled, _size(_SIGNATURE), _size(index)

    def _handle(self, name: str, *arguments: Any, destroy: str = "") -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call(name, *arguments, ctypes.byref(handle))
        if not handle.value:
            raise LiteRtError(f"{name} returned nothing")
        if destroy:
            function = self._library[destroy]
            function.restype = None
            self._cleanup.callback(function, handle)
        return handle

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            function = self._library[name]
        except AttributeError:
            raise LiteRtError(f"the library has no {name}") from None
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status != 0:
            raise LiteRtError(f"{name} failed with status {status}")


class _Layout(ctypes.Structure):
    """`LiteRtLayout`."""

    _fields_ = [
        ("rank", ctypes.c_uint32, 7),
        ("has_strides", ctypes.c_uint32, 1),
        ("dims", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    ]


class _TensorType(ctypes.Structure):
    """`LiteRtRankedTensorType`."""

    _fields_ = [("element", ctypes.c_int), ("layout", _Layout)]


class _EnvironmentOption(ctypes.Structure):
    """`LiteRtEnvOption` with a whole number for its value."""

    _fields_ = [("tag", ctypes.c_int), ("value_type", ctypes.c_int), ("value", ctypes.c_int64)]


class _Event(ctypes.Structure):
    """`ProfiledEventData`; the memory figures are three numbers before and three after."""

    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),
        ("metadata1", ctypes.c_uint64),
        ("metadata2", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]


# The texts handed over belong to Python.
_NO_DESTRUCTOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)


def _read_event(record: _Event) -> Event:
    if not 0 < record.kind <= _LARGEST_EVENT_TYPE or not 0 <= record.source <= _LARGEST_SOURCE:
        raise LiteRtError("the profiler's records are not laid out as expected")
    tag = (record.tag or b"").decode(errors="replace")
    return Event(tag, record.kind, record.start_us, record.elapsed_us, record.metadata1)


def _load_library() -> ctypes.CDLL:
    package = importlib.util.find_spec("ai_edge_litert")
    folders = package.submodule_search_locations if package else None
    files = [file for folder in folders or () for file in Path(folder).glob("libLiteRt.*")]
    if not files:
        raise LiteRtError("libLiteRt is not installed")
    return ctypes.CDLL(str(files[0]))


def _size(value: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(value)
