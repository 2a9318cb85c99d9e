"""`Run`: the folder of one run.

    config.json      the settings as resolved
    journal.jsonl    one line per trial, appended as it happens
    winner/          the winner's trained weights and architecture
    result.json      what was asked and found
    bundle/          what an app team receives

Files are written to a temporary name and renamed, except the journal, which is only ever appended to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_edge.config import RunConfig
from nas_edge.errors import RunError

if TYPE_CHECKING:
    import numpy as np

SCHEMA_VERSION = 1


class Run:
    """A run folder. Use `Run.create` or `Run.open`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, config: RunConfig) -> Run:
        """Makes a new run folder.

        Raises:
            RunError: when the folder exists and is not empty, or cannot be written.
        """
        cls.check_new(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            run = cls(folder)
            run.write_json("config.json", {"schema_version": SCHEMA_VERSION, **config.model_dump(mode="json")})
        except OSError as error:
            raise RunFolderError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
        return run

    @staticmethod
    def check_new(folder: Path) -> None:
        """Raises RunError, touching nothing, unless `folder` is empty or does not exist yet."""
        try:
            used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        except OSError as error:
            raise RunFolderError(f"cannot look into {folder}: {error.strerror}; choose another --out") from None
        if used:
            raise RunFolderError(f"{folder} already exists, and runs are never overwritten; choose another --out")

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Opens an existing run folder.

        Raises:
            RunError: when it is no run folder, or of another version.
        """
        run = cls(folder)
        version = run.read_json("config.json").get("schema_version")
        if version != SCHEMA_VERSION:
            raise RunFolderError(f"{folder} was written by another version: schema {version}, expected {SCHEMA_VERSION}")
        return run

    @property
    def config(self) -> RunConfig:
        """The settings of the run."""
        settings = self.read_json("config.json")
        settings.pop("schema_version", None)
        return RunConfig.model_validate(settings)

    def path(self, name: str) -> Path:
        """Where a file of the run is."""
        return self.folder / name

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a line to the journal."""
        with self.path("journal.jsonl").open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(record, separators=(",", ":")) + "\n")

    def journal(self) -> Iterator[dict[str, Any]]:
        """The journal's records, oldest first."""
        try:
            text = self.path("journal.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        for line in text.splitlines():
            yield json.loads(line)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes a JSON file in one piece."""
        self._replace(name, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads a JSON file of the run.

        Raises:
            RunError: when it is missing or damaged.
        """
        path = self.path(name)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunFolderError(f"{self.folder} has no {name}: it is not a finished run of nas-edge") from None
        except (OSError, ValueError) as error:
            raise RunFolderError(f"cannot read {path}: {error}") from None
        if not isinstance(value, dict):
            raise RunFolderError(f"{path} is damaged: expected an object, received {type(value).__name__}")
        return value

    def write_weights(self, name: str, weights: Mapping[str, tuple[np.ndarray[Any, Any], ...]]) -> None:
        """Writes the weights of a network, one NPZ entry `node/position` per array."""
        import numpy as np

        arrays = {f"{node}/{i}": array for node, group in weights.items() for i, array in enumerate(group)}
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)  # noqa: PTH105

    def read_weights(self, name: str) -> dict[str, tuple[np.ndarray[Any, Any], ...]]:
        """Reads what `write_weights` wrote."""
        import numpy as np

        groups: dict[str, dict[int, np.ndarray[Any, Any]]] = {}
        try:
            with np.load(self.path(name), allow_pickle=False) as arrays:
                for key in arrays.files:
                    node, _, position = key.rpartition("/")
                    groups.setdefault(node, {})[int(position)] = arrays[key]
        except FileNotFoundError:
            raise RunFolderError(f"{self.folder} has no {name}: the run did not get as far as training") from None
        except (OSError, ValueError) as error:
            raise RunFolderError(f"cannot read {self.path(name)}: {error}") from None
        return {node: tuple(group[i] for i in sorted(group)) for node, group in groups.items()}

    def _replace(self, name: str, content: bytes) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(content)
        os.replace(temporary, path)  # noqa: PTH105


class RunFolderError(RunError):
    """The run folder named on the command line cannot be used."""

    exit_code = 2
