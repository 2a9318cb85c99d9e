"""`*.latency.json`: a fitted model of a device's latencies, with where it comes from and how good it is.

    {"format": "nas_edge latency model", "schema_version": 1, "unit": "ms",
     "provenance": {...}, "model": {"kind": "operators", ...}, "half_width": 0.03, "accuracy": {...},
     "measurements": [...]}

The file may come from anybody: what is wrong is said with its place. A model is of one device, runtime, precision and
way of measuring; asked for another, it is refused with what differs. One that goes by decisions is of one space, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from device_agents.api import BenchmarkSpec, DeviceInfo
from nas_edge import __version__
from nas_edge.errors import ConfigError
from nas_edge.latency.models import AnyPredictor
from nas_edge.latency.models.accuracy import Accuracy
from nas_edge.latency.models.operators import operator_line
from nas_edge.latency.table import Term
from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.regular_file import open_regular
from nas_edge.settings import one_of
from nas_edge.spaces.decisions import NetworkSpace, SearchSpace

SCHEMA_VERSION = 1
FORMAT = "nas_edge latency model"
LARGEST_BYTES = 2**26


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SpaceRecord(_Part):
    """The space whose architectures were measured.

    Attributes:
        name: how users call it.
        input_shape: `[height, width, channels]`; None where there are no networks.
        outputs: how many numbers a network gives; likewise.
        decisions: hash of its decisions with their choices; None of a published table, which tells none.
    """

    name: str
    input_shape: tuple[int, ...] | None = None
    outputs: int | None = None
    decisions: str | None = None

    @classmethod
    def of(cls, space: SearchSpace) -> SpaceRecord:
        """Of a space."""
        listed = json.dumps([[decision.path, list(decision.choices)] for decision in space.decisions])
        digest = hashlib.sha256(listed.encode()).hexdigest()[:16]
        if not isinstance(space, NetworkSpace):
            return cls(name=space.name, decisions=digest)
        return cls(name=space.name, input_shape=space.input_shape, outputs=space.outputs, decisions=digest)


class Provenance(_Part):
    """Where a model comes from. None: not known, as of most published tables.

    Attributes:
        source: `fit`, `runs`, `adapt`, or the name of the format that was imported.
        device: its model, for people.
        fingerprint: `DeviceInfo.fingerprint`.
        runtime: name and version.
        precision: of the networks.
        measuring: how was measured, as far as it decides about a latency: threads, delegate, cores.
        space: what was measured.
        probe_floors: time of each probe where nothing disturbs it, in ms.
        created_utc: ISO 8601.
        nas_edge: version that wrote the file.
        note: anything else.
    """

    source: str
    device: str | None = None
    fingerprint: str | None = None
    runtime: str | None = None
    precision: Annotated[Precision | None, one_of(PRECISIONS)] = None
    measuring: Mapping[str, str | int] = Field(default_factory=dict)
    space: SpaceRecord | None = None
    probe_floors: Mapping[str, float] = Field(default_factory=dict)
    created_utc: str = Field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    nas_edge: str = __version__
    note: str = ""


class MeasuredNetwork(_Part):
    """One measurement that the model was made of or tested on.

    Attributes:
        architecture: text form.
        latency_ms: None where it failed.
        interval_ms: its 95% interval.
        verdict: see `device_agents.api.Verdict`.
        held_out: whether the model was tested on it, and not fitted to it.
    """

    architecture: str
    latency_ms: float | None = Field(None, gt=0)
    interval_ms: tuple[float, float] | None = None
    verdict: str = "ok"
    held_out: bool = False


class MeasuredOperator(_Part):
    """An operator that was measured on its own, in a network of nothing else.

    Attributes:
        operator: text form, see `OperatorShape`.
        latency_ms: of that network; None where it failed.
        interval_ms: its 95% interval.
        verdict: see `device_agents.api.Verdict`.
    """

    operator: Annotated[str, AfterValidator(operator_line)]
    latency_ms: float | None = Field(None, gt=0)
    interval_ms: tuple[float, float] | None = None
    verdict: str = "ok"


class ModelFile(_Part):
    """The content of the file.

    Attributes:
        provenance: where the model comes from.
        model: what predicts.
        half_width: half of the 95% interval of a prediction, as a share of it, per unit of the model's own relative
            error; None where it is not known.
        accuracy: on networks that were held out, by kind of model: that of the file, those it was chosen from, and, to
            compare with, `macs`.
        noise_floor: of two measurements of the same network, if any was measured twice.
        measurements: what the model was made of.
        isolated: operators that were measured on their own, whether or not the model was fitted to them.
    """

    format: Literal["nas_edge latency model"] = "nas_edge latency model"
    schema_version: Literal[1] = 1
    unit: Literal["ms"] = "ms"
    provenance: Provenance
    model: AnyPredictor
    half_width: float | None = Field(None, ge=0)
    accuracy: Mapping[str, Accuracy] = Field(default_factory=dict)
    noise_floor: Accuracy | None = None
    measurements: tuple[MeasuredNetwork, ...] = ()
    isolated: tuple[MeasuredOperator, ...] = ()

    def to_text(self) -> str:
        """As it is written: JSON, one value a line where that can be read."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"

    @property
    def digest(self) -> str:
        """Of everything that decides a prediction."""
        content = json.dumps([self.model.model_dump(mode="json"), self.half_width], allow_nan=False)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def check_device(self, name: str, info: DeviceInfo, spec: BenchmarkSpec) -> None:
        """Refuses to stand in for another device, or another way of measuring on it.

        Args:
            name: of the file, for the message.
            info: the device.
            spec: how it would measure.

        Raises:
            ConfigError: with everything that differs.
        """
        told, measuring = self.provenance, measuring_of(spec)
        pairs: dict[str, tuple[object, object, object, object]] = {
            "device": (told.fingerprint, info.fingerprint, told.device, info.model),
            "runtime": (told.runtime, runtime := f"{info.runtime} {info.runtime_version}", told.runtime, runtime),
            **{
                what: (was, measuring.get(what), was, measuring.get(what, "not known"))
                for what, was in told.measuring.items()
            },
        }
        differing = {what: texts for what, (was, now, *texts) in pairs.items() if was is not None and was != now}
        if differing:
            raise ConfigError(
                f"{name} is of another {', '.join(differing)}",
                expected=", ".join(f"{what} {now}" for what, (_, now) in differing.items()),
                received=", ".join(f"{what} {was}" for what, (was, _) in differing.items()),
                fix="fit one for it (nas-edge latency fit), or bring this one to it (nas-edge latency adapt)",
            )

    def check_use(self, name: str, space: SearchSpace, precision: str) -> None:
        """Refuses networks that the model is not of.

        Args:
            name: of the file, for the message.
            space: that is searched.
            precision: that is delivered; it says nothing where there are no networks.

        Raises:
            ConfigError: with what differs.
        """
        told, asked = self.provenance, SpaceRecord.of(space)
        if isinstance(space, NetworkSpace) and told.precision not in (None, precision):
            raise ConfigError(
                f"{name} is of networks of another precision",
                expected=precision,
                received=str(told.precision),
                fix=f"--precision {told.precision}, or fit another model",
            )
        model = self.model.source if self.model.kind == "adapted" else self.model
        if model.needs_choices and told.space is not None:
            differing = [
                what
                for what, value in told.space.model_dump().items()
                if value is not None and value != asked.model_dump()[what]
            ]
            if differing:
                raise ConfigError(
                    f"{name} goes by the decisions of another space: {', '.join(differing)} differ",
                    expected=_space_text(asked),
                    received=_space_text(told.space),
                    fix="name that space, or fit a model for this one",
                )
        if model.kind == "decisions":
            _check_terms(name, model.terms, space)


