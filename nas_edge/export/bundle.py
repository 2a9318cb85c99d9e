"""The bundle: the folder an app team receives, complete and checkable.

    model_int8.tflite     what is delivered, named after its precision (absent when only float32 is delivered)
    model_float32.tflite  the same network before quantisation
    labels.txt            of a classifier: one class name per line; other tasks have other files, or none
    golden/               examples, what preprocessing makes of them and what each model answers, see `golden.py`
    README.md             how to feed the model
    MODEL_CARD.md         what it is for, what it was trained with, how good it is for each class, what was not tested
    example_python.py     runs the model on a file; NumPy and a TFLite runtime suffice, and Pillow for images
    preprocessing.py      makes inputs as in training, for the two programs
    example_android/      a Kotlin module that does both, with tests on the golden examples
    verify.py             checks all of this on any machine
    measurements.json     every latency sample, in ms, behind the manifest's statistics (absent when none was taken)
    manifest.json         hashes, architecture, preprocessing, quantisation, quality, measured latency, versions
    SHA256SUMS            of all other files, for `sha256sum -c`

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
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from nas_edge import __version__
from nas_edge.data.preprocessing import Preprocessing
from nas_edge.errors import ExportError, RunError
from nas_edge.export import verify
from nas_edge.export.bundle_readme import bundle_readme
from nas_edge.export.example_files import ANDROID, EXAMPLE, PREPROCESSING, VERIFY, example_files
from nas_edge.export.golden import FOLDER, RunFile, differences, example_name, golden_files, run_here, tolerance_of
from nas_edge.export.inputs import INPUTS
from nas_edge.export.model_card import model_card
from nas_edge.formatting import reason
from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.regular_file import open_regular
from nas_edge.tasks.base import BundleSection, Metric

SCHEMA_VERSION = 2

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
README, CARD = "README.md", "MODEL_CARD.md"
MEASUREMENTS = "measurements.json"
MODEL_FILES = {precision: f"model_{precision}.tflite" for precision in PRECISIONS}

# Names that no task's file may have.
_RESERVED = (MANIFEST, README, CARD, MEASUREMENTS, SUMS, FOLDER, EXAMPLE, PREPROCESSING, VERIFY, ANDROID)

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
        breakdown: what else the task tells, as JSON values, for example a confusion matrix.
    """

    file: bytes
    quality: float | None = None
    latency: Mapping[str, Any] | None = None
    on_device_check: Mapping[str, Any] | None = None
    quality_interval: tuple[float, float] | None = None
    breakdown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bundle:
    """A bundle read from disk.

    Attributes:
        folder: its path.
        manifest: the parsed `manifest.json`.
        files: every file's bytes but those of the manifest and `SHA256SUMS`, by name; which there are depends on the
            task.
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
    golden_examples: Sequence[Any],
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
        preprocessing: turns examples into model input.
        golden_examples: as they are stored.
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
        DataError: when a golden example does not fit the models.
        RunError: when the folder already exists or cannot be written.
    """
    _check_models(models, section)
    golden = golden_files({name: model.file for name, model in models.items()}, golden_examples, preprocessing)
    manifest = {
        **section.manifest,
        "schema_version": SCHEMA_VERSION,
        "created": (created or datetime.now(timezone.utc)).isoformat(timespec="seconds"),
        **{"space": space, "architecture": architecture, "decisions": decisions},
        "preprocessing": preprocessing.manifest(),
        "model": MODEL_FILES[precision],
        "models": {name: _describe(name, model, metric, golden) for name, model in models.items()},
        "golden": [example_name(number, INPUTS[preprocessing.kind].suffix) for number in range(len(golden_examples))],
        "versions": _versions(),
        "details": details or {},
    }
    files = _files(models, {**section.files, **(more_files or {})}) | golden | _measurements(models)
    texts = {README: bundle_readme, CARD: model_card}
    files |= {name: text(manifest, precision, section, metric).encode() for name, text in texts.items()}
    _write(folder, files | example_files(manifest, precision, section), manifest)
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


def _write(folder: Path, files: Mapping[str, bytes], manifest: dict[str, Any]) -> None:
    """Writes all files, then the manifest with their hashes, and last the hashes of all."""
    manifest["files"] = {name: _sha256(content) for name, content in sorted(files.items())}
    described = {**files, MANIFEST: _json(manifest, MANIFEST).encode()}
    with new_folder(folder) as temporary:
        for name, content in {**described, SUMS: sums_of(described)}.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def sums_of(files: Mapping[str, bytes]) -> bytes:
    """The hashes of files in the form of `sha256sum`."""
    return "".join(f"{_sha256(content)}  {name}\n" for name, content in sorted(files.items())).encode()


