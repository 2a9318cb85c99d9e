"""Every source loads what it should, and bad data is one clear line naming the file."""

import os
import socket
import struct
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas_edge.data import folders, sources
from nas_edge.data.dataset import EncodedImage, Pixels
from nas_edge.data.examined import cache_folder
from nas_edge.data.image_files import problem_with_file
from nas_edge.data.preprocessing import to_unit_range
from nas_edge.data.settings import DataSettings
from nas_edge.data.sources import Dataset, load
from nas_edge.errors import DataError
from nas_edge.tasks.classification import Classification, ClassificationSettings

RNG = np.random.default_rng(0)


def refused(source: str | Path, because: str, **options: Any) -> None:
    """The source is refused in one line that says `because`."""
    with pytest.raises(DataError, match=because) as error:
        load(str(source), **options)
    assert "\n" not in str(error.value)


def seen(dataset: Dataset, *indices: int, size: int = 8) -> Pixels:
    """What a network sees of images."""
    return to_unit_range(size, dataset.channels).fit([dataset.images[i] for i in indices])


def all_images(dataset: Dataset) -> Pixels:
    """All of them, as they are stored, or what can be seen of files."""
    every = [dataset.images[i] for i in range(len(dataset))]
    if all(isinstance(image, np.ndarray) for image in every):
        return np.stack(every)
    return seen(dataset, *range(len(dataset)))


# ---------------------------------------------------------------- digits


def test_digits_are_the_1797_scans_at_full_range() -> None:
    digits = load("digits")
    pixels = all_images(digits)
    assert pixels.shape == (1797, 8, 8, 1)
    assert pixels.dtype == np.uint8
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert digits.labels.dtype == np.int32
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert digits.class_names == tuple("0123456789")
    assert digits.test_start is None


# ---------------------------------------------------------------- npz


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def images(n: int, *, size: int = 5, channels: int = 3) -> Any:
    return RNG.integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def test_npz_with_x_and_y(tmp_path: Path) -> None:
    x, y = images(6), np.array([0, 1, 2, 0, 1, 2])
    dataset = load(str(npz(tmp_path, x=x, y=y)))
    np.testing.assert_array_equal(all_images(dataset), x)
    np.testing.assert_array_equal(dataset.labels, y)
    assert dataset.class_names == ("0", "1", "2")


def test_npz_with_a_test_part_keeps_it_apart(tmp_path: Path) -> None:
    path = npz(tmp_path, x_train=images(4), y_train=[0, 1, 0, 1], x_test=images(2), y_test=[[1], [0]])
    dataset = load(str(path))
    assert dataset.test_start == 4
    assert dataset.labels.tolist() == [0, 1, 0, 1, 1, 0]


def test_npz_with_validation_images(tmp_path: Path) -> None:
    parts = {"x_train": images(4), "y_train": [0, 1, 0, 1], "x_val": images(3), "y_val": [0, 1, 1]}
    alone = load(str(npz(tmp_path, **parts)))
    assert (alone.validation_start, alone.test_start) == (None, 4)
    dataset = load(str(npz(tmp_path, **parts, x_test=images(2), y_test=[0, 1])))
    assert (dataset.validation_start, dataset.test_start, len(dataset)) == (4, 7, 9)
    np.testing.assert_array_equal(all_images(dataset)[4:7], parts["x_val"])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_is_mapped_rather_than_read(tmp_path: Path, save: Any, order: Any) -> None:
    """Of 64 MiB of images little is ever in memory."""
    x = np.zeros((64, 1024, 1024), np.uint8, order)
    x[5, :3, :3] = 7
    save(tmp_path / "data.npz", x=x, y=np.arange(64) % 2)
    del x
    tracemalloc.start()
    try:
        dataset = load(str(tmp_path / "data.npz"))
        assert int(np.asarray(dataset.images[5]).sum()) == 63
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_npz_may_name_its_classes(tmp_path: Path) -> None:
    path = npz(tmp_path, x=images(2), y=[0, 1], class_names=np.array(["cat", "dog"]))
    assert load(str(path)).class_names == ("cat", "dog")


