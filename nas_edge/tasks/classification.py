"""Image classification: one label per image."""

from __future__ import annotations

from nas_edge.data.settings import DataSettings
from nas_edge.tasks.base import Task, TaskData, TaskSettings


class ClassificationSettings(TaskSettings):
    """Settings of the task."""

    name: str = "classification"


class Classification(Task):
    """Tells classes apart."""

    def load(self, settings: DataSettings, input_size: int, seed: int) -> TaskData:
        """See `Task`."""
        from nas_edge.data.preprocessing import Augmentation, standardize
        from nas_edge.data.sources import load
        from nas_edge.data.splits import split
        from nas_edge.seeds import generator

        dataset = load(settings.source, input_size, settings.skip_bad)
        parts = split(dataset, generator(seed, "split"), settings.validation_fraction, settings.test_fraction)
        channels = 1 if dataset.images.shape[-1] == 1 else 3
        preprocessing = standardize(dataset, parts.train, input_size, channels)  # type: ignore[arg-type]
        return TaskData(dataset, parts, preprocessing, Augmentation(**settings.augmentation.model_dump()))

    def outputs(self, data: TaskData | None) -> int:
        """One per class."""
        assert data is not None
        return len(data.dataset.class_names)

    def describe(self, settings: DataSettings, data: TaskData) -> str:
        """See `Task`; with the number of classes."""
        before, _, after = super().describe(settings, data).partition(" images;")
        return f"{before} images of {self.outputs(data)} classes;{after}"
