"""Recordings: a log-mel spectrogram, see `nas_edge.data.log_mel`."""

from __future__ import annotations

import numpy as np

from nas_edge.data.log_mel import LogMel, Recording
from nas_edge.data.recordings import wav_file
from nas_edge.errors import DataError
from nas_edge.export.inputs.base import InputKind, Rules

# Number of `metadata_schema.fbs`: feature properties, which have no fields.
_FEATURE_PROPERTIES = 1


def _golden(recording: Recording, preprocessing: LogMel) -> tuple[Recording, bytes]:
    """The clip as rounded to 16 bits, and as a WAV file."""
    if recording.ndim != 1 or recording.dtype.kind != "f" or not np.isfinite(recording).all():
        raise DataError(
            "a golden recording has the wrong shape or type",
            expected="finite numbers, [samples]",
            received=f"{recording.dtype} {recording.shape}",
        )
    whole = np.clip(np.rint(preprocessing.clip(recording) * 32768), -32768, 32767)
    kept = (whole / 32768).astype(np.float32)
    return kept, wav_file(kept, preprocessing.sample_rate_hz)


def _steps(rules: Rules) -> list[str]:
    return [
        f"Take {rules['clip_samples']} samples at {rules['sample_rate_hz']} Hz of one channel, from -1 to 1: the "
        "middle of a longer recording; pad a shorter one with 0 equally on both sides.",
        f"Cut {rules['frames']} frames of {rules['window_samples']} samples, frame i (from 0) starting at sample "
        f"`floor(i * {rules['clip_samples'] - rules['window_samples']} / {rules['frames'] - 1})`, and multiply each "
        f"by the window `w(t) = 0.5 - 0.5 * cos(2 * pi * t / {rules['window_samples']})`.",
        f"`power = abs(FFT)^2 / sum(w)^2`, with an FFT of {rules['fft_samples']} samples (frames are padded with 0 at "
        "their end).",
        f"Weight the powers by {rules['mel_bands']} triangles whose {rules['mel_bands'] + 2} corners are evenly spaced "
        f"from {rules['low_hz']:g} to {rules['high_hz']:g} Hz in `mel = 2595 * log10(1 + hz / 700)`, and add up each "
        "band.",
        f"`dB = 10 * log10(sum)`, at least {rules['floor_db']:g}.",
    ]


def _says(rules: Rules) -> str:
    return (
        f"log-mel spectrogram, {rules['frames']} frames x {rules['mel_bands']} bands from {rules['low_hz']:g} to "
        f"{rules['high_hz']:g} Hz, of {rules['clip_samples']} samples at {rules['sample_rate_hz']} Hz, in dB"
    )


def _kotlin(rules: Rules) -> str:
    sizes = ", ".join(str(rules[name]) for name in ("input_size", "clip_samples", "window_samples", "fft_samples"))
    bands = ", ".join(repr(float(rules[name])) for name in ("sample_rate_hz", "low_hz", "high_hz", "floor_db"))
    return f"Preprocessing({sizes}, {bands}, MEAN[0], STD[0])"


LOG_MEL = InputKind(
    example="recording",
    suffix=".wav",
    golden=_golden,
    packages=(),
    steps=_steps,
    value="dB",
    says=_says,
    properties=lambda rules: (_FEATURE_PROPERTIES, {}),
    kotlin=_kotlin,
    other_source="other microphones, rooms, voices, or noise",
)
