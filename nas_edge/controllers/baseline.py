"""The baseline of controllers that learn by REINFORCE, and the reward of failed candidates.

**The baseline** is a moving average of rewards. With `"before"` it takes in the current rewards before it is
subtracted, as in the code of TuNAS and ENAS. A reward is then compared partly with itself: with one sample per step,
the first advantage is exactly 0 and the next ones are shrunk (the second by half), which is negligible with many
samples per step, as in published searches, but not with one device. With `"after"`, rewards are compared with earlier
steps only, so the gradient is unbiased for any number of samples; the first step is compared with its own mean.

**A candidate that failed** has no reward, yet must become less likely, or a search would go on proposing what the
device cannot run. It gets the lowest reward of the last `1 / (1 - momentum)` updates, the baseline's own memory: as bad
as the worst recent network, on the current scale. (The worst of the whole run would compare a late candidate with an
untrained supernet.) It enters the baseline like any reward. Before anything was measured, failed candidates are left
out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from nas_edge.controllers.base import Outcome, State
from nas_edge.controllers.reinforce import FloatArray, MovingAverage

Taken: TypeAlias = Literal["before", "after"]


class Baseline:
    """A moving average of rewards; see the module.

    Args:
        momentum: of the moving average.
        taken: whether a step's rewards enter it before or after they are compared.
        start: its first value; None: the first rewards.
    """

    def __init__(self, momentum: float, taken: Taken, start: float | None = None) -> None:
        self._momentum, self._taken = momentum, taken
        self._average = MovingAverage() if start is None else MovingAverage(start, 1.0)
        self._lowest: deque[float] = deque(maxlen=max(1, round(1.0 / (1.0 - momentum))))

    @property
    def value(self) -> float | None:
        """The moving average of rewards, or None before the first."""
        return self._average.value

    def rewarded(self, outcomes: Sequence[Outcome]) -> list[tuple[Outcome, float]]:
        """Outcomes with their rewards; failed candidates get the lowest recent one."""
        measured = [outcome.reward for outcome in outcomes if outcome.reward is not None]
        if measured:
            self._lowest.append(min(measured))
        if not self._lowest:
            return []
        lowest = min(self._lowest)
        return [(outcome, lowest if outcome.reward is None else outcome.reward) for outcome in outcomes]

    def advantages(self, rewards: FloatArray) -> FloatArray:
        """A step's rewards minus the baseline; adds them to the moving average."""
        before = self._average.value
        mean = float(rewards.mean())
        self._average = self._average.update(mean, self._momentum)
        compared = self._average.value if self._taken == "before" else before
        advantages: FloatArray = rewards - (mean if compared is None else compared)
        return advantages

    def state(self) -> State:
        """Everything learned so far, as JSON values."""
        return {"baseline": [self._average.numerator, self._average.weight], "lowest": list(self._lowest)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` returned."""
        self._average = MovingAverage(*state["baseline"])
        self._lowest = deque(state["lowest"], maxlen=self._lowest.maxlen)
