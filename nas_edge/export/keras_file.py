"""A `.keras` file that somebody else made: what it holds, checked before Keras reads it, and its model.

Such a file is untrusted. To be read in a child process only, see `nas_edge.keras_export`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_edge.errors import ExportError
from nas_edge.formatting import reason

if TYPE_CHECKING:
    import keras

# Of the archive, unpacked: the largest published image networks have a tenth of it.
_MOST_BYTES = 4 * 2**30
_MOST_CONFIG_BYTES = 64 * 2**20
_CONFIG = "config.json"
_FIX = 'save it with model.save("NAME.keras")'


def load_keras_file(path: Path) -> keras.Model:
    """Loads a model of one image and one output, of Keras' own layers.

    Raises:
        ExportError: saying why the file is refused, and which layer is the reason.
    """
    check_config(read_config(path), path.name)
    import keras

    from nas_edge.networks import keras_functions as keras_functions  # registers them

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever the file's content makes Keras raise
        raise ExportError(f"Keras cannot load {path.name}: {_first_line(error)}") from None
    _check_ends(model, path.name)
    return model


def read_config(path: Path) -> dict[str, Any]:
    """The description of the model in a `.keras` file; nothing else of it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
            if total > _MOST_BYTES or archive.getinfo(_CONFIG).file_size > _MOST_CONFIG_BYTES:
                raise ExportError(f"{path.name} is refused: it unpacks to {total} bytes")
            config = json.loads(archive.read(_CONFIG))
    except OSError as error:
        raise ExportError(f"cannot read {path.name}: {error.strerror}") from None
    except (KeyError, zipfile.BadZipFile, ValueError, RecursionError) as error:
        raise ExportError(f"{path.name} is not a model that Keras 3 saved ({reason(error)})", fix=_FIX) from None
    if not isinstance(config, dict):
        raise ExportError(f"{path.name} is not a model that Keras 3 saved", fix=_FIX)
    return config


def check_config(config: Mapping[str, Any], file: str) -> None:
    """Refuses what cannot be exported without the code of whoever made it.

    Args:
        config: of a file.
        file: its name.

    Raises:
        ExportError: with the reason and the name of the layer.
    """
    if not _is_keras(config):
        raise ExportError(
            f"{file} is refused: its model is of the class {_class(config)}, a subclassed model, whose code is not in "
            "the file",
            fix="build it as a functional model (keras.Model(inputs, outputs))",
        )
    for layer, found in _layers(config, ""):
        if found.get("class_name") == "Lambda":
            raise ExportError(
                f"{file} is refused: its layer {layer!r} is a Lambda, whose code would be run",
                fix="use a layer of Keras instead",
            )
        if not _is_keras(found):
            raise ExportError(
                f"{file} is refused: its layer {layer!r} needs {_class(found)}, whose code is not in the file",
                fix="use layers of Keras only, or convert it to TFLite where that code is",
            )


def _layers(config: Any, layer: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every object of a description, with the name of the layer that it belongs to."""
    if isinstance(config, list):
        for part in config:
            yield from _layers(part, layer)
    elif isinstance(config, dict):
        inner = config.get("config")
        if "class_name" in config and "module" in config:
            if isinstance(inner, dict) and isinstance(config.get("name") or inner.get("name"), str):
                layer = str(config.get("name") or inner["name"])
            yield layer, config
        for part in config.values():
            yield from _layers(part, layer)


def _is_keras(found: Mapping[str, Any]) -> bool:
    """Whether it is of Keras, or one of this project's functions."""
    registered = str(found.get("registered_name") or "")
    if registered.startswith("nas_edge>"):
        return True
    module = found.get("module")
    if module == "builtins":
        return found.get("class_name") != "function"
    return isinstance(module, str) and module.partition(".")[0] == "keras"


def _class(found: Mapping[str, Any]) -> str:
    name = found.get("config") if found.get("class_name") == "function" else found.get("class_name")
    return f"{name!s:.100}"


def _check_ends(model: keras.Model, file: str) -> None:
    for what, tensors in (("input", model.inputs), ("output", model.outputs)):
        if len(tensors) != 1:
            names = ", ".join(repr(tensor.name) for tensor in tensors[:5])
            raise ExportError(f"{file} is refused: it has {len(tensors)} {what}s ({names})", expected=f"one {what}")
    source, result = model.inputs[0], model.outputs[0]
    shape = tuple(source.shape[1:])
    if len(shape) != 3 or None in shape or shape[0] != shape[1] or shape[2] not in (1, 3):
        raise ExportError(
            f"{file} is refused: its input {source.name!r} is {_shape(shape)}",
            expected="[size, size, 1 or 3], a square image of a fixed size",
        )
    if len(result.shape) != 2 or result.shape[1] is None:
        raise ExportError(
            f"{file} is refused: its output {result.name!r} is {_shape(tuple(result.shape[1:]))}",
            expected="[classes], an image classifier",
        )


def _shape(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


def culprit(model: keras.Model, convert: Callable[[keras.Model], object]) -> str:
    """The first layer up to which a model cannot be converted; "" where that is not known.

    Args:
        model: that could not be converted as a whole.
        convert: raises ExportError.
    """
    import keras

    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    low, high = 0, len(layers) - 1  # the layer is among these
    while low < high:
        middle = (low + high) // 2
        try:
            convert(keras.Model(model.inputs[0], layers[middle].output))
        except ExportError:
            high = middle
        except (ValueError, AttributeError):  # a layer that is used twice, or has several outputs, ends no model
            return ""
        else:
            low = middle + 1
    return str(layers[low].name) if layers else ""


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0] if lines else type(error).__name__:.300}"
