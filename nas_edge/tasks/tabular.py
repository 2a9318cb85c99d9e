"""No networks at all: qualities and latencies are read from a table, to rehearse a search in seconds."""

from __future__ import annotations

from nas_edge.data.settings import DataSettings
from nas_edge.tasks.base import Metric, Task, TaskData, TaskSettings


class TabularSettings(TaskSettings):
    """Settings of the task."""

    name: str = "tabular"


class Tabular(Task):
    """Ends with the architecture that was found; there is nothing to train."""

    metric = Metric("quality")

    def load(self, settings: DataSettings, input_size: int, seed: int) -> TaskData | None:
        """No data."""
        return None

    def outputs(self, data: TaskData | None) -> int:
        """None."""
        return 0
