"""Recordings: which files are read, what a folder of them is, and what a network sees of one."""

from __future__ import annotations

import importlib.util
import io
import pickle
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_edge import export
from nas_edge.data.dataset import Dataset
from nas_edge.data.loading import Batches
from nas_edge.data.log_mel import LogMel, RecordingChanges
from nas_edge.data.recordings import load_recordings, read_recording, wav_file
from nas_edge.data.sounds import load_sounds
from nas_edge.errors import BadImagesError, ConfigError, DataError

RATE = 4000
RNG = np.random.default_rng(0)


def tone(hz: float, samples: int = RATE) -> Any:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(samples) / RATE)).astype(np.float32)


def wav(stored: bytes, width: int, channels: int = 1, rate: int = RATE) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(stored)
    return stream.getvalue()


def read(tmp_path: Path, content: bytes) -> Any:
    (tmp_path / "x.wav").write_bytes(content)
    return read_recording(RATE, tmp_path / "x.wav")


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("width", "stored"),
    [
        (1, bytes([128, 192, 0])),
        (2, struct.pack("<3h", 0, 2**14, -(2**15))),
        (3, b"".join(value.to_bytes(3, "little", signed=True) for value in (0, 2**22, -(2**23)))),
        (4, struct.pack("<3i", 0, 2**30, -(2**31))),
    ],
)
def test_whole_numbers_of_any_width_are_read(tmp_path: Path, width: int, stored: bytes) -> None:
    found = read(tmp_path, wav(stored, width))
    assert found.tolist() == [0.0, 0.5, -1.0]
    assert found.dtype == np.float32
    assert read(tmp_path, wav(stored[: 2 * width], width, channels=2)).tolist() == [0.25]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    values = np.float32([-1, -0.5, 0, 2**-15, 1])
    assert read(tmp_path, wav_file(values, RATE)).tolist() == [*values[:-1].tolist(), 1 - 2**-15]


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (lambda content: b"hello", "cannot be read as a WAV file"),
        (lambda content: b"", "cannot be read as a WAV file"),
        (lambda content: content[:30], "cannot be read as a WAV file"),
        (lambda content: content[:-100], "is cut off: it holds 300 of 400 bytes"),
        (lambda content: content[:20] + b"\x03" + content[21:], "cannot be read as a WAV file .*unknown format: 3"),
        (lambda content: content[:22] + b"\0\0" + content[24:], "cannot be read as a WAV file"),
        (lambda content: content[:34] + b"\x40" + content[35:], "64 bits per sample|cannot be read|is cut off"),
        (lambda content: content[:40] + b"\xff\xff\xff\xff" + content[44:], "is cut off|cannot be read"),
        (lambda content: wav(b"", 2), "holds no samples"),
        (lambda content: wav(b"1234", 2, rate=8000), r"has 8000 samples per second, not 4000; .* task\.sample_rate_hz"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(tmp_path: Path, change: Callable[[bytes], bytes], because: str) -> None:
    with pytest.raises(DataError, match=because) as error:
        read(tmp_path, change(wav(bytes(400), 2)))
    assert str(error.value).startswith(str(tmp_path / "x.wav"))
    assert "\n" not in str(error.value)


def test_any_damage_is_a_data_error(tmp_path: Path) -> None:
    whole = wav(RNG.bytes(64), 2)
    for _ in range(60):
        damaged = bytearray(whole[: RNG.integers(1, len(whole) + 1)])
        damaged[RNG.integers(len(damaged))] = RNG.integers(256)
        try:
            found = read(tmp_path, bytes(damaged))
        except DataError:
            continue
        assert np.isfinite(found).all()


# ---------------------------------------------------------------- folders


def folder_of(folder: Path, count: int = 4) -> Path:
    for word, hz in (("no", 300), ("yes", 900)):
        (folder / word).mkdir(parents=True)
        for i in range(count):
            (folder / word / f"{i}.wav").write_bytes(wav_file(tone(hz + i, RATE // 4 + i), RATE))
    return folder


def load(folder: Path, **options: Any) -> tuple[Dataset, Any]:
    return load_recordings(str(folder), RATE, RATE, **options)


def test_a_folder_has_a_class_in_each_sub_folder_and_noise(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "_background_noise_").mkdir()
    (folder / "_background_noise_" / "rain.wav").write_bytes(wav_file(tone(50, 3 * RATE), RATE))
    (folder / "_background_noise_" / "._rain.wav").write_bytes(b"attributes of another system")
    (folder / "README.md").write_text("about")
    data, noises = load(folder)
    assert data.class_names == ("no", "yes")
    assert np.asarray(data.labels).tolist() == [0] * 4 + [1] * 4
    assert (data.validation_start, data.test_start) == (None, None)
    assert [len(data.images[i]) for i in range(4)] == [1000, 1001, 1002, 1003]
    assert [len(noise) for noise in noises] == [3 * RATE]
    assert data.left_out.lines() == ("ignored 1 file that is not a usable recording: .md (1)",)


def test_noise_may_be_beside_the_classes_to_train_with(tmp_path: Path) -> None:
    for part in ("train", "test"):
        folder_of(tmp_path / part, 2)
        (tmp_path / part / "_background_noise_").mkdir()
        (tmp_path / part / "_background_noise_" / "rain.wav").write_bytes(wav_file(tone(50), RATE))
    data, noises = load(tmp_path)
    assert (data.class_names, data.test_start, len(data), len(noises)) == (("no", "yes"), 4, 8, 1)


def test_lists_say_what_is_scored_and_tested(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "testing_list.txt").write_text("no/3.wav\nyes/1.wav\nmaybe/0.wav\n")
    data, _ = load(folder)
    assert (data.validation_start, data.test_start, len(data)) == (None, 6, 8)
    assert np.asarray(data.labels).tolist() == [0, 0, 0, 1, 1, 1, 0, 1]
    assert [len(data.images[i]) for i in (6, 7)] == [1003, 1001]
    (folder / "validation_list.txt").write_text("no/0.wav\r\nyes/0.wav\r\nyes/2.wav\r\n")
    data, _ = load(folder)
    assert (data.validation_start, data.test_start) == (3, 6)
    assert [len(data.images[i]) for i in range(8)] == [1001, 1002, 1003, 1000, 1000, 1002, 1003, 1001]
    assert data.left_out.lines() == ()


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (b"no/0.wav\n", "lists no file of class 'yes'"),
        (b"yes/0.wav\nno/0.wav\nno/1.wav\nno/2.wav\nno/3.wav\n", "every file of class 'no'; leave some for training"),
        (b"no/3.wav\nyes/0.wav\n", r"no/3\.wav is in both validation_list\.txt and testing_list\.txt"),
        (b"\xff\xfe\n", "cannot be read as lines of text"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path: Path, content: bytes, because: str) -> None:
    folder = folder_of(tmp_path)
    (folder / "testing_list.txt").write_bytes(b"no/3.wav\nyes/3.wav\n")
    (folder / "validation_list.txt").write_bytes(content)
    with pytest.raises(DataError, match=because) as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_bad_files_are_refused_together_or_skipped(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "no" / "1.wav").write_bytes(b"hello")
    (folder / "yes" / "2.wav").write_bytes(wav(b"1234", 2, rate=8000))
    with pytest.raises(BadImagesError, match=r"2 of 8 recordings cannot be used: .*1\.wav .*8000 samples per second"):
        load(folder)
    data, _ = load(folder, skip_bad=True)
    assert len(data) == 6
    assert data.left_out.lines()[0].startswith("skipped 2 bad recordings: ")


def test_what_is_no_source_of_recordings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"a .* holds no recordings \(supported: WAV\)"):
        load(tmp_path)
    for source in ("digits", str(tmp_path / "nothing")):
        with pytest.raises(DataError, match="has no recordings; expected a folder"):
            load_recordings(source, RATE, RATE)


# ---------------------------------------------------------------- procedural ones


def test_recordings_are_made_by_rule() -> None:
    data = load_sounds("classes=5,train=20,test=10", RATE, RATE)
    again = load_sounds("classes=5,train=25,test=10", RATE, RATE)
    assert len(set(data.class_names)) == 5
    assert data.test_start == 20
    assert np.bincount(np.asarray(data.labels)).tolist() == [6] * 5
    for index in (0, 7, 19):
        found = data.images[index]
        np.testing.assert_array_equal(found, again.images[index])
        assert found.shape == (RATE,)
        assert 0.02 < np.abs(found).max() <= 1
    np.testing.assert_array_equal(data.images[20], again.images[25])  # the first to test with
    assert not np.array_equal(data.images[0], data.images[20])
    assert not np.array_equal(data.images[0], load_sounds("classes=5,seed=1", RATE, RATE).images[0])
    with pytest.raises(DataError, match=r"classes: .* 16; received '17'"):
        load_sounds("classes=17", RATE, RATE)
    with pytest.raises(DataError, match="no setting 'size'"):
        load_sounds("size=32", RATE, RATE)


# ---------------------------------------------------------------- log-mel


SEEN = LogMel(20, RATE, RATE, 160, 20.0, RATE / 2, mean=(-50.0,), std=(10.0,))


def test_a_tone_is_in_its_band_for_as_long_as_it_sounds() -> None:
    corners = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + hz / 700) for hz in (20, 2000)), 22) / 2595) - 1)
    for band in (3, 12, 19):
        recording = tone(corners[band + 1])
        recording[RATE // 2 :] = 0
        (seen,) = SEEN.fit([recording])[..., 0]
        assert set(seen[:9].argmax(axis=1)) == {band}
        # The middle frequency of a sine of half the scale has -12 dB; the window spreads it over a few more.
        assert (np.abs(seen[:9, band] + 10) < 2.5).all()
        assert (seen[11:] == -80).all()


def test_a_recording_is_cut_or_padded_at_both_ends() -> None:
    values = np.arange(1, 7, dtype=np.float32)
    short = LogMel(2, RATE, 4, 2, 20.0, 2000.0)
    assert short.clip(values).tolist() == [2, 3, 4, 5]
    assert short.clip(values[:2]).tolist() == [0, 1, 2, 0]
    assert short.clip(values[:1]).tolist() == [0, 1, 0, 0]
    assert short.clip(values[:0]).tolist() == [0] * 4


def test_an_input_does_not_depend_on_what_else_is_in_the_batch() -> None:
    recordings = [tone(hz, samples) for hz, samples in ((100, 3000), (440, 5000), (990, 4000))]
    together = SEEN(recordings)
    assert together.shape == (3, *SEEN.shape)
    assert together.dtype == np.float32
    for one, recording in zip(together, recordings, strict=True):
        np.testing.assert_array_equal(SEEN([recording])[0], one)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(SEEN))(recordings), together)


