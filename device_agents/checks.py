"""What a doctor says: one point looked at, what was found, and the fix.

Used for this machine (`nas-edge doctor`) and for a phone (`nas-edge devices doctor ADDRESS`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

State = Literal["pass", "warn", "fail"]


@dataclasses.dataclass(frozen=True)
class Check:
    """One point that was looked at.

    Args:
        name: what was looked at, in a word or three.
        state: `pass`; `warn` when work is possible but slower, rarer or less exact; `fail` when it is not.
        found: what is there, with numbers and their units.
        fix: what to do; empty when nothing has to be done.
    """

    name: str
    state: State
    found: str
    fix: str = ""


def healthy(checks: Iterable[Check]) -> bool:
    """Whether none of them failed."""
    return all(check.state != "fail" for check in checks)
