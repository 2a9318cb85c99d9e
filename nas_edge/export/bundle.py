"""The bundle: the folder an app team receives, complete and checkable.

    model_int8.tflite     full integer (absent when only float32 is delivered)
    model_float32.tflite  the same network before quantisation
    labels.txt            one class name per line, in the order of the outputs
    golden.npz            one image and what each model answers, to check an integration with
    README.md             how to feed the model, with a snippet that runs as is
    manifest.json         hashes, architecture, preprocessing, quantisation, accuracy, measured latency, versions

A bundle is written to a temporary folder beside its place and renamed, so it is whole or not there.
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
from nas_edge.text import slower_int8

Array: TypeAlias = "np.ndarray[Any, Any]"

SCHEMA_VERSION = 1

MANIFEST = "manifest.json"
LABELS = "labels.txt"
GOLDEN = "golden.npz"
README = "README.md"
MODEL_FILES = {"float32": "model_float32.tflite", "int8": "model_int8.tflite"}

_PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy")


class BundleFolderError(RunError):
    """The folder named for a bundle cannot be used."""

    exit_code = 2


@dataclass(frozen=True)
class DeliveredModel:
    """One model file and what is known of it.

    Attributes:
        file: the TFLite file's bytes.
        accuracy: on the test split, 0 to 1, of exactly this file; None if not tested.
        latency: the measurement with its conditions (device, runtime, threads ...), as JSON values; the README shows
            its `median_ms`. None if not measured.
        on_device_check: what came of running it on the device, as JSON values; None if that was not tried.
    """

    file: bytes
    accuracy: float | None = None
    latency: Mapping[str, Any] | None = None
    on_device_check: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Bundle:
    """A bundle read back.

    Attributes:
        folder: where it is.
        manifest: the parsed `manifest.json`.
        labels: class names, in the order of the outputs.
        models: the TFLite files' bytes by precision, `float32` and perhaps `int8`.
    """

    folder: Path
    manifest: dict[str, Any]
    labels: tuple[str, ...]
    models: dict[str, bytes]


def write_bundle(
    folder: Path,
    *,
    float32: DeliveredModel,
    int8: DeliveredModel | None,
    labels: Sequence[str],
    preprocessing: Preprocessing,
    golden_image: Array,
    space: str,
    architecture: str,
    decisions: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
    created: datetime | None = None,
) -> Bundle:
    """Writes a bundle. Equal arguments give equal bytes.

    Args:
        folder: must not exist, or be empty.
        float32: the float model.
        int8: the quantised model; refused unless every operator is an integer one.
        labels: class names, one per output.
        preprocessing: what makes model input of pixels.
        golden_image: uint8 `[height, width, channels]`, already as large as the input.
        space: the search space's name, or what else the network is.
        architecture: its text form in that space.
        decisions: the chosen value by decision path.
        details: more for the manifest, as JSON values: seed, data, calibration images ...
        created: the time to record; now by default.

    Returns:
        The bundle, read back and verified.

    Raises:
        ExportError: when a model, the labels or a manifest value is not what it should be.
        DataError: when the golden image does not fit the models.
        RunError: when the folder is taken or cannot be written.
    """
    models = {"float32": float32} | ({"int8": int8} if int8 is not None else {})
    if int8 is not None:
        verify.check_int8(int8.file)
    for model in models.values():
        _check_labels(labels, verify.input_output(model.file)[1])
    golden = _golden({precision: model.file for precision, model in models.items()}, golden_image, preprocessing)
    files = {MODEL_FILES[precision]: model.file for precision, model in models.items()}
    files[LABELS] = "".join(f"{label}\n" for label in labels).encode()
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "created": (created or datetime.now(timezone.utc)).isoformat(timespec="seconds"),
        "space": space,
        "architecture": architecture,
        "decisions": decisions,
        "classes": len(labels),
        "preprocessing": preprocessing.manifest(),
        "models": {precision: _describe(precision, model) for precision, model in models.items()},
        "versions": _versions(),
        "details": details or {},
    }
    files[README] = _readme(manifest, "int8" if int8 is not None else "float32").encode()
    with _new_folder(folder) as temporary:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        with (temporary / GOLDEN).open("wb") as stream:
            np.savez(stream, **golden)  # type: ignore[arg-type] # Its stub takes any name for `allow_pickle`.
        manifest["files"] = {path.name: _sha256(path.read_bytes()) for path in sorted(temporary.iterdir())}
        (temporary / MANIFEST).write_text(_json(manifest), encoding="utf-8")
    return verify_bundle(folder)


def verify_bundle(folder: Path) -> Bundle:
    """Reads a bundle and checks every file against its hash.

    Raises:
        RunError: when it cannot be read.
        ExportError: when a file is missing or is not the one that was written.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as e:
        raise RunError(f"{folder} is not a bundle: {e.strerror} ({MANIFEST})") from e
    except ValueError as e:
        raise ExportError(f"{folder / MANIFEST} is damaged: {e}") from e
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise ExportError(f"{folder}: expected bundle schema version {SCHEMA_VERSION}, received {version}")
    contents: dict[str, bytes] = {}
    for name, expected in manifest["files"].items():
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as e:
            raise ExportError(f"{folder / name} of the bundle cannot be read: {e.strerror}") from e
        if _sha256(contents[name]) != expected:
            raise ExportError(f"{folder / name} was changed: its SHA-256 is not the manifest's")
    return Bundle(
        folder,
        manifest,
        tuple(contents[LABELS].decode().splitlines()),
        {precision: contents[name] for precision, name in MODEL_FILES.items() if name in contents},
    )