def test_grey_images_without_a_channel_axis_get_one(tmp_path: Path) -> None:
    assert all_images(load(str(npz(tmp_path, x=images(2)[..., 0], y=[0, 1])))).shape == (2, 5, 5, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_fractions_become_pixels(tmp_path: Path, dtype: Any) -> None:
    x = np.array([0.0, 0.5, 1.0, 0.2], dtype).reshape(2, 1, 2, 1)
    assert all_images(load(str(npz(tmp_path, x=x, y=[0, 1])))).ravel().tolist() == [0, 128, 255, 51]


def test_wider_integers_become_pixels(tmp_path: Path) -> None:
    x = images(2)
    np.testing.assert_array_equal(all_images(load(str(npz(tmp_path, x=x.astype(np.int64), y=[0, 1])))), x)


@pytest.mark.parametrize(
    ("arrays", "because"),
    [
        ({"a": [1]}, "must hold x and y, .* found a"),
        ({"x_train": images(2), "y_train": [0, 1], "x_test": images(1)}, "only one of x_test and y_test"),
        ({"x": images(3), "y": [0, 1]}, "x has 3 images but y has 2 labels"),
        ({"x": images(2)[0], "y": [0, 1]}, "x has 5 images but y has 2 labels"),
        ({"x": np.zeros((2, 5)), "y": [0, 1]}, r"must be \[n, height, width\]"),
        ({"x": images(2, channels=2), "y": [0, 1]}, r"1 or 3\], received \[2, 5, 5, 2\]"),
        ({"x": images(0), "y": []}, r"received \[0, 5, 5, 3\]"),
        ({"x": images(2), "y": [0.0, 1.0]}, "must be whole numbers, received float64"),
        ({"x": images(2), "y": [-1, 1]}, r"must be class numbers from 0, received -1\.\.1"),
        ({"x": images(2), "y": [[0, 1], [1, 0]]}, r"one class number per image"),
        ({"x": images(2), "y": [0, 0]}, "of only one class"),
        ({"x": images(2), "y": [1, 2]}, "no image with label 0"),
        ({"x": images(2), "y": [0, 2]}, "no image with label 1"),
        ({"x": images(2), "y": [0, 2**30]}, "no image with label 1"),
        ({"x": images(2), "y": [0, 2], "class_names": ["a", "b"]}, "label 2 but there are only 2 class names"),
        ({"x": images(2), "y": [0, 1], "class_names": ["a", "b", "c"]}, "no image with label 2, of 3 classes"),
        ({"x": np.full((2, 4, 4), np.nan), "y": [0, 1]}, "not finite"),
        ({"x": np.full((2, 4, 4), np.inf), "y": [0, 1]}, "not finite"),
        ({"x": np.full((2, 4, 4), 17.5), "y": [0, 1]}, r"must be in 0\.\.1, received 17\.5"),
        ({"x": np.full((2, 4, 4), 256), "y": [0, 1]}, r"must be in 0\.\.255"),
        ({"x": np.full((2, 4, 4), "a"), "y": [0, 1]}, "must hold numbers"),
        ({"x_train": images(2), "y_train": [0, 1], "x_test": images(1, size=4), "y_test": [0]}, "different shapes"),
        ({"x_train": images(2), "y_train": [0, 1], "x_test": images(1), "y_test": [2]}, "no training image has"),
    ],
)
def test_bad_arrays_are_refused_with_the_reason(tmp_path: Path, arrays: dict[str, Any], because: str) -> None:
    path = npz(tmp_path, **arrays)
    refused(path, because)
    refused(path, "data.npz")


def test_images_with_nan_are_told_at_once_or_skipped(tmp_path: Path) -> None:
    x = np.zeros((6, 4, 4))
    x[1], x[4, 2, 2] = np.nan, np.inf
    path = npz(tmp_path, x=x, y=[0, 1, 0, 1, 0, 1])
    refused(path, r"data\.npz: 2 of 6 images cannot be used: image 1 of x holds .*; image 4 of x holds .*--skip-bad")
    dataset = load(str(path), skip_bad=True)
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert len(all_images(dataset)) == len(dataset.left_out.skipped) + 2 == 4
    refused(npz(tmp_path, x=np.full((2, 4, 4), np.nan), y=[0, 1]), "has no images without NaN", skip_bad=True)


def test_pickled_arrays_are_never_opened(tmp_path: Path) -> None:
    refused(npz(tmp_path, x=np.array([{"a": 1}], object), y=[0]), "holds pickled objects")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    refused(path, "data.npz")


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with path.open("wb") as file:
        np.save(file, images(2))
    refused(path, "holds a single array")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_npz_is_refused(tmp_path: Path, keep: float) -> None:
    path = npz(tmp_path, x=images(20), y=[0, 1] * 10)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    refused(path, "data.npz is not a readable")


def test_a_damaged_npz_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path, x=images(20), y=[0, 1] * 10)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    refused(path, "data.npz is not a readable")


