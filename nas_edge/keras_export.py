"""`nas-edge export model.keras`: the bundle of any Keras model, made in a child process with limits.

    parent:  starts the child, waits, and says in one line what became of it
    child:   load -> convert -> check -> test -> measure -> bundle

The file is somebody else's, so nothing of it is read in the parent.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from device_agents.errors import DeviceError
from nas_edge.config import RunConfig, load_config
from nas_edge.data.dataset import Indices
from nas_edge.errors import ConfigError, ExportError, NasEdgeError
from nas_edge.export.bundle import DeliveredModel, check_new_bundle, write_bundle
from nas_edge.export.representative import RepresentativeSet, representative_set
from nas_edge.export.verify import FileQuality
from nas_edge.formatting import ms_text
from nas_edge.hardware.gate import require_hardware
from nas_edge.hardware.npu import compile_for_npus
from nas_edge.latency.device import DeviceSource
from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.progress import Reporter
from nas_edge.runs.example_scores import id_of_test_set
from nas_edge.stages.context import final_spec, open_devices, open_task, timing_inputs
from nas_edge.stages.delivering import EXAMINED_IMAGES, GOLDEN_EXAMPLES, latency_facts
from nas_edge.stages.fastest_precision import AUTO, TriedPrecision, fastest_precision
from nas_edge.stages.on_device import CHECKED_IMAGES, checks_on_device
from nas_edge.stages.quantizing import TESTED_AT_ONCE
from nas_edge.tasks.base import NetworkTask, TaskData

# Of the child: seconds, and bytes of its own memory and of one file.
_TIMEOUT_S = 3 * 3600
_MEMORY_BYTES = 16 * 2**30
_FILE_BYTES = 4 * 2**30

INPUT_RANGES = {"0,255": (0.0, 255.0), "0,1": (0.0, 1.0), "-1,1": (-1.0, 1.0)}


@dataclass(frozen=True)
class KerasExport:
    """What is asked.

    Attributes:
        file: a `.keras` file: an image classifier.
        out: new folder for the bundle.
        data: source of labelled images, which it is calibrated and tested with.
        precision: a name in `PRECISIONS`, or `auto`.
        input_range: a name in `INPUT_RANGES`: what the model takes pixel values 0 to 255 as.
        device: address of where to measure.
        hardware: what has to run it; None for nothing in particular.
        npu: what it is also compiled for, see `hardware.npu`.
        seed: of the split of the data and of the representative set.
        settings: `path=value` each, of data, device, export and measuring.
    """

    file: str
    out: str
    data: str
    precision: str = "int8"
    input_range: str = "0,255"
    device: str = "host:"
    hardware: str | None = None
    npu: Sequence[str] = ()
    seed: int = 0
    settings: Sequence[str] = ()

    def config(self) -> RunConfig:
        """The settings of a run that come to the same."""
        return load_config(
            flags={
                "data.source": self.data,
                "device.addresses": (self.device,),
                "export.precision": None if self.precision == "auto" else self.precision,
                "export.hardware": self.hardware,
                "export.npu": tuple(self.npu) or None,
                "seed": self.seed,
            },
            settings=self.settings,
        )


def export_keras(request: KerasExport) -> str:
    """Exports a model in a child process.

    Returns:
        What was done, in a line or several.

    Raises:
        ConfigError, DataError: when the request is wrong.
        ExportError: when the model cannot be exported; with the reason and, where it is one, the name of the layer.
        RunError, DeviceError: see `pipeline.export`.
    """
    check_new_bundle(Path(request.out))  # before anything takes time
    if not Path(request.file).is_file():
        raise ConfigError(f"{request.file} is not a file", expected="a .keras file")
    if request.input_range not in INPUT_RANGES:
        raise ConfigError("unknown input range", expected=", ".join(INPUT_RANGES), received=request.input_range)
    if request.config().export.mixed_layers:
        raise ConfigError("export.mixed_layers is for networks of a run; leave it out")
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", __name__, json.dumps(asdict(request)), str(answer)]
        try:
            ended = subprocess.run(command, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise ExportError(f"{request.file}: the export took more than {_TIMEOUT_S // 3600} hours") from None
        try:
            says = json.loads(answer.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            why = f"signal {-ended.returncode}" if ended.returncode < 0 else f"exit code {ended.returncode}"
            raise ExportError(
                f"{request.file}: the process that converted it ended with {why}, perhaps for want of memory"
            ) from None
    if "problem" not in says:
        return str(says["done"])
    error = NasEdgeError(str(says["problem"]))
    error.exit_code = int(says["exit_code"])
    raise error


def _limit() -> None:
    """Limits this process, where the system has such limits."""
    if sys.platform == "win32":
        return
    import resource

    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: _FILE_BYTES, resource.RLIMIT_DATA: _MEMORY_BYTES}
    for limit, most in limits.items():
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _main(request: str, answer: str) -> None:
    _limit()
    says: dict[str, Any]
    try:
        says = {"done": _export(KerasExport(**json.loads(request)))}
    except (NasEdgeError, DeviceError) as error:
        says = {"problem": str(error), "exit_code": getattr(error, "exit_code", 1)}
    except KeyboardInterrupt:
        says = {"problem": "stopped; nothing was written", "exit_code": 130}
    except Exception as error:  # of a library that met something in a foreign model
        lines = str(error).strip().splitlines() or [""]
        says = {"problem": f"the model cannot be exported: {type(error).__name__}: {lines[0]:.300}", "exit_code": 1}
    Path(answer).write_text(json.dumps(says), encoding="utf-8")


@dataclass(frozen=True)
class _Loaded:
    """A model, what it is calibrated and tested with, and the files made of it so far; in the child."""

    name: str
    model: Any
    task: NetworkTask
    data: TaskData
    representative: RepresentativeSet
    files: dict[Precision, bytes] = field(default_factory=dict)

    def convert(self, part: Any, precision: Precision) -> bytes:
        """Of the model, or of its first layers."""
        from nas_edge.export.quantize import quantized_tflite

        read = self.data.in_order
        chosen = self.representative.indices
        return quantized_tflite(part, precision, lambda: (images for images, _ in read(chosen, TESTED_AT_ONCE)))

    def file(self, precision: Precision) -> bytes:
        """The whole model's, converted once; an error names the layer."""
        from nas_edge.export.keras_file import culprit

        if precision in self.files:
            return self.files[precision]
        try:
            self.files[precision] = self.convert(self.model, precision)
        except ExportError as error:
            layer = culprit(self.model, lambda part: self.convert(part, precision))
            raise ExportError(f"{self.name}: layer {layer!r}: {error}" if layer else f"{self.name}: {error}") from None
        return self.files[precision]

    def quality(self, file: bytes, indices: Indices) -> FileQuality:
        """Of a file on some images."""
        from nas_edge.export.verify import file_quality

        return file_quality(file, self.data.in_order(indices, TESTED_AT_ONCE), self.task)

    def chosen_on(self, file: bytes) -> float:
        """Its quality on validation images, by which a precision is chosen."""
        return self.quality(file, self.data.split.validation).value

    def described(self, file: bytes) -> bytes:
        """A file with its metadata."""
        from nas_edge.export.tflite_metadata import with_metadata

        return with_metadata(file, self.data.preprocessing, self.task.bundle_section(self.data))

    def images(self, count: int) -> Any:
        """The first test images, float32 `[count, size, size, channels]`."""
        return self.data.arrays(self.data.split.test[:count])[0]