def replay_golden(bundle: Bundle) -> dict[str, float]:
    """Runs the golden image through every model of a bundle on this machine.

    Returns:
        The largest difference from the recorded outputs by precision, in real values.

    Raises:
        ExportError: when a model answers otherwise than recorded, beyond rounding.
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
                    f"{bundle.folder / MODEL_FILES[precision]} answers the golden image otherwise than recorded: "
                    f"difference {difference:.4g}, expected at most {tolerance:.4g}"
                )
            differences[precision] = difference
    return differences


# ---------------------------------------------------------------- the parts


def _check_labels(labels: Sequence[str], result: verify.TensorInfo) -> None:
    if result.shape != (1, len(labels)):
        raise ExportError(f"the model's output has shape {list(result.shape)}, but there are {len(labels)} labels")
    for label in labels:
        if not label or label.splitlines() != [label]:
            raise ExportError(f"label {label!r} does not fit on one line of {LABELS}")


def _golden(models: Mapping[str, bytes], image: Array, preprocessing: Preprocessing) -> dict[str, Array]:
    """The golden arrays: the image, the float input, and per model the input and output as its file stores them."""
    if image.dtype != np.uint8 or image.ndim != 3:
        raise DataError(f"golden image: expected uint8 [height, width, channels], received {image.dtype} {image.shape}")
    batch = preprocessing.normalize(image[None])
    arrays: dict[str, Array] = {"image": image, "input": batch}
    for precision, model in models.items():
        source, result = verify.input_output(model)
        outputs = verify.run_tflite(model, batch)
        arrays[f"input_{precision}"] = source.quantize(batch)
        # Quantising the dequantised output gives back exactly what the file stored.
        arrays[f"output_{precision}"] = result.quantize(outputs)
    return arrays


def _describe(precision: str, model: DeliveredModel) -> dict[str, Any]:
    source, result = verify.input_output(model.file)
    return {
        "file": MODEL_FILES[precision],
        "size_bytes": len(model.file),
        "input": asdict(source),
        "output": asdict(result),
        "operators": verify.operator_histogram(model.file),
        "accuracy": model.accuracy,
        "latency": model.latency,
        "on_device_check": model.on_device_check,
    }


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


def _json(value: Mapping[str, Any]) -> str:
    text = json.dumps(_plain(value, MANIFEST), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    # A list of numbers, as of thousands of samples, takes one line; no text has a line break of its own to be taken for
    # one, because JSON escapes them.
    return re.sub(r"\[\n[\s0-9.eE+,-]*\n\s*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def _plain(value: Any, path: str) -> Any:
    """`value` as JSON knows it; what is not a JSON value is named by its path."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ExportError(f"{path} is {value}; a manifest holds numbers, or null for what is not known")
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ExportError(f"{path}: expected a JSON value, received {type(value).__name__}")


