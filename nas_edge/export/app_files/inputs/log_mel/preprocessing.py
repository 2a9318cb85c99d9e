"""From a recording to the network's input, as in training: a log-mel spectrogram. Requires NumPy."""

from __future__ import annotations

import wave

import numpy as np

EXAMPLE = "recording"

# Tolerance for other machines, whose Fourier transforms may round differently.
TOLERANCE, UNIT = 0.01, "dB"


def read(file):
    """Reads a 16-bit WAV file: the samples, averaged over channels, -1 to 1, and the sample rate in Hz."""
    with wave.open(str(file)) as recording:
        channels, width, rate_hz, count = recording.getparams()[:4]
        if width != 2:
            raise SystemExit(f"{file} has {8 * width} bits per sample, not 16; convert it")
        samples = np.frombuffer(recording.readframes(count), "<i2").reshape(-1, channels)
    return samples.mean(axis=1) / 32768, rate_hz


def preprocess(recording, rules):
    """The network's input for what `read` returns, float32 [1, frames, mel bands, 1]; `rules` are the manifest's."""
    samples, rate_hz = recording
    if rate_hz != rules["sample_rate_hz"]:
        raise SystemExit(f"the recording has {rate_hz} samples per second, not {rules['sample_rate_hz']}; resample it")
    values = decibels(clipped(samples, rules["clip_samples"]), rules)
    return ((values - rules["mean"][0]) / rules["std"][0]).astype(np.float32)[None, :, :, None]


def clipped(samples, length):
    """The middle of a recording; a shorter one is padded with silence equally on both sides."""
    more = len(samples) - length
    if more >= 0:
        return samples[more // 2 : more // 2 + length]
    before = -more // 2
    return np.pad(samples, (before, -more - before))


def decibels(clip, rules):
    """The spectrogram of a clip, [frames, mel bands]."""
    window_samples, frames = rules["window_samples"], rules["frames"]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_samples) / window_samples)
    starts = [i * (len(clip) - window_samples) // (frames - 1) for i in range(frames)]
    cut = np.stack([clip[start : start + window_samples] for start in starts]) * window
    power = np.abs(np.fft.rfft(cut, rules["fft_samples"])) ** 2 / window.sum() ** 2
    return 10 * np.log10(np.maximum(power @ mel_bands(rules), 10 ** (rules["floor_db"] / 10)))


def mel_bands(rules):
    """Weights of the frequencies in each mel band, [fft / 2 + 1, bands]."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (rules["low_hz"], rules["high_hz"]))
    corners = 700 * (10 ** (np.linspace(low, high, rules["mel_bands"] + 2) / 2595) - 1)
    hz = np.arange(rules["fft_samples"] // 2 + 1)[:, None] * (rules["sample_rate_hz"] / rules["fft_samples"])
    rising = (hz - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - hz) / (corners[2:] - corners[1:-1])
    return np.maximum(0, np.minimum(rising, falling))
