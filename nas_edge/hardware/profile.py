"""`Hardware`: what a kind of hardware can run, as data.

A profile says what the *path to* the hardware takes: the delegate or compiler between a TFLite file and the silicon.
Each profile is one file beside this one, and one line in `hardware.HARDWARE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.networks.tflite_model import OperatorInfo

# What is wrong with an operator, in words that follow its name; "" where nothing is.
Rule: TypeAlias = Callable[[OperatorInfo], str]


def not_fused(operator: OperatorInfo) -> str:
    """The condition that no activation is fused into an operator."""
    return "" if operator.fused_activation == "NONE" else f"the activation {operator.fused_activation} is fused into it"


@dataclass(frozen=True)
class OperatorSupport:
    """How far an operator is supported.

    Attributes:
        max_version: the latest version that is.
        rules: further conditions.
    """

    max_version: int
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class HardwareFiles:
    """What the tools of some hardware make of a file that is delivered.

    Attributes:
        files: further files for the bundle, by name.
        says: what came of it, in a line; also why there are no files.
    """

    files: Mapping[str, bytes]
    says: str


@dataclass(frozen=True)
class Hardware:
    """What a kind of hardware can run.

    Attributes:
        name: as users give it.
        what: what it is, in a few words.
        sources: where the facts below come from.
        operators: what is supported, by the name in TFLite's schema.
        int8_dtypes: types of tensors in an int8 file.
        precisions: of files that run there.
        max_rank: dimensions of a tensor, batch included.
        rules: what every operator has to keep.
        on_chip_bytes: memory for parameters that are not sent again for each inference; None where there is no such.
        slow: operators that run, but are better left out, with the reason in words that follow the operator's name.
        substitutes: activations that a space gives up for this hardware, and what it takes instead.
        keeps_gates: whether a space keeps its squeeze-and-excitation there.
        finish: makes further files of one that is delivered; None where it runs as it is.
    """

    name: str
    what: str
    sources: tuple[str, ...]
    operators: Mapping[str, OperatorSupport]
    int8_dtypes: frozenset[str] = frozenset({"INT8", "INT32"})
    precisions: frozenset[Precision] = frozenset(PRECISIONS)
    max_rank: int = 4
    rules: tuple[Rule, ...] = ()
    on_chip_bytes: int | None = None
    slow: tuple[Rule, ...] = ()
    substitutes: Mapping[str, str] = field(default_factory=dict)
    keeps_gates: bool = True
    finish: Callable[[bytes], HardwareFiles] | None = None


def versions(
    latest: Mapping[str, int], rules: Mapping[str, tuple[Rule, ...]] | None = None
) -> dict[str, OperatorSupport]:
    """The supported operators.

    Args:
        latest: latest supported version by operator.
        rules: further conditions, of those that have any.
    """
    return {name: OperatorSupport(version, (rules or {}).get(name, ())) for name, version in latest.items()}