def check_new_bundle(folder: Path) -> None:
    """Raises RunError, touching nothing, unless `folder` is empty or does not exist yet."""
    try:
        used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as e:
        raise BundleFolderError(f"cannot look into {folder}: {e.strerror}; name another folder") from None
    if used:
        raise BundleFolderError(f"{folder} already exists; name another folder or remove it first")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes its place only when the block ends without an error."""
    check_new_bundle(folder)
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private; a bundle is to be handed over
        temporary.replace(folder)
    except OSError as e:
        raise RunError(f"cannot write {folder}: {e.strerror or e}") from e
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _readme(manifest: Mapping[str, Any], precision: str) -> str:
    model = manifest["models"][precision]
    height, width, channels = model["input"]["shape"][1:]
    rules = manifest["preprocessing"]
    source, result = model["input"], model["output"]
    details = manifest["details"]
    colours = "1 channel" if channels == 1 else f"{channels} channels"
    models = manifest["models"].items()
    slower = slower_int8({name: (facts["latency"] or {}).get("median_ms") for name, facts in models})
    measured_on = f"The latency was measured on {details['device']}. " if "device" in details else ""
    lines = [
        f"# {manifest['space']} image classifier, {precision}",
        "",
        f"`{model['file']}` tells {manifest['classes']} classes apart (`{LABELS}`, one per line, in the order of the "
        "outputs). Everything a machine needs to know stands in `manifest.json`.",
        "",
        "| file | bytes | test accuracy | latency, ms |",
        "|---|---|---|---|",
        *(_table_row(facts, details.get("test_images")) for facts in manifest["models"].values()),
        "",
        *((f"{slower[0].upper()}{slower[1:]}.", "") if slower else ()),
        f"{measured_on}The conditions of the latency (runtime, threads ...) are in the manifest.",
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
            f"3. Quantise: `stored = clip(round(value / {source['scale']!r}) + ({source['zero_point']}), -128, 127)`, "
            f"int8 `[1, {height}, {width}, {channels}]`.",
            f"4. Run, then dequantise: `logit = {result['scale']!r} * (stored - ({result['zero_point']}))`; "
            "the largest is the answer.",
        ]
    else:
        lines.append(f"3. Run on float32 `[1, {height}, {width}, {channels}]`; the largest output is the answer.")
    lines += [
        "",
        "## Checking an integration",
        "",
        f"`{GOLDEN}` holds one picture (`image`), the normalised input, and per model what goes in and comes out as "
        "stored (`input_int8`, `output_int8`, ...), with the XNNPACK kernels that TFLite uses by default. Your "
        "app must get the same output, "
        f"give or take {verify.INT8_TOLERANCE_STEPS} steps of rounding for int8. Other kernels "
        "(TFLite built without XNNPACK, a GPU, an NPU) round otherwise: there the answer must be the same, and the "
        "outputs within some ten steps. In Python, started in this folder (`pip install ai-edge-litert numpy`):",
        "",
        "```python",
        _snippet(model, rules, precision),
        "```",
        "",
    ]
    return "\n".join(lines)


def _snippet(model: Mapping[str, Any], rules: Mapping[str, Any], precision: str) -> str:
    quantize = dequantize = ""
    if model["input"]["scale"] is not None:
        quantize = (
            'scale, zero_point = source["quantization"]\n'
            "values = np.clip(np.rint(values / scale) + zero_point, -128, 127).astype(np.int8)\n"
        )
        dequantize = (
            'scale, zero_point = result["quantization"]\nlogits = scale * (logits.astype(np.float32) - zero_point)\n'
        )
    return (
        "import numpy as np\n"
        "from ai_edge_litert.interpreter import Interpreter\n\n"
        f'golden = np.load("{GOLDEN}")\n'
        f'labels = open("{LABELS}", encoding="utf-8").read().splitlines()\n'
        f'interpreter = Interpreter("{model["file"]}")\n'
        "interpreter.allocate_tensors()\n"
        "source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]\n\n"
        'pixels = golden["image"].astype(np.float32)\n'
        f"values = (pixels - np.float32({_numbers(rules['mean'])})) / np.float32({_numbers(rules['std'])})\n"
        f"{quantize}"
        'interpreter.set_tensor(source["index"], values[None])\n'
        "interpreter.invoke()\n"
        'logits = interpreter.get_tensor(result["index"])[0]\n'
        f'difference = np.abs(logits.astype(np.float32) - golden["output_{precision}"][0].astype(np.float32)).max()\n'
        f"{dequantize}"
        'print("answer:", labels[int(logits.argmax())], "difference from golden:", difference)'
    )


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(repr(float(value)) for value in values)}]"


def _table_row(facts: Mapping[str, Any], test_images: int | None) -> str:
    of = "" if test_images is None else f" of {test_images} images"
    accuracy = "" if facts["accuracy"] is None else f"{facts['accuracy']:.2%}{of}"
    latency = facts["latency"] or {}
    shown = f"{latency['median_ms']:.3f}" if latency.get("median_ms") is not None else ""
    if latency.get("verdict", "ok") != "ok":
        shown = f"{shown} ({latency['verdict']})".strip()
    return f"| `{facts['file']}` | {facts['size_bytes']} | {accuracy} | {shown} |"