def _load(request: KerasExport, config: RunConfig, reporter: Reporter) -> _Loaded:
    from nas_edge.data.preprocessing import ImagePreprocessing
    from nas_edge.export.keras_file import load_keras_file

    name, model = Path(request.file).name, load_keras_file(Path(request.file))
    size, _, channels = model.inputs[0].shape[1:]
    task = open_task(config)
    assert isinstance(task, NetworkTask)
    data = task.load(config.data, size, config.seed)
    assert data is not None
    reporter.say(task.describe(config.data, data))
    result = model.outputs[0]
    if task.outputs(data) != result.shape[1]:
        raise ExportError(
            f"{name} is refused: its output {result.name!r} has {result.shape[1]} values, and {request.data} has "
            f"{task.outputs(data)} classes"
        )
    low, high = INPUT_RANGES[request.input_range]
    std = 255 / (high - low)
    data = replace(data, preprocessing=ImagePreprocessing(size, channels, (-low * std,) * channels, (std,) * channels))
    chosen = representative_set(data, config.export.representative_images, config.seed)
    return _Loaded(name, model, task, data, chosen)


def _export(request: KerasExport) -> str:
    """All of it, in the child."""
    import numpy as np

    from nas_edge.export import verify
    from nas_edge.quiet import start_tensorflow

    reporter, config = Reporter(), request.config()
    start_tensorflow(config.runs.deterministic)
    loaded = _load(request, config, reporter)
    real, images = loaded.file("float32"), loaded.images(CHECKED_IMAGES)
    expected = np.asarray(loaded.model(images, training=False))
    verify.check_outputs(real, images, expected, f"the Keras model {loaded.name}")
    with ExitStack() as stack:
        device = stack.enter_context(open_devices(config, inputs=timing_inputs(config, loaded.data)))
        precision, tried = request.precision, tuple[TriedPrecision, ...]()
        if precision == AUTO:
            tried = fastest_precision(config, loaded.task.metric, device, loaded.file, loaded.chosen_on, reporter)
            precision = tried[0].precision
        files = {"float32": real} | ({} if precision == "float32" else {precision: loaded.file(precision)})
        files = {kind: loaded.described(file) for kind, file in files.items()}
        hardware, check = config.export.profile, None
        more_files: Mapping[str, bytes] = {}
        if hardware is not None:
            check = require_hardware(files[precision], hardware, precision)
            if hardware.finish is not None:
                finished = hardware.finish(files[precision])
                more_files, check = finished.files, replace(check, note=finished.says)
        compiled = compile_for_npus(files[precision], f"model_{precision}", config.export.npu)
        more_files = {**more_files, **compiled.files}
        models, lines = _measured(loaded, config, device, files, reporter)
        details = {
            **_details(request, loaded, files, precision),
            "device": device.info.model,
            "precisions": [one.to_json() for one in tried],
            "npu": compiled.says,
            "hardware_check": None if check is None else check.to_json(),
        }
        _write(Path(request.out), loaded, models, precision, details, more_files)
    lines += [f"{target}: {says}" for target, says in compiled.says.items()]
    return "\n".join([*lines, *([] if check is None else [str(check)]), f"bundle: {request.out}"])


