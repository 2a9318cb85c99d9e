"""Keyword spotting: one of several keywords per recording, told by its log-mel spectrogram."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from nas_edge.data.settings import DataSettings
from nas_edge.errors import ConfigError, DataError
from nas_edge.tasks.base import BundleSection, TaskData, TaskSettings
from nas_edge.tasks.classification import LABELS, Classification, labels_section

# Augmentations for images only, with the values that switch them off.
_FOR_IMAGES: Mapping[str, Any] = {
    "data.augmentation.rotation_degrees": 0.0,
    "data.augmentation.zoom": 0.0,
    "data.augmentation.flip": False,
    "data.augmentation.crop_area": 1.0,
    "data.augmentation.randaugment": 0,
    "data.augmentation.erasing": 0.0,
    "data.evaluation_crop": 1.0,
}


class KeywordSpottingSettings(TaskSettings):
    """Settings of the task; `data/log_mel.py` explains those of the front end."""

    # Shifts are as published for Speech Commands, whatever a preset does to photographs.
    defaults: ClassVar[Mapping[str, Any]] = {**_FOR_IMAGES, "data.augmentation.shift": 0.1}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "data.source": "procedural:classes=4,difficulty=0.3,train=800,test=300",
            "space.input_size": 32,
        }
    }

    name: str = "keyword-spotting"
    sample_rate_hz: int = Field(16_000, ge=1_000, le=192_000, description="samples per second of every recording")
    clip_ms: float = Field(1_000.0, gt=0, le=60_000, description="length of the input: the middle of a recording")
    window_ms: float = Field(40.0, gt=0, description="length of a frame of the spectrogram")
    low_hz: float = Field(20.0, ge=0, description="lower edge of the lowest mel band")
    high_hz: float | None = Field(
        None, gt=0, description="upper edge of the highest mel band; null for half the sample rate"
    )
    noise_volume: float = Field(
        0.1, ge=0, le=1, description="largest factor of the noise from _background_noise_ in training recordings"
    )
    noise_share: float = Field(
        0.8, ge=0, le=1, description="share of training recordings that get noise, if there is any"
    )


class KeywordSpotting(Classification):
    """Recognises keywords: one logit per keyword; the largest is the answer.

    The input is a square spectrogram: `space.input_size` frames and as many mel bands.
    """

    examples = "recordings"
    settings: KeywordSpottingSettings

    def load(self, settings: DataSettings, input_size: int, seed: int) -> TaskData:
        """See `Task`.

        Raises:
            DataError: also when recordings are silent.
            ConfigError: for settings that only apply to images, or an impossible front end.
        """
        from nas_edge.data.log_mel import LogMel, RecordingChanges
        from nas_edge.data.mixing import Mixing
        from nas_edge.data.preprocessing import moments
        from nas_edge.data.recordings import load_recordings
        from nas_edge.data.splits import split
        from nas_edge.data.threads import usable_threads
        from nas_edge.seeds import generator

        _refuse_changes_of_images(settings)
        own, workers = self.settings, usable_threads(settings.workers)
        rate_hz = own.sample_rate_hz
        clip, window = (round(rate_hz * ms / 1000) for ms in (own.clip_ms, own.window_ms))
        plain = LogMel(input_size, rate_hz, clip, window, own.low_hz, own.high_hz or rate_hz / 2)
        dataset, noises = load_recordings(settings.source, rate_hz, clip, settings.skip_bad, workers)
        fractions = settings.validation_fraction, settings.test_fraction
        parts = split(dataset, generator(seed, "split"), *fractions, settings.validation_images)
        mean, std = moments(dataset, parts.train, plain, workers)
        if not std[0] > 1e-3:
            raise DataError(f"the training recordings of {settings.source} are all silent, or all identical")
        preprocessing = replace(plain, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        changes = RecordingChanges(settings.augmentation.shift, noises, own.noise_volume, own.noise_share)
        mixing = Mixing(**settings.augmentation.of_batches) or None
        data = TaskData(dataset, parts, preprocessing, changes, workers, mixing, settings.processes)
        self.settle_targets(data)
        return data

    def contents(self, data: TaskData) -> str:
        """See `Task`; the number of keywords."""
        return f" of {self.outputs(data)} keywords"

    def bundle_section(self, data: TaskData) -> BundleSection:
        """See `NetworkTask`."""
        names = data.dataset.class_names
        return replace(
            labels_section(names),
            title="keyword spotter",
            says=f"recognises which of {len(names)} keywords a recording contains (`{LABELS}`, one per line, in the "
            "order of the outputs)",
            answer="the largest logit is the keyword",
        )


def _refuse_changes_of_images(settings: DataSettings) -> None:
    for name, neutral in _FOR_IMAGES.items():
        value: Any = settings
        for part in name.split(".")[1:]:
            value = getattr(value, part)
        if value != neutral:
            raise ConfigError(
                f"{name} applies to images, but this task has recordings",
                received=f"{value}",
                fix=f"--set {name}={str(neutral).lower()}",
            )
