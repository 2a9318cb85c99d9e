"""Latencies on devices of several models, each with a target of its own, as one latency: that of the furthest one.

    x_i      latency on device i over its target; 1 on target
    T_0      the target of the first device, ms
    answer   T_0 * max_i x_i, ms: the first device's own latency where that one is furthest

So the answer meets T_0 exactly where every device meets its target, a hard limit on it is one on each, and the absolute
reward of TuNAS becomes `Q + beta * |max_i x_i - 1|`: highest where the device that binds is on its target and all
others are below theirs. The mean of |x_i - 1| would not do: where one device is
over its target and another still under, what the one loses the other gains, nearly all of it where they are about
equally constrained, so a search would end beyond the limit of the one. Nor would max_i |x_i - 1|, which is best halfway
between them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from device_agents.verdicts import OWNERS, Owner
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import Candidate, LatencySource, outcome, resolve


@dataclass(frozen=True)
class Part:
    """One of several sources.

    Attributes:
        source: what says how long a network takes on one model of devices.
        target_ms: the latency to meet there.
    """

    source: LatencySource
    target_ms: float


class SeveralSources(LatencySource):
    """Asks all of several sources, and answers with the latency that is furthest beyond its target.

    A candidate that fails on one of them has failed.

    Args:
        parts: closed with this.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)

    @property
    def name(self) -> str:
        """All devices' models."""
        return " and ".join(part.source.name for part in self.parts)

    @property
    def measures_on_host(self) -> bool:
        """Whether one of them is this machine."""
        return any(part.source.measures_on_host for part in self.parts)

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`; all are asked at once."""
        future: Future[LatencyAnswer] = Future()
        waiting, lock = len(self.parts), threading.Lock()

        def answered(_: Future[LatencyAnswer]) -> None:
            nonlocal waiting
            with lock:
                waiting -= 1
                if waiting:
                    return
            resolve(future, self._joined([outcome(one) for one in asked]))

        asked = [part.source.submit(candidate) for part in self.parts]
        for one in asked:
            one.add_done_callback(answered)
        return future

    def close(self) -> None:
        """Closes all."""
        for part in self.parts:
            part.source.close()

    def _joined(self, answers: Sequence[LatencyAnswer | BaseException]) -> LatencyAnswer | BaseException:
        found = [answer for answer in answers if isinstance(answer, LatencyAnswer)]
        errors = [answer for answer in answers if not isinstance(answer, LatencyAnswer)]
        return errors[0] if errors else furthest(found, [part.target_ms for part in self.parts])


def furthest(answers: Sequence[LatencyAnswer], targets_ms: Sequence[float]) -> LatencyAnswer:
    """The answers on several devices as one, see above.

    Args:
        answers: one per device.
        targets_ms: likewise.
    """
    failed = sorted((a for a in answers if not a.ok), key=lambda answer: OWNERS[answer.verdict] is not Owner.CANDIDATE)
    if failed:  # one whose own fault it is comes first: it counts against the candidate
        return LatencyAnswer(failed[0].kind, failed[0].verdict, failed[0].detail, parts=tuple(answers))
    scales = [targets_ms[0] / target_ms for target_ms in targets_ms]
    scaled = [(answer.latency_ms or 0.0) * scale for answer, scale in zip(answers, scales, strict=True)]
    latency_ms = max(scaled)
    worst = scaled.index(latency_ms)
    of_worst = answers[worst]
    # The largest of several is at least the largest of their lower ends, and at most that of the upper ones.
    ends = [answer.interval_ms or (answer.latency_ms or 0.0, answer.latency_ms or 0.0) for answer in answers]
    low_ms = max(low_ms * scale for (low_ms, _), scale in zip(ends, scales, strict=True))
    high_ms = max(high_ms * scale for (_, high_ms), scale in zip(ends, scales, strict=True))
    interval_ms = None if all(answer.interval_ms is None for answer in answers) else (low_ms, high_ms)
    return LatencyAnswer(
        of_worst.kind, of_worst.verdict, of_worst.detail, latency_ms, interval_ms, parts=tuple(answers)
    )