def _check_terms(name: str, terms: Sequence[Term], space: SearchSpace) -> None:
    for term in terms:
        for path, value in term.when.items():
            position = space.index.get(path)
            if position is None or value not in space.decisions[position].choices:
                raise ConfigError(f"{name} names {path}={value!r}, which {space.name} does not offer")


def _space_text(space: SpaceRecord) -> str:
    shape = "" if space.input_shape is None else f" of {'x'.join(map(str, space.input_shape))} inputs"
    outputs = "" if space.outputs is None else f" and {space.outputs} outputs"
    return f"{space.name}{shape}{outputs}"


def measuring_of(spec: BenchmarkSpec) -> dict[str, str | int]:
    """How is measured, as far as it decides about a latency; on which inputs is of little weight."""
    cores = "any" if spec.cores is None else ",".join(map(str, spec.cores))
    return {"threads": spec.threads, "delegate": spec.delegate, "cores": cores}


def read_model(path: Path) -> ModelFile:
    """Reads a file, trusting nothing.

    Raises:
        ConfigError: one line that says where it is damaged.
    """
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise ConfigError(f"{path} is larger than {LARGEST_BYTES >> 20} MiB")
        raw = json.loads(content.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the latency model {path}: {error.strerror or error}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path} is damaged at line {error.lineno}, column {error.colno}: {error.msg}",
            fix="restore it from a copy, or fit it again",
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ConfigError(
            f"{path} is not a latency model",
            expected=f'"format": "{FORMAT}"',
            fix="bring a published table into this form with nas-edge latency import",
        )
    if raw.get("schema_version") != SCHEMA_VERSION:
        raise ConfigError(
            f"{path} is of another version",
            expected=f"schema {SCHEMA_VERSION}",
            received=f"{raw.get('schema_version')!r:.40}",
            fix="use the nas_edge that wrote it, or fit it again",
        )
    try:
        return ModelFile.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"{path} is damaged at {where}: {message[:1].lower()}{message[1:]}",
            received=f"{first['input']!r:.60}",
            fix="restore it from a copy, or fit it again",
        ) from None