@pytest.mark.parametrize("size", [2, 20, 33])
def test_a_bundles_program_makes_the_same_input(tmp_path: Path, size: int) -> None:
    file = Path(export.__file__).parent / "app_files" / "inputs" / "log_mel" / "preprocessing.py"
    spec = importlib.util.spec_from_file_location("delivered_preprocessing", file)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    seen = LogMel(size, RATE, RATE, 160, 20.0, RATE / 2, mean=(-50.0,), std=(10.0,))
    for samples in (1500, 1501, RATE, 5001):
        recording = read(tmp_path, wav_file(tone(440, samples), RATE))
        found = program.preprocess(program.read(tmp_path / "x.wav"), seen.manifest())
        np.testing.assert_allclose(found, seen([recording]), atol=1e-5)


def test_narrow_bands_get_a_longer_transform() -> None:
    assert SEEN.fft_samples == 256
    narrow = LogMel(200, RATE, RATE, 160, 20.0, RATE / 2)
    assert narrow.fft_samples > 256
    assert narrow.bands.any(axis=0).all()
    with pytest.raises(ConfigError, match=r"64 mel bands .* too narrow; set space\.input_size"):
        LogMel(64, RATE, RATE, 160, 20.0, 20.5).bands  # noqa: B018


@pytest.mark.parametrize(
    ("changed", "because"),
    [
        ({"input_size": 1}, "at least 2 frames"),
        ({"window_samples": RATE + 1}, "windows no longer than the clip"),
        ({"clip_samples": 2**17, "window_samples": 2**16 + 1}, "at most 65536 samples, received 65537"),
        ({"high_hz": 2001.0}, "within 0 to 2000 Hz, half the sample rate"),
        ({"low_hz": 2000.0}, "received 2000 to 2000 Hz"),
        ({"std": (0.0,)}, "positive std"),
    ],
)
def test_a_front_end_that_cannot_be_is_refused(changed: dict[str, Any], because: str) -> None:
    facts = {"input_size": 8, "sample_rate_hz": RATE, "clip_samples": RATE, "window_samples": 160}
    with pytest.raises(ConfigError, match=because):
        LogMel(**{**facts, "low_hz": 20.0, "high_hz": 2000.0, **changed})


