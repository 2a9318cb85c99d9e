"""Recordings with one class each: WAV files in one folder per class, or `procedural` ones.

    FOLDER/yes/*.wav
    FOLDER/no/*.wav
    FOLDER/_background_noise_/*.wav     noise for training, of any length (optional; also in train/)
    FOLDER/validation_list.txt         `yes/0a7c2a8d_nohash_0.wav` in each line: these score architectures (optional)
    FOLDER/testing_list.txt            likewise, these are tested on (optional)

That is the layout of Speech Commands (Warden, 2018, arXiv:1804.03209). The parts may be folders instead, see
`folders.py`. Files hold PCM samples of 8, 16, 24 or 32 bits; channels are averaged.
"""

from __future__ import annotations

import io
import struct
import wave
from functools import partial
from pathlib import Path

import numpy as np

from nas_edge.data.dataset import Dataset
from nas_edge.data.folders import FileKind, load_folder
from nas_edge.data.log_mel import Recording
from nas_edge.data.sounds import load_sounds
from nas_edge.errors import DataError
from nas_edge.regular_file import open_regular
from nas_edge.terminal import printable

NOISE = "_background_noise_"
_LISTS = ("validation_list.txt", "testing_list.txt")
_SUFFIXES = (".wav", ".wave")


def load_recordings(
    source: str, sample_rate_hz: int, clip_samples: int, skip_bad: bool = False, workers: int = 0
) -> tuple[Dataset, tuple[Recording, ...]]:
    """Opens a source of recordings and checks it.

    Args:
        source: a folder, see the top of this file, or `procedural[:NAME=VALUE,...]`, see `sounds.py`.
        sample_rate_hz: required of all files.
        clip_samples: length of procedural recordings.
        skip_bad: leaves out bad files, instead of refusing the data; files of noise must be usable all the same.
        workers: threads that check files.

    Returns:
        The recordings, float32 `[samples]` of any length, and those of noise.

    Raises:
        DataError: when they cannot be used.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "procedural":
        return load_sounds(rest, sample_rate_hz, clip_samples), ()
    folder = Path(source).expanduser()
    try:
        is_folder = folder.is_dir()
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror or error}") from error
    if not is_folder:
        raise DataError(
            f"{source} has no recordings",
            expected="a folder with one sub-folder of WAV files per keyword, or procedural",
        )
    examiner = f"WAV files 1, {sample_rate_hz} Hz"
    files = FileKind(
        example="recording",
        suffixes=_SUFFIXES,
        supported="WAV",
        problem=partial(problem_with_recording, sample_rate_hz),
        examiners=(examiner, examiner),
        read=partial(read_recording, sample_rate_hz),
        aside=(NOISE,),
        lists=_LISTS,
    )
    noises = [noise for place in (folder, folder / "train") for noise in _noises(place / NOISE, sample_rate_hz)]
    return load_folder(folder, skip_bad, workers, files), tuple(noises)


def problem_with_recording(sample_rate_hz: int, path: Path, decode: bool = False) -> str:
    """What is wrong with a WAV file, naming it; empty if nothing is. The whole file is read in any case."""
    try:
        read_recording(sample_rate_hz, path)
    except DataError as error:
        return str(error)
    return ""


def read_recording(sample_rate_hz: int, path: Path) -> Recording:
    """Reads a WAV file.

    Args:
        sample_rate_hz: required of the file.
        path: of the file.

    Returns:
        Samples of one channel, float32 `[samples]`, -1 to 1.

    Raises:
        DataError: when it cannot be used.
    """
    name = printable(str(path))
    try:
        with open_regular(path) as stream:
            content = stream.read()
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from error
    try:
        with wave.open(io.BytesIO(content)) as file:
            channels, width, rate, count = file.getparams()[:4]
            stored = file.readframes(count)
    except (wave.Error, EOFError, ValueError, RuntimeError, OverflowError, struct.error) as error:
        why = printable(str(error)) or "it ends too soon"
        raise DataError(f"{name} cannot be read as a WAV file of PCM samples ({why})") from error
    if rate != sample_rate_hz:
        raise DataError(
            f"{name} has {rate} samples per second, not {sample_rate_hz}; resample it, or set task.sample_rate_hz"
        )
    if width not in (1, 2, 3, 4):
        raise DataError(f"{name} has {8 * width} bits per sample, not 8, 16, 24 or 32")
    if count < 1:
        raise DataError(f"{name} holds no samples")
    if len(stored) != count * width * channels:
        raise DataError(f"{name} is cut off: it holds {len(stored)} of {count * width * channels} bytes of samples")
    samples = _decoded(stored, width).reshape(count, channels)
    recording: Recording = samples.mean(axis=1, dtype=np.float64).astype(np.float32)
    return recording


def _decoded(stored: bytes, width: int) -> Recording:
    """PCM samples of `width` bytes each, scaled to -1 to 1."""
    if width == 3:
        # As the upper bytes of four.
        padded = np.zeros((len(stored) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(stored, np.uint8).reshape(-1, 3)
        stored, width = padded.tobytes(), 4
    if width == 1:  # unsigned, unlike the others
        whole = np.frombuffer(stored, np.uint8) - 128.0
    else:
        whole = np.frombuffer(stored, f"<i{width}").astype(np.float64)
    samples: Recording = (whole / 2.0 ** (8 * width - 1)).astype(np.float32)
    return samples


def wav_file(recording: Recording, sample_rate_hz: int) -> bytes:
    """The content of a 16-bit WAV file of one channel."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(np.clip(np.rint(recording * 32768.0), -32768, 32767).astype("<i2").tobytes())
    return stream.getvalue()


def _noises(folder: Path, sample_rate_hz: int) -> tuple[Recording, ...]:
    """All recordings of noise, in the order of their names; hidden files are left out."""
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise DataError(f"cannot list {printable(str(folder))}: {error.strerror or error}") from error
    files = [path for path in paths if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")]
    return tuple(read_recording(sample_rate_hz, path) for path in files)
