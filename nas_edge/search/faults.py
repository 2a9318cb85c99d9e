"""When a search must stop because its measurements teach it nothing: a broken bench, or a space that does not run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from device_agents.api import Verdict
from nas_edge.errors import UnreliableLatencyError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import CANDIDATE_FAULTS

# A bench that gives this many unusable answers in a row is broken, and a search on it would learn nothing.
UNUSABLE_IN_A_ROW = 20
# Candidates differ: when this many in a row fail in the same way, the fault is hardly theirs.
ALIKE_IN_A_ROW = 20


class FaultWatch:
    """Counts answers without a latency, and stops the search after too many in a row."""

    def __init__(self) -> None:
        self._unusable = 0
        self._alike = 0
        self._fault = ""

    def take(self, answer: LatencyAnswer | None, source: str, adjusted: bool = False) -> None:
        """Takes in an answer.

        Args:
            answer: None for a candidate whose latency was not asked for, which says nothing, no more than one that is
                in no table.
            source: what answered.
            adjusted: whether it could be used after all, beside those of other candidates.

        Raises:
            UnreliableLatencyError: after too many in a row that cannot be used, or that failed in the same way.
        """
        if answer is None or answer.verdict == Verdict.NOT_KNOWN:
            return
        blamed = answer.verdict in CANDIDATE_FAULTS
        # A candidate's own fault neither counts against the bench nor speaks for it.
        self._unusable = 0 if answer.ok or adjusted else self._unusable + (not blamed)
        # Addresses and sizes differ from one candidate to the next.
        fault = f"{answer.verdict} {re.sub(r'[0-9]+', '#', answer.detail)}" if blamed else ""
        self._alike = self._alike + 1 if fault and fault == self._fault else int(bool(fault))
        self._fault = fault
        if self._unusable >= UNUSABLE_IN_A_ROW:
            raise UnreliableLatencyError(
                f"the last {self._unusable} measurements on {source} cannot be used: {answer.verdict}, {answer.detail}",
                answer.verdict,
            )
        if self._alike >= ALIKE_IN_A_ROW:
            raise UnreliableLatencyError(
                f"the last {self._alike} candidates failed in the same way on {source}: {answer.verdict}, "
                f"{answer.detail}",
                answer.verdict,
            )

    def state(self) -> dict[str, Any]:
        """The counts, as JSON values."""
        return {"unusable": self._unusable, "alike": self._alike, "fault": self._fault}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` returned; earlier versions counted unusable answers only."""
        self._unusable = int(state["unusable"])
        self._alike, self._fault = int(state.get("alike", 0)), str(state.get("fault", ""))
