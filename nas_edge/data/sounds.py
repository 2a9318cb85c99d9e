"""`procedural[:NAME=VALUE,...]` for recordings: synthetic words of three syllables each.

A syllable is a tone that rises, falls or stays, or a hiss; the sequence of three is the class. Any two determine
the third. Pitch, pace, loudness, overtones, position in the clip and noise are random and independent of the class.

A recording follows from the settings, its part and its number, and is made on demand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nas_edge.data.dataset import Dataset
from nas_edge.data.log_mel import Recording
from nas_edge.data.procedural import DrawnSettings

SYLLABLES = ("rise", "fall", "stay", "hiss")
MOST_CLASSES = len(SYLLABLES) ** 2

# Incremented with every change of the recordings.
_RULES = 1


class SoundSettings(DrawnSettings):
    """Settings after `procedural:` for recordings."""

    classes: int = Field(8, ge=2, le=MOST_CLASSES)
    difficulty: float = Field(0.5, ge=0, le=1, description="noise; tones that change little; varying pace")
    train: int = Field(4_000, ge=2, le=1_000_000, description="recordings to train with and to score on")
    test: int = Field(2_000, ge=2, le=1_000_000, description="recordings to test with")


class SoundsDataset(Dataset):
    """Synthetic recordings; a run records the version of the rules that made them."""

    def to_json(self) -> dict[str, Any]:
        """See `Dataset`."""
        return {**super().to_json(), "sounds": _RULES}


def load_sounds(text: str, sample_rate_hz: int, clip_samples: int) -> Dataset:
    """A dataset of synthetic recordings, which are made on demand.

    Args:
        text: settings, see `SoundSettings`; "" for their defaults.
        sample_rate_hz: of the recordings.
        clip_samples: their length.

    Raises:
        DataError: for invalid settings.
    """
    settings = SoundSettings.parse(text)
    words = _words(settings.classes)
    sounds = Sounds(settings, sample_rate_hz, clip_samples)
    names = tuple("-".join(SYLLABLES[syllable] for syllable in word) for word in words)
    labels = [np.arange(count, dtype=np.int32) % settings.classes for count in (settings.train, settings.test)]
    return SoundsDataset(sounds, np.concatenate(labels), names, settings.train)


def _words(classes: int) -> list[tuple[int, int, int]]:
    kinds = math.ceil(math.sqrt(classes))
    pairs = [divmod(number, kinds) for number in range(classes)]
    return [(first, second, (first + second) % kinds) for first, second in pairs]


@dataclass(frozen=True)
class Sounds:
    """Recordings, made on demand.

    Attributes:
        settings: of the recordings.
        sample_rate_hz: of the recordings.
        clip_samples: their length.
    """

    settings: SoundSettings
    sample_rate_hz: int
    clip_samples: int

    def __len__(self) -> int:
        return self.settings.train + self.settings.test

    def __getitem__(self, index: int, /) -> Recording:
        settings = self.settings
        is_test = index >= settings.train
        number = index - settings.train if is_test else index
        rng = np.random.default_rng([settings.seed, int(is_test), number])
        word = _words(settings.classes)[number % settings.classes]
        return self._spoken(word, rng)

    def _spoken(self, word: tuple[int, int, int], rng: np.random.Generator) -> Recording:
        """One utterance of a word by a random speaker."""
        length, difficulty = self.clip_samples, self.settings.difficulty
        pitch_hz = self.sample_rate_hz * 0.02 * 2 ** rng.uniform(0, 1.5)
        pace = 1 + 0.4 * difficulty * rng.uniform(-1, 0.5)
        overtones = rng.uniform(0.1, 0.6, 2)
        syllables = [self._syllable(kind, int(0.22 * length * pace), pitch_hz, overtones, rng) for kind in word]
        pause = np.zeros(int(0.04 * length * pace))
        spoken = np.concatenate([part for syllable in syllables for part in (syllable, pause)])
        whole = np.zeros(length, np.float32)
        start = int(rng.integers(length - len(spoken) + 1))
        whole[start : start + len(spoken)] = spoken
        noise = 10 ** ((-45 + 30 * difficulty * rng.uniform(0.5, 1)) / 20)
        loudness = 10 ** (rng.uniform(-14, -2) / 20)
        whole += np.float32(noise) * rng.standard_normal(length, np.float32)
        recording: Recording = np.clip(np.float32(loudness) * whole, -1, 1)
        return recording

    def _syllable(
        self, kind: int, length: int, pitch_hz: float, overtones: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """One of `SYLLABLES`, `[length]`, fading in and out."""
        envelope = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 0.5
        name = SYLLABLES[kind]
        if name == "hiss":
            return envelope * rng.normal(0, 0.2, length)
        octaves = (1 - 0.6 * self.settings.difficulty) * rng.uniform(0.7, 1.2)
        octaves *= {"rise": 1, "fall": -1, "stay": 0}[name]
        hz = pitch_hz * 2 ** (octaves * np.linspace(-0.5, 0.5, length))
        phase = 2 * np.pi * np.cumsum(hz) / self.sample_rate_hz
        strengths = np.concatenate([[1.0], overtones])
        tone: NDArray[np.float64] = envelope * (strengths @ np.sin(phase * np.arange(1, 4)[:, None])) / strengths.sum()
        return tone
