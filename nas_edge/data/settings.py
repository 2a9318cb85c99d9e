"""Settings of the data."""

from __future__ import annotations

from pydantic import Field

from nas_edge.settings import Settings


class AugmentationSettings(Settings):
    """Random changes to training images that preserve their class."""

    shift: float = Field(0.08, ge=0, lt=1, description="up to this fraction of the size in each direction")
    rotation_degrees: float = Field(10.0, ge=0, le=180, description="up to this angle in each direction")
    zoom: float = Field(0.1, ge=0, lt=1, description="in or out by up to this fraction")
    flip: bool = Field(False, description="mirror half of the images; on for photographs, off for digits and signs")


class DataSettings(Settings):
    """The data and its split."""

    source: str = Field(
        "digits", min_length=1, description="digits, a folder of class folders, a .npz, tfrecord:FOLDER or tfds:NAME"
    )
    skip_bad: bool = Field(False, description="leave out images that cannot be read, instead of stopping")
    validation_fraction: float = Field(0.15, gt=0, lt=0.5, description="fraction that architectures are scored on")
    validation_images: int | None = Field(
        None,
        ge=1,
        description="images that architectures are scored on, of all classes alike; in place of the fraction",
    )
    test_fraction: float = Field(0.2, gt=0, lt=0.5, description="fraction held out for the final accuracy")
    augmentation: AugmentationSettings = AugmentationSettings()
