"""Settings of the data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from nas_edge.settings import Settings


class AugmentationSettings(Settings):
    """Random changes to training images that preserve their class."""

    shift: float = Field(0.08, ge=0, lt=1, description="up to this fraction of the size in each direction")
    rotation_degrees: float = Field(10.0, ge=0, le=180, description="up to this angle in each direction")
    zoom: float = Field(0.1, ge=0, lt=1, description="in or out by up to this fraction")
    flip: bool = Field(False, description="mirror half of the images; on for photographs, off for digits and signs")
    crop_area: float = Field(
        1.0, gt=0, le=1, description="cut out a random part of at least this area; 0.08 for photographs, 1 for none"
    )
    randaugment: int = Field(0, ge=0, le=16, description="number of RandAugment's operations, drawn for each batch")
    randaugment_magnitude: float = Field(0.5, ge=0, le=1, description="of each of RandAugment's operations")
    erasing: float = Field(0.0, ge=0, le=1, description="up to this probability, a part of an image becomes noise")
    mixup: float = Field(0.0, ge=0, le=1, description="alpha of mixup; 0 for none, 0.2 as published for ImageNet")
    cutmix: float = Field(0.0, ge=0, le=1, description="alpha of cutmix; 0 for none, 1 as published")

    @property
    def of_images(self) -> dict[str, Any]:
        """What is done to each image on its own, see `augmentation.Augmentation`."""
        return self.model_dump(include={"shift", "rotation_degrees", "zoom", "flip", "crop_area"})

    @property
    def of_batches(self) -> dict[str, Any]:
        """What is done to whole batches, see `mixing.Mixing`."""
        return self.model_dump(include={"randaugment", "randaugment_magnitude", "erasing", "mixup", "cutmix"})


class DataSettings(Settings):
    """The data and its split."""

    source: str = Field(
        "digits",
        min_length=1,
        description="digits, procedural, a folder with classes, a .npz, tfrecord:FOLDER, tfds:NAME or coco:FOLDER",
    )
    skip_bad: bool = Field(False, description="leave out images that cannot be read, instead of stopping")
    validation_fraction: float = Field(0.15, gt=0, lt=0.5, description="fraction that architectures are scored on")
    validation_images: int | None = Field(
        None,
        ge=1,
        description="images that architectures are scored on, of all classes alike; in place of the fraction",
    )
    test_fraction: float = Field(0.2, gt=0, lt=0.5, description="fraction held out for the final accuracy")
    evaluation_crop: float = Field(
        1.0, gt=0, le=1, description="side of the centre square seen in evaluation; 0.875 for photographs"
    )
    resize: Literal["bilinear", "bicubic"] = Field("bilinear", description="filter; bicubic for photographs")
    workers: int | None = Field(
        None, ge=0, le=256, description="threads that read and decode ahead; null for two per processor, up to 16"
    )
    processes: int = Field(
        0, ge=0, le=64, description="processes that read image files ahead to train with, in place of the threads"
    )
    augmentation: AugmentationSettings = AugmentationSettings()


# How photographs are augmented and cropped, as published for ImageNet: random parts and mirrored ones to train with,
# the central 224 of 256 pixels in evaluation, both resized bicubically (MnasNet's input pipeline, which TuNAS uses).
# The settings' own defaults are for digits and signs.
PHOTOGRAPHS: dict[str, Any] = {
    "evaluation_crop": 0.875,
    "resize": "bicubic",
    "augmentation": {"crop_area": 0.08, "flip": True, "shift": 0.0, "rotation_degrees": 0.0, "zoom": 0.0},
}
