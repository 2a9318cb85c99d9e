"""TFRecord files that the tests write themselves, with TensorFlow's own writer."""

from __future__ import annotations

import io
import os
import random
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from PIL import Image

from nas_edge.data import tfrecords
from nas_edge.data.preprocessing import to_unit_range
from nas_edge.data.sources import load
from nas_edge.errors import DataError
from nas_edge.quiet import start_tensorflow

WHITE_PNG_SIZE = 8


def png(value: int) -> bytes:
    """A grey square."""
    stream = io.BytesIO()
    Image.new("RGB", (WHITE_PNG_SIZE, WHITE_PNG_SIZE + 2), (value, value, value)).save(stream, "PNG")
    return stream.getvalue()


def example(image: bytes | None, label: int | None, text: str = "") -> bytes:
    features = {}
    if image is not None:
        features["image/encoded"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    if label is not None:
        features["image/class/label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    if text:
        features["image/class/text"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
    written: bytes = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    return written


def write(file: Path, *records: bytes) -> Path:
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)
    return file


def refused(folder: Path, match: str) -> None:
    with pytest.raises(DataError, match=match) as error:
        load(f"tfrecord:{folder}")
    assert "\n" not in str(error.value)


def test_shards_in_the_layout_of_imagenet(tmp_path: Path) -> None:
    folder = tmp_path / "imagenet"
    write(folder / "train-00000-of-00002", example(png(10), 1, "tench"), example(png(20), 2, "goldfish"))
    write(folder / "train-00001-of-00002", example(png(30), 2, "goldfish"))
    write(folder / "validation-00000-of-00001", example(png(40), 1, "tench"))
    write(folder / "test-00000-of-00001", example(png(50), 0))
    dataset = load(f"tfrecord:{folder}")
    assert len(dataset.images) == len(dataset) == 4
    assert dataset.labels.tolist() == [0, 1, 1, 0], "counted from 0; ImageNet's files count from 1"
    assert dataset.class_names == ("tench", "goldfish")
    assert (dataset.validation_start, dataset.test_start) == (None, 3)
    assert dataset.left_out.ignored == {"test records without labels": 1}
    pixels = to_unit_range(8, 3).fit([dataset.images[i] for i in (3, 0, 2)])
    assert [int(image.max()) for image in pixels] == [40, 10, 30]


def test_validation_and_test_shards_each_serve_their_purpose(tmp_path: Path) -> None:
    write(tmp_path / "train", *(example(png(i), i % 2) for i in range(4)))
    write(tmp_path / "validation", example(png(4), 0), example(png(5), 1))
    write(tmp_path / "test", example(png(6), 0))
    dataset = load(f"tfrecord:{tmp_path}")
    assert (dataset.validation_start, dataset.test_start, len(dataset)) == (4, 6, 7)


def test_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [write(tmp_path / f"train-{i}", example(png(i), 0), example(png(i), 1)) for i in range(3)]
    files.append(write(tmp_path / "train-x", example(png(0), 0), b"no record"))
    for file in files:
        os.utime(file, (1_000_000_000, 1_000_000_000))
    read: list[Path] = []

    def counted(file: Path) -> Any:
        read.append(file)
        return records(file)

    records = tfrecords._records
    monkeypatch.setattr(tfrecords, "_records", counted)
    first = load(f"tfrecord:{tmp_path}", skip_bad=True, workers=2)
    assert sorted(read) == sorted(files)
    again = load(f"tfrecord:{tmp_path}", skip_bad=True)
    assert sorted(read) == sorted(files)
    assert again.left_out == first.left_out
    assert again.labels.tolist() == first.labels.tolist()
    assert [again.images[i] for i in range(7)] == [first.images[i] for i in range(7)]
    refused(tmp_path, "is not a tf.train.Example")
    read.clear()
    os.utime(files[1], (1_100_000_000, 1_100_000_000))
    load(f"tfrecord:{tmp_path}", skip_bad=True)
    assert read == [files[1]]


@pytest.mark.parametrize("names", [None, "cat\ndog\n"])
def test_labels_from_zero_with_and_without_names(tmp_path: Path, names: str | None) -> None:
    write(tmp_path / "train.tfrecord", *(example(png(i), i % 2) for i in range(6)))
    if names is not None:
        (tmp_path / "labels.txt").write_text(names)
    dataset = load(f"tfrecord:{tmp_path}")
    assert dataset.labels.tolist() == [0, 1] * 3
    assert dataset.class_names == (("0", "1") if names is None else ("cat", "dog"))
    assert dataset.test_start is None


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "train", example(png(1), 0), example(png(2), 1))
    content = file.read_bytes()
    for length in range(1, len(content), 23):
        file.write_bytes(content[:length])
        with pytest.raises(DataError, match="train"):
            load(f"tfrecord:{tmp_path}")


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    file = write(tmp_path / "train", example(png(1), 0), example(png(2), 1))
    content = bytearray(file.read_bytes())
    content[60] ^= 1
    file.write_bytes(content)
    refused(tmp_path, "train is damaged or truncated from byte 0 on")


@pytest.mark.parametrize(
    ("record", "match"),
    [
        (b"\xff\xff\xff", "is not a tf.train.Example"),
        (example(None, 1), "must have one image/encoded and one image/class/label; received 0 and 1"),
        (example(png(1), None), "received 1 and 0"),
        (example(b"my notes", 1), r"the image at byte \d+ of .*train is not a PNG, JPEG, WebP, BMP, GIF or TIFF image"),
        (example(png(1)[:45], 1), "cannot be decoded"),
        (example(png(1), 7), "has no image with label 1, of 8 classes"),
        (example(png(1), -1), "must be class numbers from 0"),
        (example(png(1), 0), "images of only one class"),
    ],
    # Not of the records: a message's map fields are serialised in any order, and all processes must name tests alike.
    ids=range(8),
)
def test_records_that_cannot_be_used_are_named(tmp_path: Path, record: bytes, match: str) -> None:
    write(tmp_path / "train", example(png(0), 0), record)
    refused(tmp_path, match)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "cannot list .*nowhere")
    refused(tmp_path, "holds no TFRecord files; expected some whose names begin with train")
    write(tmp_path / "validation", example(png(0), 0))
    refused(tmp_path, "holds no TFRecord files")
    write(tmp_path / "train", example(png(0), 0), example(png(0), 1))
    (tmp_path / "labels.txt").write_text("only one\n")
    refused(tmp_path, "has label 1 but there are only 1 class names")


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "train", example(png(0), 0), example(png(0), 1))
    dataset = load(f"tfrecord:{tmp_path}")
    file.unlink()
    with pytest.raises(DataError, match=re.escape(str(file))):
        dataset.images[0]


