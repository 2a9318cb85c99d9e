"""`Run`: the folder of one run.

    config.json          the settings as resolved
    environment.json     what it was made with: versions, git state, device; one entry per start and resumption
    lock                 held by the process that writes to the run
    journal.jsonl        one line per trial, appended as it happens; see `journal`
    checkpoints/         the search's whole state, the last two; see `checkpoints`
    measurements.sqlite  latencies by network; see `latency.cache`
    policy.jsonl         the controller's probabilities now and then; see `search.policy_log`
    tensorboard/         what TensorBoard shows of the search
    stages/              what the stages after the search measured and found, so that it is not done again
    delivered/           other networks of the search, delivered later: run folders, see `stages.choosing`
    scaled/              its network scaled to several latencies: a folder of run folders, see `scaling.family`
    winner/, compared/   trained weights
    teacher/             those of the network that taught them, see `stages.teaching`
    init/                those that the run started from, see `runs.warm_start`
    bundle/              what an app team receives
    test_scores.npz      how the delivered files did on each test image; see `example_scores`
    result.json          what was asked and found; written last of all that cannot be made again
    report/              the page about it all, and its tables; see `report`

Journals (`*.jsonl`) and what TensorBoard reads are appended to, and SQLite keeps its own file; every other file is
replaced in one piece, see `files`.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pydantic import ValidationError

from device_agents.api import EFFORT
from nas_edge.config import RunConfig
from nas_edge.errors import ConfigError, RunError
from nas_edge.formatting import reason
from nas_edge.networks.weights_file import from_npz
from nas_edge.registry import LENIENT, setting_path
from nas_edge.runs.checkpoints import Checkpoints
from nas_edge.runs.columns import TrialColumns, read_trials
from nas_edge.runs.environment import changed_data, changed_images, changed_packages, measured_with, session_of_trials
from nas_edge.runs.files import FILES, Files
from nas_edge.runs.journal import Journal, add_checksums, read_journal
from nas_edge.runs.lock import RunLock, is_locked
from nas_edge.runs.migration import migrated
from nas_edge.runs.untrusted import milliseconds, read_json

if TYPE_CHECKING:
    import numpy as np

    Weights: TypeAlias = Mapping[str, tuple[np.ndarray[Any, Any], ...]]

SCHEMA_VERSION = 3
# Journals of what is evaluated after the search.
SELECTION, RANDOM, RANDOM_SCORES = (f"stages/{stage}.jsonl" for stage in ("selection", "random", "random_scores"))

_MEASURING = ("measure", "final_measure")
_OTHERS = (
    *("search.steps", "device.addresses", "runs.checkpoint_steps", "runs.tensorboard"),
    *("data.workers", "data.processes"),
)
# What may differ when a run is resumed. Anything else would make its trials, or its latencies, incomparable.
CHANGEABLE = (*_OTHERS, *(f"{group}.{name}" for group in _MEASURING for name in EFFORT))


class Run:
    """A run folder. Use `Run.create` or `Run.open`."""

    def __init__(self, folder: Path, files: Files = FILES) -> None:
        self.folder, self._files = folder, files

    @classmethod
    @contextmanager
    def create(cls, folder: Path, config: RunConfig, files: Files = FILES) -> Iterator[Run]:
        """Makes a new run folder, and yields the run with its lock held: nobody else can come in between.

        Raises:
            RunError: when the folder exists and is not empty, is in use, or cannot be written.
        """
        cls.check_new(folder)
        try:
            files.make_folder(folder)
        except OSError as error:
            raise RunFolderError(f"cannot write to {folder}: {error.strerror}", fix="choose another --out") from None
        run = cls(folder, files)
        with run.lock():
            cls.check_new(folder)  # another may have begun and ended since
            run.write_config(config)
            yield run

    @staticmethod
    def check_new(folder: Path) -> None:
        """Raises RunError, touching nothing, unless `folder` does not exist yet, or holds at most a lock."""
        try:
            used = folder.exists() and (not folder.is_dir() or any(path.name != "lock" for path in folder.iterdir()))
        except OSError as error:
            raise RunFolderError(f"cannot look into {folder}: {error.strerror}", fix="choose another --out") from None
        if used:
            raise RunFolderError(f"{folder} already exists, and runs are never overwritten", fix="choose another --out")

    @classmethod
    def open(cls, folder: Path, files: Files = FILES) -> Run:
        """Opens an existing run folder.

        Raises:
            RunError: when it is not a run folder, or was written by another version.
        """
        run = cls(folder, files)
        if not run.path("config.json").exists():
            if (folder / "targets.json").exists():
                listing = "to list them: nas-edge runs FOLDER"
                raise RunFolderError(f"{folder} holds a run for each of several targets; name one of them", fix=listing)
            what = "has no config.json, so it is not a run folder" if folder.is_dir() else "is not a directory"
            raise RunFolderError(f"{folder} {what}", fix="to list the runs in a folder: nas-edge runs FOLDER")
        version = run.read_json("config.json").get("schema_version")
        if version not in (1, 2, SCHEMA_VERSION):
            raise RunFolderError(
                f"{folder} was written by another version: schema {version}, expected {SCHEMA_VERSION}; "
                "use the version of nas_edge that wrote it"
            )
        return run

    @property
    def config(self) -> RunConfig:
        """The settings of the run."""
        settings = migrated(self.read_json("config.json"))
        try:
            return RunConfig.model_validate(settings, context=LENIENT)
        except ValidationError as error:
            first = error.errors()[0]
            where = f"{setting_path(first['loc']):.200}"
            if first["type"] == "extra_forbidden":
                raise RunFolderError(
                    f"{self.path('config.json')} has the setting {where}, which this version does not know",
                    fix="use the nas_edge that wrote it",
                ) from None
            raise RunFolderError(f"{self.path('config.json')} is damaged: {where}: {first['msg']}") from None

    def changed_settings(self, config: RunConfig) -> list[str]:
        """The settings of `config` that differ from those of the run.

        Raises:
            ConfigError: when one of them may not change.
        """
        changed = differing_settings(self.config, config)
        fixed = [path for path in changed if not self._may_change(path)]
        if fixed:
            listed = [
                f"{path} is {_shown(before)} and cannot become {_shown(after)}"
                for path, (before, after) in changed.items()
                if path in fixed[:5]
            ]
            more = f", and so for {len(fixed) - 5} other settings" if len(fixed) > 5 else ""
            raise ConfigError(
                f"in {self.folder}, {', '.join(listed)}{more}: what was done before and after would not be comparable. "
                f"These may change: {', '.join(_OTHERS)}, how well is measured ({' and '.join(_MEASURING)}: "
                f"{', '.join(EFFORT)}), and training.* as long as no network has been trained. "
                "Start a new run for anything else"
            )
        return list(changed)

    def _may_change(self, path: str) -> bool:
        # The winner and what it is compared with have to be trained alike.
        trained = self.path("winner").exists() or self.path("compared").exists()
        return path in CHANGEABLE or (path.startswith("training.") and not trained)

    def write_config(self, config: RunConfig) -> None:
        """Writes the settings, or others in their place."""
        self.write_json("config.json", {"schema_version": SCHEMA_VERSION, **config.model_dump(mode="json")})

    def path(self, name: str) -> Path:
        """Where a file of the run is."""
        return self.folder / name

    def lock(self) -> RunLock:
        """To be held while writing to the run."""
        return RunLock(self.path("lock"))

    @property
    def target_ms(self) -> float | None:
        """The latency to meet, in ms; None until it is known.

        Raises:
            RunError: when its file is damaged.
        """
        known = self.read_record("stages/target.json", lambda content: milliseconds(content["target_ms"]))
        return self.config.target.latency_ms if known is None else known

    @property
    def device_targets_ms(self) -> list[tuple[str, float]]:
        """Model and target of each of several models of devices; empty for one model, and until it is known.

        Raises:
            RunError: when its file is damaged.
        """

        def devices_of(content: Mapping[str, Any]) -> list[tuple[str, float]]:
            return [(str(each["device"]), milliseconds(each["target_ms"])) for each in content.get("devices", [])]

        return self.read_record("stages/target.json", devices_of) or []

    @property
    def in_use(self) -> bool:
        """Whether a process is writing to the run."""
        return is_locked(self.path("lock"))

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.path("result.json").exists()

    def open_journal(self, say: Callable[[str], object], name: str = "journal.jsonl") -> Journal:
        """The journal, or that of a stage, to write to."""
        return Journal(self.path(name), say, self._files)

    def prepare_to_write(self, say: Callable[[str], object]) -> None:
        """Brings what the first versions wrote into a form that can be appended to; later runs are left as they are.

        Args:
            say: is told, in one line, what to expect of the run that is continued.

        Raises:
            RunError: when the journal is damaged or cannot be written.
        """
        journal, kept = self.path("journal.jsonl"), self.path("journal.schema-1.jsonl")
        if add_checksums(journal, kept, self._files):
            session = session_of_trials(self.trials().measurement, self.config.export.precision)
            if session is not None and not self.path("environment.json").exists():
                self.write_json("environment.json", {"schema_version": 1, "sessions": [session]})
            say(
                f"{self.folder} was written by an earlier nas_edge, without checkpoints: the search is repeated from "
                "its first step with the recorded latencies, and may differ from an uninterrupted run; the journal as "
                f"it was is kept as {kept.name}"
            )

    def journal(self) -> Iterator[dict[str, Any]]:
        """The journal's records, oldest first, also while the run goes on."""
        yield from read_journal(self.path("journal.jsonl")).records

    def trials(self, name: str = "journal.jsonl") -> TrialColumns:
        """A journal's trials as columns, without their samples: far quicker than `journal`."""
        return read_trials(self.path(name))

    @property
    def checkpoints(self) -> Checkpoints:
        """The search's checkpoints."""
        return Checkpoints(self.path("checkpoints"), self._files)

    def add_session(self, manifest: Mapping[str, Any]) -> list[str]:
        """Remembers what a start or resumption is made with.

        Returns:
            What differs from the first session and may change results in their last bits.

        Raises:
            RunError: when latencies would not be comparable with those of the first session, or other images are
                skipped than then.
        """
        sessions, changed = self._sessions(), []
        if sessions:
            first = {"device": {}, "nas_edge": None, "packages": {}, **sessions[0]}
            before, now = measured_with(first), measured_with(manifest)
            before.setdefault("settings", now.get("settings"))  # an earlier manifest may not tell
            for what in {**now, **before}:
                if before.get(what) != now.get(what):
                    raise RunError(
                        f"{self.folder} was measured with {what} {before.get(what)} ({first['device'].get('model')}), "
                        f"not {now.get(what)} ({manifest['device'].get('model')}): their latencies cannot be compared. "
                        "Continue on a device of the same kind, or start a new run"
                    )
            self._check_data(first, manifest)
            changed = changed_packages(first, manifest)
        self.write_json("environment.json", {"schema_version": 1, "sessions": [*sessions, manifest]})
        return changed

    def check_data(self, data: Mapping[str, Any]) -> None:
        """Raises RunError unless data (see `environment`) are those the run began with; an early run may not tell."""
        if sessions := self._sessions()[:1]:
            self._check_data(sessions[0], {"data": data})

    def _check_data(self, first: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        if images := changed_images(first, manifest):
            more = f", and {len(images) - 5} more" if len(images) > 5 else ""
            raise RunError(
                f"the data are not what {self.folder} began with: {'; '.join(images[:5])}{more}. Restore those "
                "images, or start a new run"
            )
        if differing := changed_data(first, manifest):
            raise RunError(
                f"the data are not what {self.folder} began with: {'; '.join(differing)}. Restore them, or start a "
                "new run"
            )

    def _sessions(self) -> list[dict[str, Any]]:
        """The manifests of earlier starts; none where their file is not there."""
        name = "environment.json"
        if not self.path(name).exists():
            return []
        content = self.read_json(name)
        if content.get("schema_version") != 1:
            raise RunFolderError(
                f"{self.path(name)} was written by another version: schema {content.get('schema_version')}, expected "
                "1; use the version of nas_edge that wrote it"
            )
        sessions = content.get("sessions")
        if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
            raise RunFolderError(f"{self.path(name)} is damaged", expected="a list of sessions")
        return sessions

    def once(self, stage: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What a stage of the run came to: read, if it was finished before; else done now, and kept."""
        name = f"stages/{stage}.json"
        if not self.path(name).exists():
            self.write_json(name, work())
        return self.read_json(name)

    def weights_once(self, name: str, work: Callable[[], Weights]) -> Weights:
        """As `once`, for the weights of a network."""
        if not self.path(name).exists():
            self.write_weights(name, work())
        return self.read_weights(name)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes a JSON file in one piece."""
        content = json.dumps(value, indent=2, allow_nan=False) + "\n"
        self.write_bytes(name, content.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Writes any file in one piece."""
        self._files.write_whole(self.path(name), content)

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads a JSON file of the run.

        Raises:
            RunError: when it is missing or damaged.
        """
        path = self.path(name)
        try:
            value = read_json(path)
        except (FileNotFoundError, NotADirectoryError):
            raise RunFolderError(f"{self.folder} has no {name}: it is not a finished run of nas-edge") from None
        except OSError as error:
            raise RunFolderError(f"cannot read {path}: {error.strerror}") from None
        except RunError as error:
            raise RunFolderError(str(error)) from None
        if not isinstance(value, dict):
            raise RunFolderError(f"{path} is damaged", expected="an object", received=f"{type(value).__name__}")
        return value

    def read_record(self, name: str, read: Callable[[Mapping[str, Any]], _T]) -> _T | None:
        """What a function makes of a JSON file of the run; None where there is no such file.

        Args:
            name: of the file.
            read: may raise AttributeError, LookupError, TypeError or ValueError for what it cannot read.

        Raises:
            RunError: when the file is damaged.
        """
        if not self.path(name).exists():
            return None
        content = self.read_json(name)
        try:
            return read(content)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise RunFolderError(f"{self.path(name)} is damaged: {reason(error)}") from None

    def write_weights(self, name: str, weights: Weights) -> None:
        """Writes the weights of a network, one NPZ entry `node/position` per array."""
        import numpy as np

        arrays = {f"{node}/{i}": array for node, group in weights.items() for i, array in enumerate(group)}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        self.write_bytes(name, buffer.getvalue())

    def read_weights(self, name: str) -> dict[str, tuple[np.ndarray[Any, Any], ...]]:
        """Reads what `write_weights` wrote."""
        try:
            return from_npz(self.path(name).read_bytes())
        except FileNotFoundError:
            raise RunFolderError(f"{self.folder} has no {name}: the run did not get as far as training") from None
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            fix = "restore it from a copy" if self.finished else "remove it to have that network trained again"
            raise RunFolderError(f"cannot read {self.path(name)}: {reason(error)}", fix=fix) from None


_T = TypeVar("_T")


class RunFolderError(RunError):
    """The run folder named on the command line cannot be used."""

    exit_code = 2


def _shown(value: object) -> str:
    """A setting's value as it may be typed."""
    return "not set" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def differing_settings(before: RunConfig, after: RunConfig) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by dotted path in ascending order: what each was and is; None where there was none."""
    was, now = (_flat(config.model_dump(mode="json")) for config in (before, after))
    return {
        path: (was.get(path), now.get(path))
        for path in sorted(was.keys() | now.keys())
        if was.get(path) != now.get(path)
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted path."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