# ---------------------------------------------------------------- changes


def test_training_moves_recordings_and_adds_noise() -> None:
    recording = tone(500)
    moved = RecordingChanges(shift=0.5)
    draws = moved.draw(40, SEEN, np.random.default_rng(0))
    changed = moved([recording] * 40, draws, SEEN)
    silent = (changed[..., 0].max(axis=2) == SEEN.floor_db).sum(axis=1)  # frames of each
    np.testing.assert_allclose(silent, np.abs(draws.shift) / RATE * 20, atol=2)
    assert (changed[draws.shift > 400, 0].max(axis=(1, 2)) == SEEN.floor_db).all()
    assert (changed[draws.shift < -400, -1].max(axis=(1, 2)) == SEEN.floor_db).all()
    noisy = RecordingChanges(0.0, (tone(1500, 2 * RATE), tone(1500, 100)), 0.1, 0.5)
    draws = noisy.draw(40, SEEN, np.random.default_rng(0))
    changed = noisy([recording] * 40, draws, SEEN)
    still = (changed == SEEN.fit([recording])).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(still, draws.volume == 0)
    assert 5 < still.sum() < 35
    np.testing.assert_array_equal(noisy([recording] * 2, draws[3:5], SEEN), changed[3:5])


def test_batches_are_made_of_recordings() -> None:
    data = load_sounds("classes=4,train=20,test=4", RATE, RATE)
    changes = RecordingChanges()
    streams = [
        Batches(data, np.arange(20), 6, np.random.default_rng(0), SEEN, changes, workers=workers) for workers in (0, 2)
    ]
    for _ in range(3):
        (inputs, targets), (same, also) = (next(stream) for stream in streams)
        np.testing.assert_array_equal(inputs, same)
        np.testing.assert_array_equal(targets, also)
        assert inputs.shape == (6, 20, 20, 1)
    for stream in streams:
        stream.close()