def verify_bundle(folder: Path) -> Bundle:
    """Reads a bundle and checks every file against its hash.

    Raises:
        RunError: when it cannot be read.
        ExportError: when a file is missing, damaged or was changed.
    """
    try:
        described = _read(folder / MANIFEST)
        manifest = json.loads(described)
    except OSError as e:
        raise BundleFolderError(f"{folder} is not a bundle: {e.strerror} ({MANIFEST})") from e
    except (ValueError, RecursionError) as e:
        raise ExportError(f"{folder / MANIFEST} is damaged: {reason(e)}") from e
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise ExportError(
            f"{folder} is of another version", expected=f"bundle schema {SCHEMA_VERSION}", received=f"{version}"
        )
    sums = read_part(folder / SUMS)
    if sums_of({MANIFEST: described}).strip() not in sums.splitlines():
        raise ExportError(f"{folder / MANIFEST} or {folder / SUMS} was changed: they do not match")
    contents: dict[str, bytes] = {}
    files = manifest.get("files")
    if not isinstance(files, dict) or README not in files or not all(map(_is_inside, files)):
        raise ExportError(f"{folder / MANIFEST} is damaged", expected="the hashes of the bundle's files under `files`")
    for name, expected in files.items():
        contents[name] = read_part(folder / name)
        if _sha256(contents[name]) != expected:
            raise ExportError(f"{folder / name} was changed: its SHA-256 does not match the manifest")
    if sums != sums_of({**contents, MANIFEST: described}):
        raise ExportError(f"{folder / SUMS} was changed: it does not match the manifest")
    return Bundle(
        folder,
        manifest,
        contents,
        {precision: contents[name] for precision, name in MODEL_FILES.items() if name in contents},
    )


def replay_golden(bundle: Bundle, run: RunFile = run_here) -> dict[str, float]:
    """Runs the golden examples through every model of a bundle.

    Args:
        bundle: read and verified.
        run: what runs a file; by default this process, which is for models of one's own only.

    Returns:
        The largest difference from the recorded outputs of the nearest kernels by precision, in real values.

    Raises:
        ExportError: when a model's outputs differ from the recorded ones by more than rounding.
        DeviceError: when the device cannot run a file.
    """
    found = {}
    golden = bundle.manifest.get("golden")
    count = len(golden) if isinstance(golden, list) else 0
    if not count or not bundle.models:
        raise ExportError(f"{bundle.folder / MANIFEST} is damaged", expected="a model, and examples under `golden`")
    for precision, model in bundle.models.items():
        source, result, tolerance = _recorded_facts(bundle, precision)
        nearest = min(differences(precision, model, source, result, count, bundle.files, run).values())
        if not nearest <= tolerance:
            raise ExportError(
                f"{bundle.folder / MODEL_FILES[precision]}: outputs for the golden examples differ from the recorded "
                f"ones by {nearest:.4g}",
                expected=f"at most {tolerance:.4g}",
            )
        found[precision] = nearest
    return found


# ---------------------------------------------------------------- the parts


def _check_outputs(section: BundleSection, result: verify.TensorInfo) -> None:
    expected = (1, *section.output_shape)
    if result.shape != expected:
        raise ExportError(
            "the model's output does not fit its task", expected=f"{list(expected)}", received=f"{list(result.shape)}"
        )


def _free_name(name: str, files: Mapping[str, bytes]) -> str:
    """The name of a task's own file: none of the bundle's names, and a plain one."""
    if name in _RESERVED or name in files or not re.fullmatch(r"[\w-][\w.-]*", name):
        raise ExportError(f"invalid name of a task's file in a bundle: {name!r}", expected="a plain, unused file name")
    return name


def _recorded_facts(bundle: Bundle, precision: str) -> tuple[verify.TensorInfo, verify.TensorInfo, float]:
    """Input and output of a model, and how far its outputs may be from the recorded ones, by the manifest."""
    try:
        facts = bundle.manifest["models"][precision]
        source, result = (verify.TensorInfo.from_json(facts[key]) for key in ("input", "output"))
        tolerance = float(facts["tolerance"])
    except (KeyError, TypeError, ValueError) as e:
        raise ExportError(f"{bundle.folder / MANIFEST} is damaged: models.{precision}: {reason(e)}") from e
    return source, result, tolerance


def _is_inside(name: str) -> bool:
    """Whether a name, with slashes, is that of a file inside the bundle."""
    path = PurePosixPath(name)
    return str(path) == name and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _read(path: Path) -> bytes:
    with open_regular(path) as stream:
        return stream.read()


def read_part(path: Path) -> bytes:
    """A file that belongs to a bundle.

    Raises:
        ExportError: when it is missing or cannot be read.
    """
    try:
        return _read(path)
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else e
        raise ExportError(f"{path}, which is part of the bundle, cannot be read: {why}") from e


def _describe(precision: str, model: DeliveredModel, metric: Metric, golden: Mapping[str, bytes]) -> dict[str, Any]:
    source, result = verify.input_output(model.file)
    return {
        "file": MODEL_FILES[precision],
        "size_bytes": len(model.file),
        "input": asdict(source),
        "output": asdict(result),
        "operators": verify.operator_histogram(model.file),
        "tolerance": tolerance_of(model.file, precision, golden),
        metric.name: model.quality,
        f"{metric.name}_interval": model.quality_interval,
        "breakdown": model.breakdown,
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
def new_folder(folder: Path) -> Iterator[Path]:
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
