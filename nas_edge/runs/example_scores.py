"""`ExampleScores`: how each delivered file did on each test image, `test_scores.npz` both ways.

    schema_version      1
    test_set            SHA-256 of which images were tested and what was expected of each
    NETWORK/PRECISION   one score per test image, bool or float [n], see `NetworkTask.example_scores`

With it, networks of different runs that were tested on the same images are compared by the task's paired test. Runs of
before it was kept have no such file.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas_edge.errors import RunError
from nas_edge.formatting import reason
from nas_edge.runs.untrusted import LARGEST_BYTES, open_regular
from nas_edge.tasks.base import Array, TaskData

if TYPE_CHECKING:
    from nas_edge.runs.run import Run

SCHEMA_VERSION = 1

TEST_SCORES = "test_scores.npz"

_DAMAGE = (
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,  # a compression that Python does not know
    OSError,
    RuntimeError,  # an encrypted file
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class ExampleScores:
    """Scores on the test images, in their order.

    Attributes:
        test_set: see `id_of_test_set`.
        scores: `[n]` each, by network and precision.
    """

    test_set: str
    scores: Mapping[tuple[str, str], Array]

    def of(self, network: str, precision: str) -> Array | None:
        """Scores of one file; None where they were not kept."""
        return self.scores.get((network, precision))


def id_of_test_set(data: TaskData) -> str:
    """What two runs on one data source share if they were tested on the same images."""
    indices = np.ascontiguousarray(data.split.test, np.int64)
    targets = np.ascontiguousarray(data.dataset.labels[indices])
    form = f"{targets.dtype} {targets.shape} ".encode()
    return hashlib.sha256(form + indices.tobytes() + targets.tobytes()).hexdigest()


def write_example_scores(run: Run, scores: ExampleScores) -> None:
    """Writes them into a run.

    Raises:
        RunError: when they cannot be written.
    """
    arrays = {f"{network}/{precision}": array for (network, precision), array in scores.scores.items()}
    buffer = io.BytesIO()
    facts = {"schema_version": np.array(SCHEMA_VERSION), "test_set": np.array(scores.test_set)}
    np.savez_compressed(buffer, **facts, **arrays)  # type: ignore[arg-type] # Its stub takes any name for `allow_pickle`.
    run.write_bytes(TEST_SCORES, buffer.getvalue())


def read_example_scores(run: Run) -> ExampleScores | None:
    """Reads those of a run; None if it has none. The file may come from anywhere.

    Raises:
        RunError: when it is damaged, or of another version.
    """
    from nas_edge.runs.run import RunFolderError

    path = run.path(TEST_SCORES)
    if not path.exists():
        return None
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST_BYTES + 1)
        arrays = _arrays(content)
        version = int(arrays.pop("schema_version"))
        if version != SCHEMA_VERSION:
            raise ValueError(f"expected schema {SCHEMA_VERSION}, received {version}")
        test_set = str(arrays.pop("test_set"))
        scores = {_key(name): array for name, array in arrays.items()}
        _check(list(scores.values()))
    except RunError as error:  # not a regular file
        raise RunFolderError(str(error)) from None
    except (TypeError, *_DAMAGE) as error:
        raise RunFolderError(f"{path} is damaged: {reason(error)}") from None
    return ExampleScores(test_set, scores)


def _arrays(content: bytes) -> dict[str, Array]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # A small file may unpack to one of any size.
        if sum(entry.file_size for entry in archive.infolist()) > LARGEST_BYTES:
            raise ValueError(f"it is larger than {LARGEST_BYTES >> 20} MiB")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _key(name: str) -> tuple[str, str]:
    network, separator, precision = name.rpartition("/")
    if not separator:
        raise ValueError(f"expected NETWORK/PRECISION, received {name!r:.80}")
    return network, precision


def _check(scores: list[Array]) -> None:
    if len({array.shape for array in scores}) > 1 or any(array.ndim != 1 for array in scores):
        raise ValueError("expected one score per test image")
    if not all(array.dtype.kind in "bf" and np.isfinite(array).all() for array in scores):
        raise ValueError("expected scores that are numbers")
