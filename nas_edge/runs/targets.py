"""`TargetGroup`: the folder of searches for several targets, or of one network scaled to several; a run for each.

targets.json          the targets, and the settings that all have in common
stages/               for a scaled network, what was measured and decided for all targets, see `scaling.study`
warm-up/              the search's state before its controller learns, which is the same for all
measurements.sqlite   latencies of all, see `latency.cache`
5ms/, 10ms/ ...       a run per target, complete in itself but for these two
index.html            the runs side by side
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nas_edge.config import RunConfig, load_config
from nas_edge.errors import ConfigError, InfeasibleError
from nas_edge.formatting import reason
from nas_edge.registry import LENIENT
from nas_edge.runs.checkpoints import Checkpoints
from nas_edge.runs.files import FILES
from nas_edge.runs.result import RunResult
from nas_edge.runs.run import Run, RunFolderError
from nas_edge.runs.untrusted import milliseconds, read_json

SCHEMA_VERSION = 1
_FILE = "targets.json"


@dataclass(frozen=True)
class TargetResult:
    """The result for one target.

    Attributes:
        target_ms: the target.
        folder: of its run.
        result: what was found; None if nothing meets the target.
        problem: why there is no result; None if there is one.
    """

    target_ms: float
    folder: Path
    result: RunResult | None
    problem: InfeasibleError | None = None


@dataclass(frozen=True)
class TargetGroup:
    """Searches for several targets.

    Attributes:
        folder: of the group.
        targets_ms: ascending.
        config: settings of all; its target is none of theirs.
        searches: whether the runs search; false if they deliver scaled versions of a network that was found.
    """

    folder: Path
    targets_ms: tuple[float, ...]
    config: RunConfig
    searches: bool = True

    @classmethod
    def create(cls, folder: Path, config: RunConfig, targets_ms: Sequence[float], searches: bool = True) -> TargetGroup:
        """Makes a new folder.

        Raises:
            ConfigError: when a target is named twice.
            RunError: when the folder exists and is not empty, or cannot be written.
        """
        group = cls(folder, tuple(sorted(targets_ms)), config, searches)
        if len({path for _, path in group.runs()}) < len(targets_ms):
            raise ConfigError(
                "a target is named twice", received=",".join(f"{target_ms:g}" for target_ms in targets_ms)
            )
        Run.check_new(folder)
        try:
            FILES.make_folder(folder)
        except OSError as error:
            raise RunFolderError(f"cannot write to {folder}: {error.strerror}", fix="choose another --out") from None
        group.write()
        return group

    @classmethod
    def open(cls, folder: Path) -> TargetGroup:
        """Reads an existing folder; it may come from anywhere.

        Raises:
            RunError: when it is damaged or of another version.
        """
        path = folder / _FILE
        try:
            content: Mapping[str, Any] = read_json(path)
            if content["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"expected schema {SCHEMA_VERSION}, received {content['schema_version']!r:.50}")
            targets_ms = tuple(map(milliseconds, content["targets_ms"]))
            config = RunConfig.model_validate(content["config"], context=LENIENT)
            searches = bool(content.get("searches", True))
        except (OSError, LookupError, TypeError, ValueError, ValidationError) as error:
            raise RunFolderError(f"{path} is damaged: {reason(error)}") from None
        return cls(folder, targets_ms, config, searches)

    def write(self) -> None:
        """Writes the targets and settings."""
        content = {
            "schema_version": SCHEMA_VERSION,
            "targets_ms": list(self.targets_ms),
            "searches": self.searches,
            "config": self.config.model_dump(mode="json"),
        }
        FILES.write_whole(self.folder / _FILE, f"{json.dumps(content, indent=2, allow_nan=False)}\n".encode())

    def runs(self) -> list[tuple[float, Path]]:
        """Each target with the folder of its run, which may not be there yet."""
        return [(target_ms, self.folder / f"{target_ms:g}ms") for target_ms in self.targets_ms]

    def started(self) -> list[Path]:
        """The runs that are there."""
        return [path for _, path in self.runs() if (path / "config.json").exists()]

    def config_for(self, target_ms: float) -> RunConfig:
        """The settings of one of the runs."""
        return load_config(flags={"target.latency_ms": target_ms}, base=self.config)

    @property
    def warm_up(self) -> Checkpoints:
        """Where the state at the end of the warm-up is kept, by the first run that gets there."""
        return Checkpoints(self.folder / "warm-up")

    @property
    def measurements(self) -> Path:
        """Where latencies of all runs are kept."""
        return self.folder / "measurements.sqlite"


def is_group(folder: Path) -> bool:
    """Whether a folder is one of searches for several targets."""
    return (folder / _FILE).exists()
