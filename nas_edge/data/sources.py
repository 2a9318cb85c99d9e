"""Where images and their targets come from. Nothing is guessed about bad data.

    digits          scikit-learn's 1,797 real scans of handwritten digits, 8 x 8, one channel
    procedural[:NAME=VALUE,...]
                    images drawn by rule, of any number, size and difficulty, see `procedural.py`
    FILE.npz        arrays x and y, or x_train, y_train with x_val, y_val, x_test, y_test; optionally class_names
    FOLDER          one sub-folder per class with image files, or train/, val/ and test/ holding those
    tfrecord:FOLDER TFRecord files in the layout usual for ImageNet, see `tfrecords.py`
    tfds:NAME       a TensorFlow Datasets name (needs the extra `tfds`)
    coco:FOLDER     image folders with boxes in COCO's format, see `coco.py`

Targets other than classes (`targets.py`) come from .npz files and `procedural`, and boxes from `coco:`, too.

Whatever cannot be used is refused before a search starts, in one line that names the files and what to do. Image files
may be PNG, JPEG, WebP, BMP, GIF or TIFF, see `image_files.py`. Images stay where they are, and are read when asked for.
"""

from __future__ import annotations

from pathlib import Path

from nas_edge.data.arrays import load_digits, load_npz
from nas_edge.data.coco import load_coco
from nas_edge.data.dataset import Dataset
from nas_edge.data.folders import load_folder
from nas_edge.data.procedural import load_procedural
from nas_edge.data.targets import BOXES, CLASSES, TargetKind
from nas_edge.errors import DataError

__all__ = ["Dataset", "load"]


def load(source: str, skip_bad: bool = False, workers: int = 0, kind: TargetKind = CLASSES) -> Dataset:
    """Opens a data source and checks it.

    Args:
        source: see the top of this file.
        skip_bad: leaves out bad images, which `Dataset.left_out` then lists, instead of refusing the data.
        workers: threads that check files.
        kind: of the targets.

    Raises:
        DataError: when the data cannot be used, or have no such targets.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "procedural":
        return load_procedural(rest, kind=kind)
    if scheme == "coco":
        if kind is not BOXES:
            raise DataError(f"{source} has boxes only", expected=f"{kind.name}: {kind.says}", fix="--task detection")
        return load_coco(Path(rest).expanduser(), skip_bad, workers)
    if kind is not CLASSES and Path(source).suffix != ".npz":
        raise DataError(
            f"{source} has classes only",
            expected=f"{kind.name}: {kind.says}",
            fix="bring them in an .npz file (x, y), or try procedural",
        )
    if source == "digits":
        return load_digits()
    if scheme == "tfds":
        from nas_edge.data.tfds import load_tfds

        return load_tfds(rest)
    if scheme == "tfrecord":
        from nas_edge.data.tfrecords import load_tfrecords  # needs TensorFlow

        return load_tfrecords(Path(rest).expanduser(), skip_bad, workers)
    path = Path(source).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror or error}") from error
    if is_folder:
        return load_folder(path, skip_bad, workers)
    if not exists:
        raise DataError(
            f"{source} does not exist; expected digits, procedural, a folder of class folders, a .npz file, "
            "tfrecord:FOLDER, tfds:NAME or coco:FOLDER"
        )
    if path.suffix != ".npz":
        raise DataError(f"{source} is not a folder or a .npz file; images go into one folder per class")
    return load_npz(path, skip_bad, kind)