# ---------------------------------------------------------------- folders


def image_folder(root: Path, classes: dict[str, int], suffix: str = "png") -> Path:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(images(1, size=20)[0]).save(root / name / f"{i}.{suffix}")
    return root


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "webp", "bmp", "gif", "tif", "TIFF", "jfif"])
def test_folder_of_class_folders(tmp_path: Path, suffix: str) -> None:
    folder = image_folder(tmp_path, {"dog": 2, "cat": 3}, suffix)
    (folder / "README.txt").write_text("not a class")
    (folder / ".cache").mkdir()
    dataset = load(str(folder))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1]
    assert len(dataset.images) == 5
    assert seen(dataset, 4, 0, size=12).shape == (2, 12, 12, 3)


def test_folder_with_train_and_test_keeps_them_apart(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", {"a": 2, "b": 2})
    image_folder(tmp_path / "test", {"a": 1, "b": 1})
    dataset = load(str(tmp_path))
    assert dataset.test_start == 4
    assert dataset.labels.tolist() == [0, 0, 1, 1, 0, 1]


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_validation_images_score_architectures_where_others_are_tested_on(tmp_path: Path, name: str) -> None:
    image_folder(tmp_path / "train", {"a": 4, "b": 4})
    image_folder(tmp_path / name, {"a": 1, "b": 2})
    alone = load(str(tmp_path))
    assert (alone.validation_start, alone.test_start, len(alone)) == (None, 8, 11)
    image_folder(tmp_path / "test", {"a": 2, "b": 2})
    dataset = load(str(tmp_path))
    assert (dataset.validation_start, dataset.test_start, len(dataset)) == (8, 11, 15)
    assert dataset.labels.tolist() == [0] * 4 + [1] * 4 + [0, 1, 1] + [0, 0, 1, 1]
    last = dataset.images[14]
    assert isinstance(last, EncodedImage)
    assert last.content == (tmp_path / "test" / "b" / "1.png").read_bytes()


def test_files_are_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until they change; in whatever number of threads."""
    folder = image_folder(tmp_path / "photos", {"a": 150, "b": 2})
    (folder / "a" / "7.png").write_text("hello")
    (folder / "a" / "gone.png").symlink_to("nowhere.png")
    for file in folder.glob("*/*.png"):
        os.utime(file, (1_000_000_000, 1_000_000_000), follow_symlinks=file.exists())
    checked: list[Path] = []

    def counted(path: Path, decode: bool) -> str:
        checked.append(path)
        return problem_with_file(path, decode)

    files = replace(folders.IMAGE_FILES, problem=counted)
    monkeypatch.setattr(sources, "load_folder", partial(folders.load_folder, files=files))
    first = load(str(folder), skip_bad=True, workers=3)
    assert sorted(checked) == sorted(folder.glob("*/*.png"))
    checked.clear()
    again = load(str(folder), skip_bad=True)
    assert checked == [folder / "a" / "gone.png"], "it cannot be told whether that is still the same"
    assert again.left_out == first.left_out
    refused(folder, r"2 of 153 images cannot be used: .*a/7\.png is not")
    checked.clear()
    image_folder(tmp_path / "other", {"a": 1})
    (tmp_path / "other" / "a" / "0.png").replace(folder / "a" / "7.png")
    (folder / "a" / "8.png").unlink()
    assert len(load(str(folder), skip_bad=True)) == 151
    assert folder / "a" / "7.png" in checked
    assert len(checked) == 2


def test_an_image_that_is_damaged_inside_is_skipped_where_bad_ones_are(tmp_path: Path) -> None:
    """Its header and its end are whole, so only decoding tells."""
    folder = image_folder(tmp_path / "photos", {"a": 2, "b": 2})
    file = folder / "a" / "0.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(file)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    file.write_bytes(content)
    assert len(load(str(folder))) == 4
    dataset = load(str(folder), skip_bad=True)
    assert len(dataset) == 3
    assert len(dataset.left_out.skipped) == 1
    assert "0.png cannot be decoded" in dataset.left_out.skipped[0]
    seen(dataset, 0, 1, 2)


def test_a_damaged_cache_only_takes_time(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "photos", {"a": 2, "b": 2})
    for file in folder.glob("*/*.png"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    before = set((cache_folder() / "examined").glob("*"))
    load(str(folder))
    (cache,) = set((cache_folder() / "examined").glob("*")) - before
    cache.write_text("not a database")
    assert len(load(str(folder))) == 4


def test_images_are_the_centre_square_at_the_size_asked_for(tmp_path: Path) -> None:
    """A wide picture with a bright middle: the dark sides are cropped away."""
    image_folder(tmp_path, {"a": 1, "b": 1})
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    Image.fromarray(wide).save(tmp_path / "a" / "0.png")
    assert (seen(load(str(tmp_path)), 0, size=5) == 200).all()


def test_phone_photographs_are_turned_upright(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1}, "jpg")
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    Image.fromarray(pixels).save(tmp_path / "a" / "0.jpg", exif=exif)
    loaded = seen(load(str(tmp_path)), 0, size=16)[0]
    assert loaded[:6].max() < 50
    assert loaded[10:].min() > 200


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_every_common_image_mode_is_read(tmp_path: Path, mode: str) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1})
    path = tmp_path / "a" / ("0.jpg" if mode == "CMYK" else "0.png")
    Image.fromarray(images(1, size=20)[0]).convert(mode).save(path)
    assert all_images(load(str(tmp_path))).shape[1:] == (8, 8, 3)


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1})
    Image.fromarray(images(1, size=20)[0]).convert("P").save(tmp_path / "a" / "0.png", transparency=bytes(range(256)))
    all_images(load(str(tmp_path)))


def test_sixteen_bit_images_are_refused_rather_than_clipped(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1})
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "a" / "0.png")
    refused(tmp_path, r"a/0\.png has more than 8 bits")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.95])
def test_a_truncated_image_is_found_before_the_search(tmp_path: Path, suffix: str, keep: float) -> None:
    image_folder(tmp_path, {"a": 2, "b": 1}, suffix)
    path = tmp_path / "a" / f"1.{suffix}"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    refused(tmp_path, rf"a/1\.{suffix} .*replace or remove it")


def test_an_image_that_is_whole_but_has_bytes_appended_is_accepted(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1}, "jpg")
    with (tmp_path / "a" / "0.jpg").open("ab") as file:
        file.write(b"camera notes")
    assert len(load(str(tmp_path))) == 2


def test_an_image_deleted_during_the_search_is_named(tmp_path: Path) -> None:
    dataset = load(str(image_folder(tmp_path, {"a": 1, "b": 1})))
    (tmp_path / "b" / "0.png").unlink()
    with pytest.raises(DataError, match=r"b/0\.png cannot be read: No such file"):
        all_images(dataset)


def test_the_first_frame_counts(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / "0.png").unlink()
    first, second = (Image.new("RGB", (20, 20), (value,) * 3) for value in (200, 10))
    for name, options in (("0.gif", {}), ("1.tiff", {}), ("2.webp", {"lossless": True}), ("3.jpg", {"format": "MPO"})):
        first.save(tmp_path / "a" / name, save_all=True, append_images=[second], **options)
    dataset = load(str(tmp_path))
    assert [image.min() for image in seen(dataset, 0, 1, 2, 3)] == [200] * 4


def test_what_is_ignored_is_counted_and_named(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 3, "b": 3})
    for name in ("a/x.TXT", "a/y.txt", "b/x.xmp", "b/Makefile", ".DS_Store", "a/.hidden.txt", "README.txt", "c.png"):
        (tmp_path / name).write_text("x")
    left_out = load(str(tmp_path)).left_out
    assert left_out.ignored == {".txt": 3, ".xmp": 1, "no extension": 1, "image outside the class folders": 1}
    assert left_out.lines() == (
        "ignored 6 files that are not usable images: .txt (3), image outside the class folders (1), no extension (1), "
        ".xmp (1)",
    )
    (tmp_path / "a" / "more").mkdir()
    (line,) = load(str(tmp_path)).left_out.lines()
    assert line.startswith("ignored 7 entries that are not usable images: .txt (3), ")
    assert "sub-folder (1)" in line
    assert load("digits").left_out.lines() == ()


def test_one_ignored_file_is_told_in_the_singular(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / "x.heic").write_text("x")
    assert load(str(tmp_path)).left_out.lines() == ("ignored 1 file that is not a usable image: .heic (1)",)


def test_a_thousand_extensions_are_not_all_named(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1})
    for i in range(30):
        (tmp_path / "a" / f"x.n{i}").write_text("x")
    (line,) = load(str(tmp_path)).left_out.lines()
    assert line.endswith(", other types (20)")


def test_a_class_of_other_files_only_says_what_they_are(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "b" / "0.png").rename(tmp_path / "b" / "0.heic")
    refused(tmp_path, r"/b holds no images .*ignored 1 file that is not a usable image: \.heic \(1\)")


def bad_images(root: Path, count: int) -> Path:
    image_folder(root, {"a": 20, "b": 2})
    for i in range(count):
        (root / "a" / f"{i:02}.png").write_text("hello")
    return root


def test_all_bad_images_are_told_at_once(tmp_path: Path) -> None:
    bad_images(tmp_path, 3)
    refused(
        tmp_path, r"3 of 25 images cannot be used: .*a/00\.png is .*; .*a/01\.png is .*; .*a/02\.png is .*--skip-bad"
    )
    bad_images(tmp_path / "many", 13)
    with pytest.raises(DataError) as error:
        load(str(tmp_path / "many"))
    assert str(error.value).count(".png is not") == 10
    assert "; and 3 more; replace or remove them, or skip them with --skip-bad" in str(error.value)


def test_bad_images_are_skipped_and_recorded_when_asked(tmp_path: Path) -> None:
    dataset = load(str(bad_images(tmp_path, 12)), skip_bad=True)
    assert np.bincount(dataset.labels).tolist() == [18, 2]
    assert all_images(dataset).shape == (20, 8, 8, 3)
    assert len(dataset.left_out.skipped) == 12
    assert all("a/" in problem and "is not a" in problem for problem in dataset.left_out.skipped)
    (line,) = dataset.left_out.lines()
    assert line.startswith("skipped 12 bad images: ")
    assert line.endswith("; and 2 more")
    assert dataset.left_out.to_json() == {"ignored": {}, "skipped": list(dataset.left_out.skipped)}


def test_a_setting_skips_bad_images(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 5, "b": 4})
    (tmp_path / "a" / "0.png").write_text("hello")
    task = Classification(ClassificationSettings())
    with pytest.raises(DataError, match=r"a/0\.png is not .*--skip-bad"):
        task.load(DataSettings(source=str(tmp_path)), 8, 0)
    data = task.load(DataSettings(source=str(tmp_path), skip_bad=True), 8, 0)
    assert len(data.dataset) == 8
    assert len(data.dataset.left_out.skipped) == 1


def test_skipping_does_not_empty_a_class(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "b" / "0.png").write_text("hello")
    refused(tmp_path, r"class folder .*/b holds only bad images; .*skipped 1 bad image: .*b/0\.png", skip_bad=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_what_is_not_a_regular_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 2, "b": 2})
    os.mkfifo(tmp_path / "a" / "x.png")
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(os.path.relpath(tmp_path / "b" / "y.jpg"))  # its whole path may be too long for a socket
    (tmp_path / "b" / "loop.png").symlink_to("loop.png")
    (tmp_path / "b" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "b" / "null.png").symlink_to("/dev/null")
    code = (
        "import sys; from nas_edge.data.sources import load\n"
        "try: load(sys.argv[1])\n"
        "except Exception as error: print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    ).stdout
    assert "5 of 9 images cannot be used" in said
    assert "a/x.png cannot be read: not a regular file but a FIFO" in said
    assert "b/y.jpg cannot be read" in said
    assert "b/loop.png cannot be read: Too many levels of symbolic links" in said
    assert "b/gone.png cannot be read: No such file" in said
    assert "b/null.png cannot be read: not a regular file but a character device" in said
    assert len(load(str(tmp_path), skip_bad=True)) == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_in_place_of_an_array_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.npz")
    code = f"from nas_edge.data.sources import load; load({str(tmp_path / 'data.npz')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "not a regular file but a FIFO" in done.stderr


def test_a_class_folder_behind_a_broken_link_is_refused(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "c").symlink_to(tmp_path / "unmounted")
    refused(tmp_path, "c is a broken link")


@pytest.mark.parametrize("name", ["cat\ndog", "cat\u2028dog", os.fsdecode(b"caf\xe9")])
def test_a_class_name_that_labels_txt_cannot_hold_is_refused_before_the_search(tmp_path: Path, name: str) -> None:
    image_folder(tmp_path, {"a": 1, name: 1})
    refused(tmp_path, "a class name must be one line of UTF-8 text; received .*rename the class")


def test_a_line_break_in_a_file_name_breaks_no_line(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / "x\n\x1b[2J.png").write_text("hello")
    refused(tmp_path, r"a/x\?\?\[2J\.png is not")
    (tmp_path / "a" / "x\n\x1b[2J.png").unlink()
    (tmp_path / "a" / "x.p\n\x1b").write_text("hello")
    assert load(str(tmp_path)).left_out.lines() == ("ignored 1 file that is not a usable image: .p?? (1)",)


def test_absurd_sizes_are_refused_without_memory_for_them(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1})
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a" / "bomb.png").write_bytes(header + b"\0\0\0\0IEND\xaeB`\x82")
    refused(tmp_path, r"bomb\.png cannot be decoded \(Image size .* exceeds limit")


def test_no_decoder_runs_but_those_of_the_supported_types(tmp_path: Path) -> None:
    """Pillow knows many more, and one of them (EPS) starts Ghostscript."""
    image_folder(tmp_path, {"a": 1, "b": 1})
    Image.new("RGB", (20, 20)).save(tmp_path / "a" / "x.png", format="EPS")
    refused(tmp_path, r"x\.png is not a PNG, JPEG")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif"])
def test_whatever_bytes_change_an_image_is_read_or_refused(
    tmp_path: Path, suffix: str, recwarn: pytest.WarningsRecorder
) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1}, suffix)
    path = tmp_path / "a" / f"0.{suffix}"
    content, rng = path.read_bytes(), np.random.default_rng(1)
    for _ in range(60):
        changed = bytearray(content)
        for place in rng.integers(0, min(len(content), 200), 3):
            changed[place] = rng.integers(256)
        path.write_bytes(bytes(changed))
        with suppress(DataError):
            all_images(load(str(tmp_path)))
    assert not recwarn.list


def test_text_under_an_image_name_is_refused(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / "notes.png").write_text("hello")
    refused(tmp_path, r"notes\.png is not a PNG, JPEG, WebP, BMP, GIF or TIFF image")


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere does not exist")
    refused(image_folder(tmp_path / "one", {"a": 2}), "at least two; found 1")
    (image_folder(tmp_path / "empty", {"a": 2, "b": 1}) / "c").mkdir()
    refused(tmp_path / "empty", r"class folder .*/c holds no images \(supported: PNG, JPEG, WebP, BMP, GIF, TIFF\)")
    (tmp_path / "flat").mkdir()
    refused(tmp_path / "flat", "one sub-folder per class")
    (tmp_path / "photo.png").write_bytes(b"")
    refused(tmp_path / "photo.png", "not a folder or a .npz file")


def test_train_and_test_folders_must_agree(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", {"a": 1, "b": 1})
    image_folder(tmp_path / "test", {"a": 1, "c": 1})
    refused(tmp_path, "must hold the same class folders")
    (tmp_path / "more").mkdir()
    refused(tmp_path, "holds more/ beside train/ and test/")
    for name in ("val", "valid"):
        (tmp_path / "both" / name).mkdir(parents=True)
    (tmp_path / "both" / "train").mkdir()
    refused(tmp_path / "both", "holds both val/ and valid/")


def test_an_absurd_path_is_refused() -> None:
    refused("a" * 5000, "cannot read|does not exist")


# ---------------------------------------------------------------- TFDS


FAKE_TFDS = '''
"""Stands in for tensorflow_datasets: the part of its interface that is used."""
import io
import numpy as np
from PIL import Image

class Label: names = ["cat", "dog"]

class decode:
    class SkipDecoding: pass

SPLITS = {"pets": {"train": 4, "test": 2}, "birds": {"train": 4, "validation": 3, "test": 2},
          "imagenet": {"train": 4, "validation": 2, "test": 3}}

class Builder:
    def __init__(self, name, file_format):
        if name == "unknown": raise ValueError("Dataset unknown not found.\\nDid you mean ...")
        assert file_format == "array_record"
        self.name, self.info = name, self
        self.splits = SPLITS.get(name, {})
        self.features = {"image": None, "label": Label()} if self.splits else {"text": None}
    def download_and_prepare(self): pass
    def as_data_source(self, split, decoders):
        assert isinstance(decoders["image"], decode.SkipDecoding)
        return [self.example(split, i) for i in range(self.splits[split])]
    def example(self, split, i):
        stream = io.BytesIO()
        Image.new("RGB", (9, 6 + i), (i, i, i)).save(stream, "PNG")
        return {"image": stream.getvalue(), "label": -1 if (self.name, split) == ("imagenet", "test") else i % 2}

builder = Builder
'''


@pytest.fixture
def fake_tfds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorflow_datasets.py").write_text(FAKE_TFDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorflow_datasets", raising=False)


@pytest.mark.usefixtures("fake_tfds")
def test_tfds_images_are_read_where_they_are() -> None:
    dataset = load("tfds:pets")
    assert len(dataset.images) == 6
    assert dataset.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert dataset.class_names == ("cat", "dog")
    assert (dataset.validation_start, dataset.test_start) == (None, 4)
    assert [int(image.max()) for image in seen(dataset, 5, 2)] == [1, 2]


@pytest.mark.usefixtures("fake_tfds")
def test_every_labelled_split_of_tfds_serves() -> None:
    birds = load("tfds:birds")
    assert (birds.validation_start, birds.test_start, len(birds)) == (4, 7, 9)
    imagenet = load("tfds:imagenet")
    assert (imagenet.validation_start, imagenet.test_start, len(imagenet)) == (None, 4, 6)
    assert imagenet.left_out.lines() == ("ignored 3 files that are not usable images: test images without labels (3)",)


@pytest.mark.usefixtures("fake_tfds")
def test_tfds_failures_are_one_line() -> None:
    refused("tfds:unknown", "tfds:unknown cannot be loaded: Dataset unknown not found")
    refused("tfds:words", "has no image and label")


def test_missing_tfds_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    refused("tfds:mnist", r"pip install 'nas_edge\[tfds\]'")
