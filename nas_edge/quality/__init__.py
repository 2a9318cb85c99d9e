"""Where the quality of an architecture comes from, in a search that evaluates one architecture at a time.

    short-training   a short training of its own
    column           read from a column of the table that is searched

(A one-shot search scores with its shared weights, see `shared_weights.py`.) A new source of this package is one file
with its settings and a class, and one line in `QUALITY_SOURCES`. Other packages add theirs by entry points of the group
`nas_edge.quality_sources`.
"""

from __future__ import annotations

from typing import Any

from nas_edge.quality.column import ColumnQualitySettings, open_column
from nas_edge.quality.short_training import ShortTrainingSettings
from nas_edge.quality.source import Quality, QualityContext, QualitySettings, QualitySource
from nas_edge.registry import Entry, Registry


def _short_training(settings: Any, context: QualityContext) -> QualitySource:
    from nas_edge.quality.short_training import ShortTraining

    return ShortTraining(settings, context)


QUALITY_SOURCES: Registry[QualitySource] = Registry(
    "source",
    "quality source",
    "nas_edge.quality_sources",
    {
        "short-training": Entry(ShortTrainingSettings, _short_training, "a short training of each architecture"),
        "column": Entry(ColumnQualitySettings, open_column, "a column of the table that is searched"),
    },
    made=QualitySource,
)

__all__ = ["QUALITY_SOURCES", "Quality", "QualityContext", "QualitySettings", "QualitySource"]
