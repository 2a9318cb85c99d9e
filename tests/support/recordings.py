"""Recorded latencies of every network of a small space, for `replay:`."""

from __future__ import annotations

from pathlib import Path

from device_agents.api import DeviceInfo, Measurement, Verdict
from device_agents.replay import model_key, write_recording
from nas_edge.networks.analysis import analyze
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.spaces.decisions import Architecture
from tests.support.spaces import tiny_space


def record(path: Path, measurements: dict[str, Measurement]) -> Path:
    info = DeviceInfo("", "replay", "recorded phone", "soc", 1, None, "os", "litert", "1")
    write_recording(path, info, measurements)
    return path


def of_tiny_space(verdict: Verdict, of_one: Measurement | None = None) -> dict[str, Measurement]:
    """A measurement of each network of the space, by the key of its file; another one of one of them."""
    space = tiny_space(16, 1, 10)
    measurements = {}
    for kernel, _ in enumerate(space.decisions[0].choices):
        for width, _ in enumerate(space.decisions[1].choices):
            network = space.decode(Architecture((kernel, width)))
            measured = Measurement(verdict, samples_ms=(analyze(network).macs / 5e5,) * 8, busy_s=0.02)
            key = model_key(tflite_model(network, "float32"))
            measurements[key] = measured if of_one is None or (kernel, width) != (1, 3) else of_one
    return measurements
