"""`BenchmarkSpec`: how one model is to be measured. Sent to the worker as JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import SpecError

SCHEMA_VERSION = 1
# What a model is run on where no examples are given or fit.
RANDOM_VALUES = "random values"
DELEGATES = {
    "cpu": "XNNPACK where it has a kernel, the runtime's own kernels elsewhere",
    "none": "the runtime's own kernels only",
    "gpu": "a phone's GPU",
    "nnapi": "a phone's NNAPI; legacy, Android 15 deprecates it",
    "external": "a delegate library of yours: external:LIBRARY[,KEY=VALUE...]",
}
# What leaves nothing for another processor to fall back from.
CPU_DELEGATES = ("cpu", "none")
_PARTIAL = "+cpu"
_ACCEPTANCE_LIMITS = ("max_wait_share", "max_shift", "min_clock_ratio")
# How much is measured and what is accepted. Another effort gives the same number, known better or worse.
EFFORT = (
    "min_runs", "max_runs", "min_duration_s", "max_duration_s", "target_relative_half_width",
    "max_relative_half_width", "max_risk", "max_attempts", "patience_s", "timeout_s", *_ACCEPTANCE_LIMITS,
)  # fmt: skip
# These decide how well a number is known or whether it is accepted, not what it is.
_NOT_IN_SETTINGS_HASH = ("memory_limit_bytes", "require_delegate", "require_cool", "require_charged", *EFFORT)
# Name, smallest and largest value.
_WHOLE_NUMBERS = {
    "threads": (1, 256),
    "min_runs": (1, 10**7),
    "max_runs": (1, 10**7),
    "warmup_min_runs": (0, 10**7),
    "memory_limit_bytes": (1, 2**50),
    "max_attempts": (1, 100),
}


@dataclass(frozen=True)
class Delegate:
    """What executes a model.

    Attributes:
        name: A key of `DELEGATES`.
        partial: Whether the CPU may execute what the delegate does not take.
        library: The delegate library on this machine, for `external`, else "".
        options: Its options, as (key, value) pairs.
    """

    name: str
    partial: bool = False
    library: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Delegate:
        """Reads "cpu", "gpu", "gpu+cpu", "external:/path/lib.so,key=value", ...

        Raises:
            SpecError: If it is none of them.
        """
        head, _, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
        name = head[: -len(_PARTIAL)] if head.endswith(_PARTIAL) else head
        library, *options = rest.split(",")
        pairs = [tuple(option.split("=", 1)) for option in options]
        fits = (
            name in DELEGATES
            and not (name in CPU_DELEGATES and head != name)
            and (bool(library) if name == "external" else not rest)
            # The tool takes KEY:VALUE;KEY:VALUE, and has no way to quote either character.
            and all(len(pair) == 2 and all(pair) and not re.search(r"[:;\s]", "".join(pair)) for pair in pairs)
        )
        if not fits:
            known = "; ".join(f"{name!r}: {what}" for name, what in DELEGATES.items())
            raise SpecError(
                "Unknown delegate",
                expected=f"one of {known}; with {_PARTIAL} after the name, as in gpu{_PARTIAL}, the CPU executes what "
                "the delegate does not take",
                received=f"{text!r:.200}",
            )
        return cls(name, head != name, library, tuple((key, value) for key, value in pairs))


@dataclass(frozen=True)
class BenchmarkSpec:
    """Settings of one measurement.

    Timing goes on until at least `min_runs` runs and `min_duration_s` seconds are in
    and the 95% interval of the median is narrow enough. It stops in any case at
    `max_runs`, or once `max_duration_s` has passed and `min_runs` are in.

    Attributes:
        threads: Threads given to the runtime.
        min_runs: Fewest timed runs.
        max_runs: Most timed runs.
        min_duration_s: Shortest time spent in timed runs, in seconds.
        max_duration_s: Time in timed runs, in seconds, after which an interval that is
            still too wide is accepted as it is.
        target_relative_half_width: Half the width of the 95% interval of the median,
            divided by the median, at which timing may stop. 0.02 is 2%.
        max_relative_half_width: Above this the attempt counts as unsteady; and of visits, the relative difference
            within which the lowest have to agree.
        max_risk: Of visits: accepted probability that all of them were disturbed, as far as the probes tell. 1 asks no
            probe.
        max_wait_share: Share of the timing spent waiting for a core that another program had, above which the attempt
            counts as unsteady. Waits come in slices of milliseconds that hit few runs, so the median bears some of
            them.
        max_shift: Relative difference between the medians of the first and the second half of the samples, above
            which the attempt counts as unsteady.
        min_clock_ratio: Clock after timing, over that before, below which the attempt counts as throttled.
        warmup_min_runs: Fewest untimed runs after the first inference.
        warmup_min_duration_s: Shortest warm-up, in seconds.
        warmup_max_duration_s: Longest warm-up, in seconds; ends one that is not stable.
        delegate: A name of `DELEGATES`, in the forms `Delegate.parse` reads. One that is asked for by name must take
            every operator, else the verdict is `fallback`, unless "+cpu" allows the CPU to execute the rest.
        require_delegate: Give the verdict `fallback` when the delegate took no operator, even if it is "cpu".
        require_cool: Measure only where the device says that it is cool. Without it, one that says nothing of its
            temperature is measured, too.
        require_charged: Measure only where the device says that it is plugged in and well charged.
        cores: CPU ids to run on, or None for all that the process may use.
        input_shapes: (input name, shape) pairs replacing the model's own shapes; a
            mapping is accepted. Open dimensions not named here become 1.
        inputs: Digest of the examples that a model is run on in turns, see `DeviceAgent.take_examples`; "" for random
            values, which also stand in where the examples are not of the model's input shape.
        profile_ops: Ask for times of single operators.
        energy: Measure the energy of an inference as well; reading it may disturb the timing a little.
        patience_s: How long to wait, in all, for a device that is disturbed as a whole to be quiet again, in seconds.
        timeout_s: Wall-clock limit of one attempt, loading included, in seconds.
        memory_limit_bytes: Memory one candidate may allocate, in bytes.
        max_attempts: How often an unsteady model is measured before giving up.
    """

    threads: int = 1
    min_runs: int = 9
    max_runs: int = 2000
    min_duration_s: float = 0.06
    max_duration_s: float = 3.0
    target_relative_half_width: float = 0.02
    max_relative_half_width: float = 0.05
    max_risk: float = 0.002
    max_wait_share: float = 0.10
    max_shift: float = 0.05
    min_clock_ratio: float = 0.85
    warmup_min_runs: int = 4
    warmup_min_duration_s: float = 0.02
    warmup_max_duration_s: float = 0.25
    delegate: str = "cpu"
    require_delegate: bool = False
    require_cool: bool = False
    require_charged: bool = False
    cores: tuple[int, ...] | None = None
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    inputs: str = ""
    profile_ops: bool = False
    energy: bool = False
    patience_s: float = 30.0
    timeout_s: float = 60.0
    memory_limit_bytes: int = 4 * 2**30
    max_attempts: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "cores", _as_cores(self.cores))
        object.__setattr__(self, "input_shapes", _as_shapes(self.input_shapes))
        for name, (at_least, at_most) in _WHOLE_NUMBERS.items():
            _require_int(name, getattr(self, name), at_least, at_most)
        for name in ("timeout_s", "max_duration_s"):
            _require_number(name, getattr(self, name), above_zero=True)
        for name in (
            "min_duration_s",
            "patience_s",
            "warmup_min_duration_s",
            "warmup_max_duration_s",
            *_ACCEPTANCE_LIMITS,
        ):
            _require_number(name, getattr(self, name), above_zero=False)
        _require_number("max_risk", self.max_risk, above_zero=True)
        if self.max_risk > 1:
            raise SpecError("max_risk must be above 0 and at most 1", received=f"{self.max_risk!r}")
        for name in ("target_relative_half_width", "max_relative_half_width"):
            _require_number(name, getattr(self, name), above_zero=True)
        for name in ("require_delegate", "require_cool", "require_charged", "profile_ops", "energy"):
            if not isinstance(getattr(self, name), bool):
                raise SpecError(f"{name} must be true or false", received=f"{getattr(self, name)!r}")
        self._check_order("min_runs", "max_runs")
        self._check_order("min_duration_s", "max_duration_s")
        self._check_order("warmup_min_duration_s", "warmup_max_duration_s")
        self._check_order("target_relative_half_width", "max_relative_half_width")
        if not isinstance(self.inputs, str) or not re.fullmatch(r"([0-9a-f]{16})?", self.inputs):
            raise SpecError(
                "inputs must be a digest of 16 hexadecimal digits, or empty", received=f"{self.inputs!r:.80}"
            )
        Delegate.parse(self.delegate)

    def _check_order(self, low: str, high: str) -> None:
        if getattr(self, low) > getattr(self, high):
            raise SpecError(
                f"{low} must not be above {high}", received=f"{low}={getattr(self, low)}, {high}={getattr(self, high)}"
            )

    @property
    def settings_hash(self) -> str:
        """Short stable hash of everything that influences the measured number."""
        kept = {k: v for k, v in self.to_json().items() if k not in _NOT_IN_SETTINGS_HASH}
        if not self.inputs:  # as the hash was when there were random values only
            del kept["inputs"]
        text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def replace(self, **changes: Any) -> BenchmarkSpec:
        """Returns a copy with some settings changed; unknown names are an error."""
        unknown = sorted(set(changes) - set(_FIELDS))
        if unknown:
            raise SpecError("Unknown settings", expected=f"some of {_FIELDS}", received=f"{unknown}")
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as a JSON object."""
        result: dict[str, Any] = {"schema": SCHEMA_VERSION}
        result.update({name: getattr(self, name) for name in _FIELDS})
        if not self.energy:  # as in specs from before it existed
            del result["energy"]
        result["cores"] = None if self.cores is None else list(self.cores)
        result["input_shapes"] = {name: list(shape) for name, shape in self.input_shapes}
        return result

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BenchmarkSpec:
        """Reads what `to_json` wrote.

        Raises:
            SpecError: If a setting is unknown, of a wrong type or out of range.
        """
        if not isinstance(data, Mapping):
            raise SpecError("Settings must be a JSON object", received=f"{type(data).__name__}")
        if data.get("schema") != SCHEMA_VERSION:
            raise SpecError(
                "Settings of another version", expected=f"schema {SCHEMA_VERSION}", received=f"{data.get('schema')!r}"
            )
        return cls().replace(**{str(k): v for k, v in data.items() if k != "schema"})


