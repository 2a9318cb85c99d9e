"""The bundle: the folder an app team receives, complete and checkable.

    model_int8.tflite     what is delivered, named after its precision (absent when only float32 is delivered)
    model_float32.tflite  the same network before quantisation
    labels.txt            of a classifier: one class name per line; other tasks have other files, or none
    golden.npz            one image and what each model answers, to check an integration with
    README.md             how to feed the model, with a snippet that runs as is
    measurements.json     every latency sample, in ms, behind the manifest's statistics (absent when none was taken)
    manifest.json         hashes, architecture, preprocessing, quantisation, quality, measured latency, versions

A bundle is written to a temporary folder beside its final place and renamed, so it is either complete or absent.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from nas_edge import __version__
from nas_edge.data.preprocessing import Preprocessing
from nas_edge.errors import DataError, ExportError, RunError
from nas_edge.export import verify
from nas_edge.formatting import ms_text, reason, with_interval
from nas_edge.hardware.gate import HardwareCheck
from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.tasks.base import BundleSection, Metric
from nas_edge.text import slower_than_float

Array: TypeAlias = "np.ndarray[Any, Any]"

SCHEMA_VERSION = 1

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
README = "README.md"
MEASUREMENTS = "measurements.json"
MODEL_FILES = {precision: f"model_{precision}.tflite" for precision in PRECISIONS}

# In a measurement's JSON form.
_SAMPLES = "samples_ms"

_PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy")


class BundleFolderError(RunError):
    """The folder named for a bundle cannot be used."""

    exit_code = 2


@dataclass(frozen=True)
class DeliveredModel:
    """One model file and what is known of it.

    Attributes:
        file: the TFLite file's bytes.
        quality: on the test split, in the task's metric, of exactly this file; None if not tested.
        latency: the measurement with its conditions (device, runtime, threads ...), as JSON values; the README shows
            its `latency_ms`, or else its `median_ms`. Its `samples_ms`, if any, go to `measurements.json`. None if not
            measured.
        on_device_check: result of running it on the device, as JSON values; None if that was not tried.
        quality_interval: 95% interval of the quality; None if that is not known.
    """

    file: bytes
    quality: float | None = None
    latency: Mapping[str, Any] | None = None
    on_device_check: Mapping[str, Any] | None = None
    quality_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bundle:
    """A bundle read from disk.

    Attributes:
        folder: its path.
        manifest: the parsed `manifest.json`.
        files: every file's bytes but the manifest's, by name; which there are beside models, golden image and README
            depends on the task.
        models: the TFLite files' bytes by precision, `float32` and perhaps another.
    """

    folder: Path
    manifest: dict[str, Any]
    files: dict[str, bytes]
    models: dict[str, bytes]


def write_bundle(
    folder: Path,
    *,
    models: Mapping[Precision, DeliveredModel],
    precision: Precision,
    section: BundleSection,
    metric: Metric,
    preprocessing: Preprocessing,
    golden_image: Array,
    space: str,
    architecture: str,
    decisions: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
    more_files: Mapping[str, bytes] | None = None,
    created: datetime | None = None,
) -> Bundle:
    """Writes a bundle. Equal arguments give equal bytes.

    Args:
        folder: must be empty or not exist.
        models: by precision, rejected unless they are what that says: in int8, every operator is an integer operator.
        precision: of the one that is delivered; the others are for comparison.
        section: what there is to say of the task.
        metric: what quality is.
        preprocessing: turns pixels into model input.
        golden_image: uint8 `[height, width, channels]`, already at the input's size.
        space: name of the search space, or of the network if it comes from none.
        architecture: its text form in that space.
        decisions: the chosen value by decision path.
        details: further manifest entries as JSON values: seed, data, calibration images ...
        more_files: further files by name, for example the model compiled for the hardware.
        created: creation time to record; now by default.

    Returns:
        The bundle, read back and verified.

    Raises:
        ExportError: when a model, its outputs or a manifest value is invalid.
        DataError: when the golden image does not fit the models.
        RunError: when the folder already exists or cannot be written.
    """
    _check_models(models, section)
    golden = _golden({precision: model.file for precision, model in models.items()}, golden_image, preprocessing)
    files = _files(models, {**section.files, **(more_files or {})})
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "created": (created or datetime.now(timezone.utc)).isoformat(timespec="seconds"),
        "space": space,
        "architecture": architecture,
        "decisions": decisions,
        **section.manifest,
        "preprocessing": preprocessing.manifest(),
        "models": {precision: _describe(precision, model, metric) for precision, model in models.items()},
        "versions": _versions(),
        "details": details or {},
    }
    files |= _measurements(models)
    files[README] = _readme(manifest, precision, section, metric).encode()
    _write(folder, files, golden, manifest)
    return verify_bundle(folder)


def _check_models(models: Mapping[Precision, DeliveredModel], section: BundleSection) -> None:
    """Checks that models are what they are called, and fit the task."""
    for precision, model in models.items():
        if PRECISIONS[precision].calibrated:
            verify.check_precision(model.file, precision)
        _check_outputs(section, verify.input_output(model.file)[1])


def _files(models: Mapping[str, DeliveredModel], others: Mapping[str, bytes]) -> dict[str, bytes]:
    """The models' files, and those of the task and the hardware."""
    files = {MODEL_FILES[precision]: model.file for precision, model in models.items()}
    for name, content in others.items():
        files[_free_name(name, files)] = content
    return files


