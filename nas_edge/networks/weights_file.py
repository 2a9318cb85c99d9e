"""Reads what Keras saved of a network's weights: `.weights.h5` files, and those in a `.keras` file.

The file may come from anywhere, and HDF5 is a large format. So it is read in a process of its own, as numbers only:
no model is made of it, no code in it is run, and links to other files are not followed.

    python -m nas_edge.networks.weights_file FILE    writes an NPZ file of them, an entry `layer/position` each
"""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_edge.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from nas_edge.networks.graph import Weights

SUFFIXES = (".weights.h5", ".keras")

_LARGEST_BYTES = 4 << 30
_TIMEOUT_S = 600.0
_WEIGHTS_IN_KERAS = "model.weights.h5"


def read_keras_weights(path: Path) -> Weights:
    """Weights by name of the layer, as float32.

    Raises:
        ConfigError: when it is no such file.
    """
    command = [sys.executable, "-m", __name__, str(path)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"cannot read {path}: it took more than {_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines and done.returncode > 0 else f"its reader ended with {done.returncode}"
        raise ConfigError(
            f"cannot read {path}: {why:.300}", expected=f"a file that Keras saved ({', '.join(SUFFIXES)})"
        )
    return from_npz(done.stdout)


def from_npz(content: bytes) -> dict[str, tuple[np.ndarray[Any, Any], ...]]:
    """The weights in the content of an NPZ file with an entry `layer/position` per array.

    Raises:
        ValueError, zipfile.BadZipFile, zlib.error: when it is something else.
    """
    import numpy as np

    groups: dict[str, dict[int, np.ndarray[Any, Any]]] = {}
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        for key in arrays.files:
            name, _, position = key.rpartition("/")
            groups.setdefault(name, {})[int(position)] = arrays[key]
    return {name: tuple(group[i] for i in sorted(group)) for name, group in groups.items()}


def _read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays by `layer/position`; runs in the process of its own."""
    import h5py

    content: Any = path
    if path.name.endswith(".keras"):
        with zipfile.ZipFile(path) as packed:
            size = packed.getinfo(_WEIGHTS_IN_KERAS).file_size
            if size > _LARGEST_BYTES:
                raise ValueError(f"its weights take {size} bytes, more than {_LARGEST_BYTES}")
            content = io.BytesIO(packed.read(_WEIGHTS_IN_KERAS))
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    with h5py.File(content, "r") as file:
        _collect(file, arrays, [_LARGEST_BYTES])
    if not arrays:
        raise ValueError("it has no weights of named layers")
    return arrays


def _collect(group: Any, arrays: dict[str, np.ndarray[Any, Any]], left: list[int]) -> None:
    """Goes through groups: Keras keeps a layer's arrays in one called `vars`, whose attribute is the layer's name."""
    import h5py
    import numpy as np

    for key in sorted(group):
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            continue  # it leads elsewhere, perhaps into another file
        item = group[key]
        if not isinstance(item, h5py.Group):
            continue
        if key != "vars":
            _collect(item, arrays, left)
            continue
        name = item.attrs.get("name")
        if not isinstance(name, str):
            continue
        for position in sorted(item, key=lambda text: (len(text), text)):
            if not position.isdigit() or not isinstance(item.get(position, getlink=True), h5py.HardLink):
                continue
            array = item[position]
            if not isinstance(array, h5py.Dataset) or array.dtype.kind != "f" or array.external or array.is_virtual:
                continue
            left[0] -= array.size * 4
            if left[0] < 0:
                raise ValueError(f"its weights take more than {_LARGEST_BYTES} bytes")
            arrays[f"{name}/{int(position)}"] = np.asarray(array[()], np.float32)


def main(path: str) -> None:
    """Writes what a file holds to standard output; an error is one line."""
    import numpy as np

    try:
        arrays = _read(Path(path))
    except Exception as error:  # whatever a damaged file makes of its reader
        sys.exit(" ".join(f"{error}".split()) or type(error).__name__)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    sys.stdout.buffer.write(buffer.getvalue())


if __name__ == "__main__":
    main(sys.argv[1])