_FIELDS = tuple(field.name for field in dataclasses.fields(BenchmarkSpec))


def _require_int(name: str, value: object, at_least: int, at_most: int) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not at_least <= value <= at_most:  # type: ignore[operator]
        raise SpecError(f"{name} must be a whole number from {at_least} to {at_most}", received=f"{value!r:.80}")


def _require_number(name: str, value: object, above_zero: bool) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and 0 <= value < 1e9) or (above_zero and value == 0):  # type: ignore[operator]
        expected = "above 0" if above_zero else ">= 0"
        raise SpecError(f"{name} must be a number {expected}", received=f"{value!r}")


def parse_cores(text: str) -> str | tuple[int, ...]:
    """Reads which CPUs to run on: "big", "little", ids such as "4,5" or "4-7", or a mask such as "0xf0".

    Returns:
        "big" or "little", which `DeviceAgent.cores` turns into ids, or ids.

    Raises:
        SpecError: If it is none of them.
    """
    if text in ("big", "little"):
        return text
    ids: set[int] = set()
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,64}", text):
        mask = int(text, 16)
        ids = {core for core in range(mask.bit_length()) if mask >> core & 1}
    elif re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", text):
        for part in text.split(","):
            first, _, last = part.partition("-")
            ids |= set(range(int(first), int(last or first) + 1))
    if not ids:
        raise SpecError(
            expected="cores to be big, little, ids such as 4,5 or 4-7, or a mask such as 0xf0",
            received=f"{text!r:.80}",
        )
    return tuple(sorted(ids))