def test_all_bad_records_are_told_at_once_or_skipped(tmp_path: Path) -> None:
    good = [example(png(0), i) for i in (0, 1, 1)]
    write(tmp_path / "train", good[0], b"\xff\xff", good[1], example(b"my notes", 1), example(png(1), None), good[2])
    refused(tmp_path, r"3 of 6 images cannot be used: .*is not a tf.train.Example.*; .*; .*--skip-bad")
    dataset = load(f"tfrecord:{tmp_path}", skip_bad=True)
    assert dataset.labels.tolist() == [0, 1, 1]
    assert to_unit_range(8, 3).fit([dataset.images[i] for i in range(3)]).shape == (3, 8, 8, 3)
    assert len(dataset.left_out.skipped) == 3


def test_other_files_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "train", example(png(0), 0), example(png(0), 1))
    for name in ("labels.txt", "notes.txt", "test-00000-of-00001", "validation-00000-of-00001"):
        (tmp_path / name).touch()
    write(tmp_path / "validation-00000-of-00001", example(png(0), 0))
    (tmp_path / "labels.txt").write_text("a\nb\n")
    assert load(f"tfrecord:{tmp_path}").left_out.ignored == {".txt": 1}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
@pytest.mark.parametrize("name", ["train-1", "labels.txt"])
def test_a_fifo_is_told_and_not_waited_for(tmp_path: Path, name: str) -> None:
    write(tmp_path / "train-0", example(png(0), 0), example(png(0), 1))
    os.mkfifo(tmp_path / name)
    signal.alarm(60)
    try:
        refused(tmp_path, f"{name}.* not a regular file")
    finally:
        signal.alarm(0)


def test_an_image_that_is_damaged_inside_is_skipped_where_bad_ones_are(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.frombytes("RGB", (40, 40), random.Random(0).randbytes(4800)).save(stream, "PNG")
    damaged = bytearray(stream.getvalue())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 64] = bytes(64)
    folder = tmp_path / "records"
    write(folder / "train-0", example(png(10), 0), example(bytes(damaged), 1), example(png(20), 1))
    assert len(load(f"tfrecord:{folder}")) == 3
    dataset = load(f"tfrecord:{folder}", skip_bad=True)
    assert len(dataset) == 2
    assert "cannot be decoded" in dataset.left_out.skipped[0]


def test_reading_does_not_decide_whether_operators_are_deterministic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow then refuses random numbers without a seed, and it cannot be switched off again."""
    switched_on: list[bool] = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: switched_on.append(True))
    write(tmp_path / "train-0", example(png(10), 0), example(png(20), 1))
    load(f"tfrecord:{tmp_path}")
    assert not switched_on
    start_tensorflow(True)
    assert switched_on, "it is switched on in another way: this test shows nothing"
