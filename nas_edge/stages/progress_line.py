"""What the progress line says of a search, the most important first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from device_agents.api import Verdict
from device_agents.pool import DeviceStatus
from nas_edge.formatting import ms_text
from nas_edge.latency.device import DeviceSource
from nas_edge.search.loop import StepReport
from nas_edge.search.trials import Trial
from nas_edge.tasks.base import Metric
from nas_edge.text import kind_suffix

# A candidate seldom takes longer than this; if it does, the user should know what is waited for.
PATIENCE_S = 5.0


class SearchLine:
    """Follows a search.

    Args:
        target_ms: latency to aim at.
        metric: how qualities are written.
        sources: what measures; none for a search without a device.
        trials: those made before.
    """

    def __init__(
        self, target_ms: float, metric: Metric, sources: Sequence[DeviceSource], trials: Iterable[Trial]
    ) -> None:
        self._target_ms, self._metric, self._sources = target_ms, metric, sources
        self._best_reward = max((t.reward for t in trials if t.reward is not None), default=None)
        self._report: StepReport | None = None

    def show(self, report: StepReport) -> None:
        """Takes in a step."""
        rewards = [trial.reward for trial in report.trials if trial.reward is not None]
        if self._best_reward is not None:
            rewards.append(self._best_reward)
        self._best_reward = max(rewards, default=None)
        self._report = report

    def facts(self) -> list[str]:
        """What to show now; may be asked from another thread."""
        statuses = [status for source in self._sources for status in source.status()]
        facts = trouble(statuses)
        report = self._report
        if report is None:
            facts.append("compiling the first step")
        else:
            facts += self._trial(report) if report.trials else [f"loss {_number(report.loss)} (weights only)"]
            if report.entropy is not None:
                facts.append(f"entropy {report.entropy:.1f}")
        if not self._sources:
            return facts
        measuring = sum(status.state == "measuring" for status in statuses)
        facts.append(
            f"{measuring} of {len(statuses)} devices measuring" if len(statuses) > 1 else f"device {statuses[0].state}"
        )
        facts.append(f"queue {sum(source.queued for source in self._sources)}")
        return facts

    def _trial(self, report: StepReport) -> list[str]:
        """The step's last trial."""
        trial = report.trials[-1]
        if trial.latency is not None and trial.latency_ms is not None:
            flag = "" if trial.verdict == Verdict.OK else f" ({trial.verdict})"
            timed = f"{ms_text(trial.latency_ms)}/{ms_text(self._target_ms)} ms{kind_suffix(trial.latency.kind)}{flag}"
        else:
            timed = "not timed" if trial.verdict is None else str(trial.verdict)
        conditions = None if trial.measurement is None else trial.measurement.conditions
        temperature_c = None if conditions is None else conditions.temperature_c_after
        return [
            timed,
            f"reward {_number(trial.reward)}",
            f"best reward {_number(self._best_reward)}",
            f"quality {self._metric.text(trial.quality)}",
            "" if temperature_c is None else f"{temperature_c:.0f} °C",
        ]


def trouble(statuses: Sequence[DeviceStatus]) -> list[str]:
    """What keeps the search waiting, and why; empty when nothing does."""
    waited_s = max((status.state_s for status in statuses if status.state == "measuring"), default=0.0)
    out = [status for status in statuses if status.state == "quarantined"]
    if out:
        who = "the device" if len(statuses) == 1 else f"{len(out)} of {len(statuses)} devices"
        return [f"waiting for {who} to come back", out[-1].last_fault]
    return [f"waiting for the device for {waited_s:.0f} s"] if waited_s >= PATIENCE_S else []


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