def _as_cores(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    cores = tuple(value) if isinstance(value, (list, tuple, set, frozenset, range)) else ()
    if not cores or not all(type(core) is int and 0 <= core < 4096 for core in cores):
        raise SpecError("cores must be None or CPU ids such as (0, 1)", received=f"{value!r}")
    return tuple(sorted(set(cores)))


def _as_shapes(value: object) -> tuple[tuple[str, tuple[int, ...]], ...]:
    try:
        pairs = dict(value.items() if isinstance(value, Mapping) else value)  # type: ignore[call-overload]
        shapes = {name: tuple(shape) for name, shape in pairs.items()}
    except (TypeError, ValueError):
        raise SpecError(
            "input_shapes must map input names to shapes, as {'x': (1, 8)}", received=f"{value!r}"
        ) from None
    for name, shape in shapes.items():
        if not isinstance(name, str) or not all(type(d) is int and 0 < d < 2**31 for d in shape):
            raise SpecError(
                "input_shapes must map input names to whole dimensions above 0", received=f"{name!r}: {shape!r}"
            )
    return tuple(sorted(shapes.items()))


def _mlperf(min_runs: int, min_duration_s: float) -> BenchmarkSpec:
    """Count and minimum duration of MLPerf Mobile's single-stream modes."""
    return BenchmarkSpec(
        min_runs=min_runs,
        max_runs=1_000_000,
        min_duration_s=min_duration_s,
        max_duration_s=2 * min_duration_s,
        warmup_min_runs=10,
        warmup_min_duration_s=0.5,
        warmup_max_duration_s=5.0,
        timeout_s=30.0 + 10 * min_duration_s,
    )


# `search` is for candidates in a search loop; the others are MLPerf Mobile's modes.
PRESETS: dict[str, BenchmarkSpec] = {
    "search": BenchmarkSpec(),
    "rapid": _mlperf(64, 6.0),
    "quick": _mlperf(128, 10.0),
    "full": _mlperf(1024, 60.0),
}
