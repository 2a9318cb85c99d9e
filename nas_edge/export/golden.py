"""Golden examples: of the test set, what preprocessing makes of them, and what each model of a bundle answers.

    golden/0.png                   an image, as an app may come across it; other inputs have other files, see `inputs`
    golden/0_input.npy             preprocessed, float32 [1, height, width, channels]
    golden/0_int8_xnnpack.npy      the output of `model_int8.tflite` as the file stores it, by XNNPACK's kernels
    golden/0_int8_builtin.npy      the same by TFLite's built-in kernels

Both families of kernels are recorded, since they round differently, see `on_device.py`: a runtime has to agree with one
of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from nas_edge.data.preprocessing import Preprocessing
from nas_edge.errors import DataError, ExportError
from nas_edge.export import verify
from nas_edge.export.inputs import INPUTS

Array: TypeAlias = "np.ndarray[Any, Any]"
# Runs a file once, on inputs as it stores them, and returns its outputs; as `DeviceAgent.run`.
RunFile: TypeAlias = Callable[[bytes, Sequence[Array]], list[Array]]

FOLDER = "golden"
_FILE_NAMES: Mapping[verify.Kernels, str] = {"XNNPACK": "xnnpack", "built-in": "builtin"}


def example_name(number: int, suffix: str) -> str:
    """File of an example, within the bundle."""
    return f"{FOLDER}/{number}{suffix}"


def golden_files(
    models: Mapping[str, bytes], examples: Sequence[Any], preprocessing: Preprocessing
) -> dict[str, bytes]:
    """Makes the examples.

    Args:
        models: TFLite files by precision.
        examples: as they are stored.
        preprocessing: turns them into inputs.

    Returns:
        Files by their names within the bundle.

    Raises:
        DataError: when there is no example, or one does not fit the models.
        ExportError: when a model cannot be run.
    """
    if len(examples) == 0:
        raise DataError("no golden examples", expected="at least one")
    kind = INPUTS[preprocessing.kind]
    kept = [kind.golden(example, preprocessing) for example in examples]
    inputs = np.concatenate([preprocessing([example]) for example, _ in kept])
    files = {}
    for number, (_, content) in enumerate(kept):
        files[example_name(number, kind.suffix)] = content
        files[f"{FOLDER}/{number}_input.npy"] = _npy(inputs[number : number + 1])
    for precision, model in models.items():
        result = verify.input_output(model)[1]
        for kernels, name in _FILE_NAMES.items():
            # Quantising the dequantised output gives back exactly what the file stored.
            stored = result.quantize(verify.run_tflite(model, inputs, kernels=kernels))
            for number in range(len(examples)):
                files[f"{FOLDER}/{number}_{precision}_{name}.npy"] = _npy(stored[number : number + 1])
    return files


def tolerance_of(model: bytes, precision: str, files: Mapping[str, bytes]) -> float:
    """The largest difference from the recorded outputs that an app may see, in real values, of the same kernels."""
    result = verify.input_output(model)[1]
    names = [name for name in sorted(files) if name.startswith(f"{FOLDER}/") and f"_{precision}_" in name]
    recorded = [result.dequantize(load_array(files, name)) for name in names]
    return verify.tolerance(result, np.concatenate(recorded))


def differences(
    precision: str,
    model: bytes,
    source: verify.TensorInfo,
    result: verify.TensorInfo,
    count: int,
    files: Mapping[str, bytes],
    run: RunFile,
) -> dict[verify.Kernels, float]:
    """How much a runtime's outputs differ from the recorded ones at most, by family of kernels, in real values.

    Args:
        precision: of the model.
        model: the TFLite file, which is not looked into here: it may be anybody's.
        source: its input.
        result: its output.
        count: number of examples.
        files: of the bundle, by name.
        run: see `RunFile`.

    Raises:
        ExportError: when a recorded array is missing or damaged, or has another shape than the model's.
        DeviceError: when the device cannot run the file.
    """
    found: dict[verify.Kernels, float] = dict.fromkeys(_FILE_NAMES, 0.0)
    for number in range(count):
        values = load_array(files, f"{FOLDER}/{number}_input.npy")
        if values.shape != source.shape:
            raise ExportError(
                f"{FOLDER}/{number}_input.npy does not fit the model",
                expected=f"{list(source.shape)}",
                received=f"{list(values.shape)}",
            )
        (stored,) = run(model, [source.quantize(values)])
        for kernels, name in _FILE_NAMES.items():
            recorded = load_array(files, f"{FOLDER}/{number}_{precision}_{name}.npy")
            if recorded.shape != np.shape(stored):
                raise ExportError(
                    f"{FOLDER}/{number}_{precision}_{name}.npy does not fit the model",
                    expected=f"{list(np.shape(stored))}",
                    received=f"{list(recorded.shape)}",
                )
            difference = float(np.abs(result.dequantize(stored) - result.dequantize(recorded)).max())
            found[kernels] = max(found[kernels], difference)
    return found


def run_here(model: bytes, inputs: Sequence[Array]) -> list[Array]:
    """Runs a file in this process, see `RunFile`."""
    source, result = verify.input_output(model)
    return [result.quantize(verify.run_tflite(model, source.dequantize(inputs[0])))]


def load_array(files: Mapping[str, bytes], name: str) -> Array:
    """An array of a bundle.

    Raises:
        ExportError: when it is missing or damaged.
    """
    try:
        # Not `load`, which takes archives for arrays.
        array: Array = np.lib.format.read_array(io.BytesIO(files[name]), allow_pickle=False)
    except KeyError:
        raise ExportError(f"{name} is missing from the bundle") from None
    except (ValueError, OSError, EOFError) as error:
        raise ExportError(f"{name} is damaged: {error}") from error
    return array


def _npy(array: Array) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()