def _measured(
    loaded: _Loaded, config: RunConfig, device: DeviceSource, files: Mapping[Precision, bytes], reporter: Reporter
) -> tuple[dict[Precision, DeliveredModel], list[str]]:
    """The files as they are delivered, and a line on each."""
    task, data = loaded.task, loaded.data
    with reporter.stage("measuring", len(files)) as show:
        measured = device.measure_files([(file, final_spec(config, device)) for file in files.values()])
        show(len(files))
    models, lines, checks = {}, [], checks_on_device(config, device, files, task, data)
    for (kind, file), found in zip(files.items(), measured, strict=True):
        tested = loaded.quality(file, data.split.test)
        value = tested.value
        told = {} if tested.breakdown is None else task.describe_breakdown(tested.breakdown, data)
        models[kind] = DeliveredModel(file, value, latency_facts(found), asdict(checks[kind]), tested.interval, told)
        shown = f"{task.metric.name} {task.metric.text(value)}, {ms_text(found.best_ms)} ms"
        lines.append(f"{kind}: {len(file)} bytes, {shown}; {checks[kind]}")
    return models, lines


def _details(
    request: KerasExport, loaded: _Loaded, files: Mapping[Precision, bytes], precision: Precision
) -> dict[str, Any]:
    """Further entries of the manifest."""
    from nas_edge.export.sensitivity import layer_noise

    calibrated = PRECISIONS[precision].calibrated
    noises = layer_noise(files["float32"], files[precision], loaded.images(EXAMINED_IMAGES)) if calibrated else ()
    return {
        "seed": loaded.representative.seed,
        "data": request.data,
        "test_set": id_of_test_set(loaded.data),
        "license": request.config().export.license,
        "test_images": len(loaded.data.split.test),
        "quantization": None if precision == "float32" else {"method": "post-training"},
        "representative": loaded.representative.to_json() if calibrated else None,
        "sensitivity": [one.to_json() for one in noises],
    }


def _write(
    out: Path,
    loaded: _Loaded,
    models: Mapping[Precision, DeliveredModel],
    precision: Precision,
    details: Mapping[str, Any],
    more_files: Mapping[str, bytes],
) -> None:
    write_bundle(
        out,
        models=models,
        precision=precision,
        section=loaded.task.bundle_section(loaded.data),
        metric=loaded.task.metric,
        preprocessing=loaded.data.preprocessing,
        golden_examples=loaded.data.dataset.stored(loaded.data.split.test[:GOLDEN_EXAMPLES]),
        space=loaded.name,
        architecture=str(loaded.model.name),
        decisions={},
        details=details,
        more_files=more_files,
    )


if __name__ == "__main__":
    _main(*sys.argv[1:])
