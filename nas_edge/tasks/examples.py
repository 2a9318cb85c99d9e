"""Opening and splitting the data of a task."""

from __future__ import annotations

from nas_edge.data.settings import DataSettings
from nas_edge.data.targets import CLASSES, TargetKind
from nas_edge.errors import ConfigError
from nas_edge.tasks.base import TaskData


def load_examples(
    settings: DataSettings,
    input_size: int,
    seed: int,
    kind: TargetKind = CLASSES,
    *,
    mixes: bool = True,
    moves: bool = True,
) -> TaskData:
    """Opens images with their targets and splits them: classes so that all parts have every class alike.

    Args:
        settings: of the data.
        input_size: side of the network's input, pixels.
        seed: of the run.
        kind: of the targets.
        mixes: whether targets of two images can be mixed, as mixup and cutmix do.
        moves: whether targets stay what they are where parts of an image move, as RandAugment does.

    Raises:
        DataError: when the data cannot be used.
        ConfigError: when targets are to be mixed that cannot be.
    """
    from nas_edge.data.augmentation import Augmentation
    from nas_edge.data.mixing import Mixing
    from nas_edge.data.preprocessing import standardize
    from nas_edge.data.sources import load
    from nas_edge.data.splits import split
    from nas_edge.data.threads import usable_threads
    from nas_edge.seeds import generator

    changes = settings.augmentation
    mixing = Mixing(**changes.of_batches) or None
    if mixing is not None and mixing.mixes_targets and not mixes:
        raise ConfigError(
            "data.augmentation.mixup and cutmix blend targets, and this task's targets cannot be blended",
            fix="set both to 0",
        )
    if mixing is not None and mixing.randaugment and not moves:
        raise ConfigError(
            "data.augmentation.randaugment moves parts of an image, and this task's targets do not follow",
            fix="--set data.augmentation.randaugment=0; shift, rotation, zoom, flip and crops move targets along",
        )
    workers = usable_threads(settings.workers)
    dataset = load(settings.source, settings.skip_bad, workers, kind)
    fractions = settings.validation_fraction, settings.test_fraction
    parts = split(dataset, generator(seed, "split"), *fractions, settings.validation_images)
    preprocessing = standardize(
        dataset, parts.train, input_size, dataset.channels, settings.evaluation_crop, settings.resize, workers
    )
    augmentation = Augmentation(**changes.of_images)
    return TaskData(dataset, parts, preprocessing, augmentation, workers, mixing, settings.processes)