def _measurements(models: Mapping[str, DeliveredModel]) -> dict[str, bytes]:
    """The file of every latency sample, if there are any."""
    samples = {
        precision: (model.latency or {}).get(_SAMPLES) for precision, model in models.items() if _has_samples(model)
    }
    content = {"schema_version": SCHEMA_VERSION, _SAMPLES: samples}
    return {MEASUREMENTS: _json(content, MEASUREMENTS).encode()} if samples else {}


def _write(folder: Path, files: Mapping[str, bytes], golden: Mapping[str, Array], manifest: dict[str, Any]) -> None:
    """Writes all files, and last the manifest with their hashes."""
    with _new_folder(folder) as temporary:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        with (temporary / GOLDEN).open("wb") as stream:
            np.savez(stream, **golden)  # type: ignore[arg-type] # Its stub takes any name for `allow_pickle`.
        manifest["files"] = {path.name: _sha256(path.read_bytes()) for path in sorted(temporary.iterdir())}
        (temporary / MANIFEST).write_text(_json(manifest, MANIFEST), encoding="utf-8")


def verify_bundle(folder: Path) -> Bundle:
    """Reads a bundle and checks every file against its hash.

    Raises:
        RunError: when it cannot be read.
        ExportError: when a file is missing, damaged or was changed.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as e:
        raise RunError(f"{folder} is not a bundle: {e.strerror} ({MANIFEST})") from e
    except ValueError as e:
        raise ExportError(f"{folder / MANIFEST} is damaged: {reason(e)}") from e
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise ExportError(
            f"{folder} is of another version", expected=f"bundle schema {SCHEMA_VERSION}", received=f"{version}"
        )
    contents: dict[str, bytes] = {}
    files = manifest.get("files")
    if not isinstance(files, dict) or README not in files or any(Path(name).name != name for name in files):
        raise ExportError(f"{folder / MANIFEST} is damaged", expected="the hashes of the bundle's files under `files`")
    for name, expected in files.items():
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as e:
            raise ExportError(f"{folder / name}, which is part of the bundle, cannot be read: {e.strerror}") from e
        if _sha256(contents[name]) != expected:
            raise ExportError(f"{folder / name} was changed: its SHA-256 does not match the manifest")
    return Bundle(
        folder,
        manifest,
        contents,
        {precision: contents[name] for precision, name in MODEL_FILES.items() if name in contents},
    )


def replay_golden(bundle: Bundle) -> dict[str, float]:
    """Runs the golden image through every model of a bundle on this machine.

    Returns:
        The largest difference from the recorded outputs by precision, in real values.

    Raises:
        ExportError: when a model's outputs differ from the recorded ones by more than rounding.
    """
    differences = {}
    with np.load(bundle.folder / GOLDEN, allow_pickle=False) as golden:
        for precision, model in bundle.models.items():
            expected = golden[f"output_{precision}"]
            result = verify.input_output(model)[1]
            if result.scale is not None:
                expected = result.dequantize(expected)
            tolerance = verify.tolerance(result, expected)
            difference = float(np.abs(verify.run_tflite(model, golden["input"]) - expected).max())
            if not difference <= tolerance:
                raise ExportError(
                    f"{bundle.folder / MODEL_FILES[precision]}: outputs for the golden image differ from the recorded "
                    f"ones by {difference:.4g}",
                    expected=f"at most {tolerance:.4g}",
                )
            differences[precision] = difference
    return differences


# ---------------------------------------------------------------- the parts


def _check_outputs(section: BundleSection, result: verify.TensorInfo) -> None:
    expected = (1, *section.output_shape)
    if result.shape != expected:
        raise ExportError(
            "the model's output does not fit its task", expected=f"{list(expected)}", received=f"{list(result.shape)}"
        )


def _free_name(name: str, files: Mapping[str, bytes]) -> str:
    """The name of a task's own file: none of the bundle's names, and a plain one."""
    if name in (MANIFEST, README, GOLDEN, MEASUREMENTS) or name in files or not re.fullmatch(r"[\w-][\w.-]*", name):
        raise ExportError(f"invalid name of a task's file in a bundle: {name!r}", expected="a plain, unused file name")
    return name


def _golden(models: Mapping[str, bytes], image: Array, preprocessing: Preprocessing) -> dict[str, Array]:
    """The golden arrays: the image, the float input, and per model the input and output as its file stores them."""
    if image.dtype != np.uint8 or image.ndim != 3:
        raise DataError(
            "the golden image has the wrong shape or type",
            expected="uint8 [height, width, channels]",
            received=f"{image.dtype} {image.shape}",
        )
    batch = preprocessing.normalize(image[None])
    arrays: dict[str, Array] = {"image": image, "input": batch}
    for precision, model in models.items():
        source, result = verify.input_output(model)
        outputs = verify.run_tflite(model, batch)
        arrays[f"input_{precision}"] = source.quantize(batch)
        # Quantising the dequantised output gives back exactly what the file stored.
        arrays[f"output_{precision}"] = result.quantize(outputs)
    return arrays


def _describe(precision: str, model: DeliveredModel, metric: Metric) -> dict[str, Any]:
    source, result = verify.input_output(model.file)
    return {
        "file": MODEL_FILES[precision],
        "size_bytes": len(model.file),
        "input": asdict(source),
        "output": asdict(result),
        "operators": verify.operator_histogram(model.file),
        metric.name: model.quality,
        f"{metric.name}_interval": model.quality_interval,
        "latency": _without_samples(model),
        "on_device_check": model.on_device_check,
    }


def _has_samples(model: DeliveredModel) -> bool:
    return model.latency is not None and bool(model.latency.get(_SAMPLES))


def _without_samples(model: DeliveredModel) -> dict[str, Any] | None:
    """Its latency for the manifest, which people read: thousands of samples are beside it, and here only counted."""
    if model.latency is None:
        return None
    facts = {key: value for key, value in model.latency.items() if key != _SAMPLES}
    if _has_samples(model):
        facts["samples"] = {"file": MEASUREMENTS, "count": len(model.latency[_SAMPLES])}
    return facts


def _versions() -> dict[str, str]:
    versions = {"nas-edge": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json(value: Mapping[str, Any], name: str) -> str:
    text = json.dumps(_plain(value, name), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    # A list of numbers, as of thousands of samples, takes one line; no text has a line break of its own to be taken for
    # one, because JSON escapes them.
    return re.sub(r"\[\n[\s0-9.eE+,-]*\n\s*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def _plain(value: Any, path: str) -> Any:
    """`value` as JSON types; an error names the path of what is not a JSON value."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ExportError(
            f"{path} cannot be recorded", expected="a finite number, or None if it is unknown", received=f"{value}"
        )
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ExportError(f"{path} cannot be recorded", expected="a JSON value", received=f"{type(value).__name__}")


