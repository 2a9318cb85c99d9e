"""Whether a device has changed between two sessions: what its probes say.

The same models were visited in both. Where all of them take so many times as long as before, the device is that much
slower, as one with other clocks, and every model on it. Where they differ, what has changed hits models differently,
too, and says nothing of any single one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

# Two undisturbed times of one probe on an unchanged device differ by less.
UNCHANGED = 0.03
# The probes' changes differ by less where they have changed alike.
ALIKE = 0.05


@dataclass(frozen=True)
class ProbeChange:
    """How the undisturbed times of probes have changed.

    Attributes:
        factors: Time now over time then, by name; at least one.
    """

    factors: Mapping[str, float]

    @property
    def is_none(self) -> bool:
        """Whether each is within what it differs by anyway."""
        return all(abs(math.log(factor)) <= UNCHANGED for factor in self.factors.values())

    @property
    def factor(self) -> float | None:
        """By how much all of them have changed; None if that differs."""
        logs = [math.log(factor) for factor in self.factors.values()]
        if max(logs) - min(logs) > ALIKE:
            return None
        return math.exp(math.fsum(logs) / len(logs))

    def __str__(self) -> str:
        return ", ".join(f"{name} {factor - 1:+.0%}" for name, factor in self.factors.items())


def change_of_probes(now_ms: Mapping[str, float], then_ms: Mapping[str, float]) -> ProbeChange | None:
    """Returns how probes have changed, None if no probe was visited in both sessions.

    Args:
        now_ms: Undisturbed times by name, in milliseconds.
        then_ms: The same of the earlier session.
    """
    factors = {name: now_ms[name] / then_ms[name] for name in now_ms if name in then_ms}
    return ProbeChange(factors) if factors else None
