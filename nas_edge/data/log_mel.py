"""From a recording to a network's input: a log-mel spectrogram.

    samples --cut or padded to a clip--> --frames, Hann window, FFT--> power --mel bands, dB--> --(dB - mean) / std-->

The bundle's manifest describes all of it, and its `preprocessing.py` and its Kotlin example do the same:

- The clip is the middle of a longer recording; a shorter one is padded equally with silence on both sides.
- As many frames as the input is high, evenly spaced: frame i begins at sample `i * (clip - window) // (frames - 1)`.
- Power is `|FFT(frame * window)|^2 / sum(window)^2`, with samples from -1 to 1 and the periodic Hann window.
- Mel bands, as many as the input is wide: triangles with corners evenly spaced in `2595 * log10(1 + hz / 700)` and a
  peak of 1. The FFT length is the smallest power of two, no shorter than the window, that gives each band a frequency.
- dB is `10 * log10(power)`, at least `floor_db`.

It is not part of the network: in int8 files, TensorFlow's converter leaves the Fourier transform (`RFFT2D`) and squares
in float; and int8 lacks the dynamic range of power, so that its values would be noise. See `docs/tasks.md`.

Source of the mel scale and the triangles: the HTK Book, section 5.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.preprocessing import Inputs, Preprocessing
from nas_edge.errors import ConfigError

Recording: TypeAlias = NDArray[np.float32]  # [samples], -1 to 1, of one channel

# The longest FFT, for long windows or narrow bands.
_LONGEST_FFT = 2**16


@dataclass(frozen=True)
class LogMel(Preprocessing):
    """How recordings become a network's input, `[frames, mel bands, 1]`.

    Attributes:
        input_size: number of frames, and of mel bands.
        sample_rate_hz: of the recordings.
        clip_samples: length of the part of a recording that is used.
        window_samples: length of a frame.
        low_hz: lower edge of the lowest band.
        high_hz: upper edge of the highest band.
        floor_db: smallest value, relative to full scale.
        mean: of the values in dB.
        std: of the values in dB.
    """

    kind = "log-mel"

    input_size: int
    sample_rate_hz: int
    clip_samples: int
    window_samples: int
    low_hz: float
    high_hz: float
    floor_db: float = -80.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if self.input_size < 2 or not 1 < self.window_samples <= self.clip_samples:
            raise ConfigError(
                f"expected an input of at least 2 frames, and windows no longer than the clip; received "
                f"{self.input_size} frames and windows of {self.window_samples} samples of {self.clip_samples}"
            )
        if self.window_samples > _LONGEST_FFT:
            raise ConfigError(
                "the window is too long",
                expected=f"at most {_LONGEST_FFT} samples",
                received=f"{self.window_samples}",
                fix="set task.window_ms to a smaller number",
            )
        if not 0 <= self.low_hz < self.high_hz <= self.sample_rate_hz / 2:
            raise ConfigError(
                f"mel bands must lie within 0 to {self.sample_rate_hz / 2:g} Hz, half the sample rate; received "
                f"{self.low_hz:g} to {self.high_hz:g} Hz"
            )
        if not len(self.mean) == len(self.std) == 1 or not self.std[0] > 0:
            raise ConfigError(f"expected one mean and one positive std; received {self.mean} and {self.std}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one input: `(frames, mel bands, 1)`."""
        return (self.input_size, self.input_size, 1)

    @cached_property
    def _window(self) -> NDArray[np.float64]:
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window_samples) / self.window_samples)

    @cached_property
    def _frames(self) -> NDArray[np.int64]:
        """Indices of the samples of each frame, `[frames, window]`."""
        starts = np.arange(self.input_size) * (self.clip_samples - self.window_samples) // (self.input_size - 1)
        return starts[:, None] + np.arange(self.window_samples)

    @cached_property
    def bands(self) -> NDArray[np.float64]:
        """Weights of the frequencies in each mel band, `[fft / 2 + 1, bands]`.

        Raises:
            ConfigError: if a band is so narrow that even the longest FFT has no frequency in it.
        """
        low, high = (2595 * np.log10(1 + hz / 700) for hz in (self.low_hz, self.high_hz))
        corners = 700 * (10 ** (np.linspace(low, high, self.input_size + 2) / 2595) - 1)
        length = 1 << (self.window_samples - 1).bit_length()
        while length <= _LONGEST_FFT:
            hz = np.arange(length // 2 + 1)[:, None] * (self.sample_rate_hz / length)
            rising = (hz - corners[:-2]) / (corners[1:-1] - corners[:-2])
            falling = (corners[2:] - hz) / (corners[2:] - corners[1:-1])
            weights: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
            if weights.any(axis=0).all():
                return weights
            length *= 2
        raise ConfigError(
            f"{self.input_size} mel bands from {self.low_hz:g} to {self.high_hz:g} Hz are too narrow",
            fix="set space.input_size to a smaller number",
        )

    @property
    def fft_samples(self) -> int:
        """Length of the Fourier transform."""
        return 2 * (len(self.bands) - 1)

    def clip(self, recording: Recording) -> Recording:
        """The middle of a recording, float32 `[clip_samples]`."""
        clip = np.zeros(self.clip_samples, np.float32)
        more = len(recording) - self.clip_samples
        if more >= 0:
            clip[:] = recording[more // 2 : more // 2 + self.clip_samples]
        else:
            clip[-more // 2 : -more // 2 + len(recording)] = recording
        return clip

    def fit(self, examples: Sequence[Recording] | NDArray[Any]) -> Inputs:
        """Spectrograms of recordings in dB, float32 `[n, frames, mel bands, 1]`."""
        values = np.empty((len(examples), *self.shape), np.float32)
        for row, recording in enumerate(examples):
            values[row, :, :, 0] = self.spectrogram(self.clip(recording))
        return values

    def spectrogram(self, clip: Recording) -> NDArray[np.float64]:
        """The spectrogram of a clip in dB, `[frames, mel bands]`."""
        frames = clip[self._frames] * self._window
        power = np.square(np.abs(np.fft.rfft(frames, self.fft_samples))) / np.square(self._window.sum())
        floor = 10 ** (self.floor_db / 10)
        decibels: NDArray[np.float64] = 10 * np.log10(np.maximum(power @ self.bands, floor))
        return decibels

    def manifest(self) -> dict[str, Any]:
        """See `Preprocessing`; the top of `log_mel.py` says what the numbers mean."""
        return {
            "kind": self.kind,
            "input_size": self.input_size,
            "channels": 1,
            "sample_rate_hz": self.sample_rate_hz,
            "clip_samples": self.clip_samples,
            "frames": self.input_size,
            "window_samples": self.window_samples,
            "window": "hann, periodic",
            "fft_samples": self.fft_samples,
            "mel_bands": self.input_size,
            "low_hz": self.low_hz,
            "high_hz": self.high_hz,
            "floor_db": self.floor_db,
            "formula": "(dB - mean) / std",
            "mean": list(self.mean),
            "std": list(self.std),
        }


@dataclass(frozen=True)
class RecordingDraws:
    """The random draws for some recordings, `[n]` each.

    Attributes:
        shift: samples by which a clip is delayed.
        noise: which noise, 0 to 1, and which part of it, 0 to 1, `[n, 2]`.
        volume: factor of the noise; 0 for none.
    """

    shift: NDArray[np.int64]
    noise: NDArray[np.float64]
    volume: NDArray[np.float64]

    def __getitem__(self, part: slice) -> RecordingDraws:
        """The draws for some of the recordings."""
        return RecordingDraws(self.shift[part], self.noise[part], self.volume[part])


@dataclass(frozen=True)
class RecordingChanges:
    """Augmentation of training recordings: shifts in time, and added noise.

    Attributes:
        shift: largest shift, as a fraction of the clip; the gap is silence.
        noises: recordings of noise, at the same sample rate.
        noise_volume: largest factor of the noise.
        noise_share: share of recordings that get noise.

    Source: Warden, 2018 (arXiv:1804.03209), and TensorFlow's example `speech_commands`.
    """

    shift: float = 0.1
    noises: tuple[Recording, ...] = ()
    noise_volume: float = 0.1
    noise_share: float = 0.8

    def draw(self, n: int, preprocessing: Preprocessing, rng: np.random.Generator) -> RecordingDraws:
        """See `augmentation.Changes`."""
        assert isinstance(preprocessing, LogMel)
        shift = np.rint(rng.uniform(-self.shift, self.shift, n) * preprocessing.clip_samples).astype(np.int64)
        volume = rng.uniform(0, self.noise_volume, n) * (rng.random(n) < self.noise_share)
        return RecordingDraws(shift, rng.random((n, 2)), volume)

    def __call__(self, examples: Sequence[Recording], draws: RecordingDraws, preprocessing: LogMel) -> Inputs:
        """See `augmentation.Changes`."""
        drawn = zip(draws.shift.tolist(), draws.noise.tolist(), draws.volume.tolist(), strict=True)
        changed = [self._changed(preprocessing.clip(one), *how) for one, how in zip(examples, drawn, strict=True)]
        return preprocessing.fit(changed)

    def _changed(self, clip: Recording, shift: int, noise: Sequence[float], volume: float) -> Recording:
        moved = np.zeros_like(clip)
        if shift >= 0:
            moved[shift:] = clip[: len(clip) - shift]
        else:
            moved[:shift] = clip[-shift:]
        if self.noises and volume:
            which, where = noise
            source = self.noises[int(which * len(self.noises))]
            start = int(where * max(1, len(source) - len(clip) + 1))
            part = source[start : start + len(clip)]
            moved[: len(part)] += np.float32(volume) * part
        return np.clip(moved, -1, 1)