def check_new_bundle(folder: Path) -> None:
    """Raises RunError, touching nothing, unless `folder` is empty or does not exist yet."""
    try:
        used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as e:
        raise BundleFolderError(f"cannot read {folder}: {e.strerror}", fix="choose another folder") from None
    if used:
        raise BundleFolderError(f"{folder} already exists", fix="choose another folder or remove it first")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `folder` only if the block ends without an error."""
    check_new_bundle(folder)
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private; a bundle is meant to be shared
        temporary.replace(folder)
    except OSError as e:
        raise RunError(f"cannot write {folder}: {e.strerror or e}") from e
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _readme(manifest: Mapping[str, Any], precision: str, section: BundleSection, metric: Metric) -> str:
    model = manifest["models"][precision]
    height, width, channels = model["input"]["shape"][1:]
    rules = manifest["preprocessing"]
    source, result = model["input"], model["output"]
    details = manifest["details"]
    colours = "1 channel" if channels == 1 else f"{channels} channels"
    models, interval = manifest["models"].items(), f"{metric.name}_interval"
    slower = slower_than_float({name: _latency_ms(facts) for name, facts in models})
    checked = details.get("hardware_check")
    measured_on = f"The latency was measured on {details['device']}. " if "device" in details else ""
    lines = [
        f"# {manifest['space']} {section.title}, {precision}",
        "",
        f"`{model['file']}` {section.says}. `manifest.json` holds the same facts in machine-readable form.",
        "",
        f"| file | bytes | test {metric.name} | latency, ms |",
        "|---|---|---|---|",
        *(_table_row(facts, details.get("test_images"), metric) for facts in manifest["models"].values()),
        "",
        *(("In brackets: 95% intervals.", "") if any(facts[interval] for _, facts in models) else ()),
        *((f"{slower[0].upper()}{slower[1:]}.", "") if slower else ()),
        f"{measured_on}The measurement conditions (runtime, threads ...) are in the manifest.",
        *([] if checked is None else ["", f"`{model['file']}` was {HardwareCheck.from_json(checked)}."]),
        "",
        "## Feeding the model",
        "",
        f"1. Crop to the {rules['crop']}, resize to {height} x {width} ({rules['resize']}), {colours}: "
        f"{rules['colour']}.",
        f"2. `value = (pixel - mean) / std` with pixels 0..255, mean {_numbers(rules['mean'])}, "
        f"std {_numbers(rules['std'])}.",
    ]
    if source["scale"] is not None:
        lines += [
            f"3. Quantise: `stored = clip(round(value / {source['scale']!r}) + ({source['zero_point']}), "
            f"{_limits(source['dtype'])})`, {source['dtype']} `[1, {height}, {width}, {channels}]`.",
            f"4. Run, then dequantise: `{section.output} = {result['scale']!r} * (stored - ({result['zero_point']}))`; "
            f"{section.answer}.",
        ]
    else:
        lines.append(f"3. Run on float32 `[1, {height}, {width}, {channels}]`; {section.answer}.")
    lines += [
        "",
        "## Checking an integration",
        "",
        f"`{GOLDEN}` holds one image (`image`), the normalised input, and for each model its input and output as "
        "stored (`input_PRECISION`, `output_PRECISION`), computed with XNNPACK, TFLite's default kernels. Your app "
        f"should get the same output to within {verify.INT8_TOLERANCE_STEPS} quantisation steps for int8. Other "
        "kernels (TFLite built without XNNPACK, a GPU, an NPU) round differently: expect the same answer, and outputs "
        "within about ten steps. In Python, from this folder (`pip install ai-edge-litert numpy`):",
        "",
        "```python",
        _snippet(model, rules, precision, section),
        "```",
        "",
    ]
    return "\n".join(lines)


def _snippet(model: Mapping[str, Any], rules: Mapping[str, Any], precision: str, section: BundleSection) -> str:
    quantize = dequantize = ""
    if model["input"]["scale"] is not None:
        limits = _limits(model["input"]["dtype"])
        quantize = (
            'scale, zero_point = source["quantization"]\n'
            f"values = np.clip(np.rint(values / scale) + zero_point, {limits}).astype(np.{model['input']['dtype']})\n"
        )
        dequantize = (
            'scale, zero_point = result["quantization"]\noutputs = scale * (outputs.astype(np.float32) - zero_point)\n'
        )
    return (
        "import numpy as np\n"
        "from ai_edge_litert.interpreter import Interpreter\n\n"
        f'golden = np.load("{GOLDEN}")\n'
        f'interpreter = Interpreter("{model["file"]}")\n'
        "interpreter.allocate_tensors()\n"
        "source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]\n\n"
        'pixels = golden["image"].astype(np.float32)\n'
        f"values = (pixels - np.float32({_numbers(rules['mean'])})) / np.float32({_numbers(rules['std'])})\n"
        f"{quantize}"
        'interpreter.set_tensor(source["index"], values[None])\n'
        "interpreter.invoke()\n"
        'outputs = interpreter.get_tensor(result["index"])[0]\n'
        f'difference = np.abs(outputs.astype(np.float32) - golden["output_{precision}"][0].astype(np.float32)).max()\n'
        f"{dequantize}"
        f"{section.snippet}\n"
        'print("difference from golden:", difference)'
    )


def _limits(dtype: str) -> str:
    """Least and greatest value of an integer type."""
    limits = np.iinfo(dtype)
    return f"{limits.min}, {limits.max}"


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(repr(float(value)) for value in values)}]"


def _table_row(facts: Mapping[str, Any], test_images: int | None, metric: Metric) -> str:
    of = "" if test_images is None else f" of {test_images} images"
    quality, interval = facts[metric.name], f"{metric.name}_interval"
    tested = "" if quality is None else f"{with_interval(quality, facts[interval], metric.form)}{of}"
    latency, latency_ms = facts["latency"] or {}, _latency_ms(facts)
    shown = "" if latency_ms is None else ms_text(latency_ms)
    if latency.get("verdict", "ok") != "ok":
        shown = f"{shown} ({latency['verdict']})".strip()
    return f"| `{facts['file']}` | {facts['size_bytes']} | {tested} | {shown} |"


def _latency_ms(facts: Mapping[str, Any]) -> float | None:
    """Latency of a model of a manifest; earlier ones have the median of what was measured in one go."""
    latency = facts["latency"] or {}
    latency_ms: float | None = latency.get("latency_ms", latency.get("median_ms"))
    return latency_ms
