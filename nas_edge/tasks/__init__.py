"""What networks are for, by name.

    classification   one label per image
    multi-label      which of several labels an image has
    regression       one or several numbers per image
    embedding        a vector per image, near those of images of its class
    segmentation     a class per pixel
    detection        boxes around objects, with a class each
    keyword-spotting one of several keywords per recording
    tabular          no networks at all: qualities and latencies are read from a table

A new task of this package is one file with its settings and a class, and one line in `TASKS`. Other packages add theirs
by entry points of the group `nas_edge.tasks`. `nas_edge.testing.check_task` checks what a task promises; see
`docs/own-task.md`.
"""

from __future__ import annotations

from nas_edge.errors import NasEdgeError
from nas_edge.registry import Entry, Registry
from nas_edge.tasks.base import BundleSection, Metric, NetworkTask, PairedTest, Targets, Task, TaskData, TaskSettings
from nas_edge.tasks.classification import Classification, ClassificationSettings
from nas_edge.tasks.detection import Detection, DetectionSettings
from nas_edge.tasks.embedding import Embedding, EmbeddingSettings
from nas_edge.tasks.keyword_spotting import KeywordSpotting, KeywordSpottingSettings
from nas_edge.tasks.multi_label import MultiLabel, MultiLabelSettings
from nas_edge.tasks.regression import Regression, RegressionSettings
from nas_edge.tasks.segmentation import Segmentation, SegmentationSettings
from nas_edge.tasks.tabular import Tabular, TabularSettings

TASKS: Registry[Task] = Registry(
    "name",
    "task",
    "nas_edge.tasks",
    {
        "classification": Entry(ClassificationSettings, Classification, "one label per image"),
        "multi-label": Entry(MultiLabelSettings, MultiLabel, "which of several labels an image has"),
        "regression": Entry(RegressionSettings, Regression, "one or several numbers per image"),
        "embedding": Entry(EmbeddingSettings, Embedding, "a vector per image, near those of images of its class"),
        "segmentation": Entry(SegmentationSettings, Segmentation, "a class per pixel"),
        "detection": Entry(DetectionSettings, Detection, "boxes around objects, with a class each"),
        "keyword-spotting": Entry(KeywordSpottingSettings, KeywordSpotting, "one of several keywords per recording"),
        "tabular": Entry(TabularSettings, Tabular, "qualities and latencies from a table"),
    },
    made=Task,
)


def metric_of(settings: TaskSettings) -> Metric:
    """What quality is in a run with these settings; a plain number if its task is not installed."""
    try:
        return TASKS.make(settings).metric
    except NasEdgeError:
        return Metric("quality")


__all__ = [
    "TASKS",
    "BundleSection",
    "Metric",
    "NetworkTask",
    "PairedTest",
    "Targets",
    "Task",
    "TaskData",
    "TaskSettings",
    "metric_of",
]
