"""`PairedResult`: what a paired test said of two networks, as results keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas_edge.runs.untrusted import count, number
from nas_edge.tasks.base import Array, PairedTest

# Differences whose p-value is below are called significant.
SIGNIFICANCE_LEVEL = 0.05

# Smaller p-values are said to be below it.
_LEAST_SHOWN = 0.001

_LONGEST_NAME = 100


@dataclass(frozen=True)
class PairedResult:
    """Whether two networks differ in the task's metric on the same test examples.

    Attributes:
        test: its name.
        examples: number of test examples.
        p_value: two-sided, 0 to 1; not corrected for the number of comparisons.
    """

    test: str
    examples: int
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether they differ, at the 5% level."""
        return self.p_value < SIGNIFICANCE_LEVEL

    def __str__(self) -> str:
        # A p-value just below the level must not be rounded up to it.
        shown = f"{self.p_value:.2g}" if float(f"{self.p_value:.2g}") != SIGNIFICANCE_LEVEL else f"{self.p_value:.3g}"
        p = f"p < {_LEAST_SHOWN}" if self.p_value < _LEAST_SHOWN else f"p = {shown}"
        return f"{self.test} {p}, {self.examples:,} test examples"

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PairedResult:
        """Reads `asdict` of a result; it may come from anywhere.

        Raises:
            ValueError, LookupError, TypeError: when it is something else.
        """
        name = record["test"]
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise ValueError(f"expected the name of a test, received {name!r:.80}")
        return cls(name, count(record["examples"]), number(record["p_value"], 0, 1))


def compare_scores(test: PairedTest | None, first: Array | None, second: Array | None) -> PairedResult | None:
    """Tests two networks on the same examples.

    Args:
        test: of the metric; None for one without.
        first: `[n]`, see `NetworkTask.example_scores`; None where unknown.
        second: `[n]`, likewise.

    Returns:
        None where there is nothing to test.
    """
    if test is None or first is None or second is None:
        return None
    return PairedResult(test.name, len(first), float(test.p_value(first, second)))
