"""A run folder of any size with made-up numbers, written by the code that writes real ones: no device, no training.

For timing and testing what looks at runs. The search settles as it goes, the device warms up, some candidates fail.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from device_agents.api import Conditions, DeviceInfo, Measurement, Verdict
from nas_edge.config import load_config
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.runs.environment import environment
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from nas_edge.spaces import SPACES
from nas_edge.spaces.decisions import Architecture, SearchSpace

DEVICE = DeviceInfo("fake:1", "fake", "made-up phone", "soc", 8, 2**33, "os 1", "litert", "1.0")
FAILURES = (Verdict.UNSTEADY, Verdict.RUN_FAILED, Verdict.OUT_OF_MEMORY, Verdict.TIMEOUT, Verdict.DRIFTED)


def make_run(folder: Path, trials: int, samples: int = 200, seed: int = 0, target_ms: float = 1.0) -> Run:
    """Makes a stopped run.

    Args:
        folder: new.
        trials: how many; one per step, after the delay in which nothing is judged.
        samples: of each measurement.
        seed: of everything random.
        target_ms: what was asked for.

    Returns:
        The run, with environment, target and journal; without checkpoints.
    """
    rng = np.random.default_rng(seed)
    config = load_config("demo", flags={"target.latency_ms": target_ms, "seed": seed}, settings=["search.steps=1"])
    delay_share = config.search.model_dump()["delay_fraction"]
    steps = round(trials / (1 - delay_share)) + 1
    config = load_config(flags={"search.steps": steps}, base=config)
    key = {"precision": "int8", "device": DEVICE.fingerprint, "runtime": "litert 1.0", "settings": "made up"}
    with Run.create(folder, config) as run:
        run.add_session(environment({**vars(DEVICE), "fingerprint": DEVICE.fingerprint}, key))
    run.once("target", lambda: {"target_ms": target_ms})
    space = SPACES.make(config.space, 10, 1)
    costs = [rng.uniform(0, 1.6 * target_ms / len(space.decisions), len(d.choices)) for d in space.decisions]
    merits = [rng.normal(0, 0.02, len(d.choices)) for d in space.decisions]
    with closing(run.open_journal(print)) as journal:
        for number in range(trials):
            settled = number / max(1, trials - 1)
            architecture = _sample(space, merits, settled, rng)
            cost_ms = 0.2 * target_ms + sum(row[c] for row, c in zip(costs, architecture.choices, strict=True))
            quality = 0.5 + 0.3 * settled + sum(row[c] for row, c in zip(merits, architecture.choices, strict=True))
            quality = float(np.clip(quality + rng.normal(0, 0.02), 0, 1))
            measurement = _measurement(float(cost_ms), settled, samples, rng)
            latency_ms = measurement.latency_ms
            usage = None if latency_ms is None else {"latency_ms": latency_ms}
            reward = None if latency_ms is None else quality - 0.1 * abs(latency_ms / target_ms - 1)
            step = config.search.delay_steps + number
            journal.append(
                Trial(step, step, architecture, quality, LatencyAnswer.measured(measurement), usage, reward).to_json()
            )
    return run


def conditions(**told: Any) -> Conditions:
    """Those of a measurement on the made-up device; `told` are further ones."""
    return Conditions(
        device_fingerprint=DEVICE.fingerprint,
        device_model=DEVICE.model,
        runtime=DEVICE.runtime,
        runtime_version=DEVICE.runtime_version,
        delegate="cpu",
        threads=1,
        started_utc="2026-01-01T00:00:00.000+00:00",
        **told,
    )


def _sample(space: SearchSpace, merits: list[Any], settled: float, rng: np.random.Generator) -> Architecture:
    """A point of the space; the more settled the search is, the more often the choices of most merit."""
    best = rng.random(len(merits)) < 0.9 * settled
    choices = (int(np.argmax(row)) if on else int(rng.integers(len(row))) for row, on in zip(merits, best, strict=True))
    return space.canonical(Architecture(tuple(choices)))


def _measurement(median_ms: float, settled: float, samples: int, rng: np.random.Generator) -> Measurement:
    """One in twenty fails; the device warms up, and slows down by 4%."""
    told = conditions(
        delegate_kernels=1,
        cores=(7,),
        governor="schedutil",
        temperature_c_before=30 + 15 * settled,
        temperature_c_after=31 + 15 * settled,
        anchor_ratio=1 + 0.04 * settled,
    )
    facts: dict[str, Any] = {"conditions": told, "busy_s": 0.4, "peak_memory_bytes": 3_000_000}
    verdict = Verdict.OK
    if rng.random() < 0.05:
        verdict = FAILURES[int(rng.integers(len(FAILURES)))]
        if verdict not in (Verdict.UNSTEADY, Verdict.DRIFTED):
            return Measurement(verdict, "made up", **facts)
    times_ms = rng.normal(median_ms * (1 + 0.04 * settled), 0.01 * median_ms, samples)
    return Measurement(
        verdict,
        "" if verdict is Verdict.OK else "made up",
        samples_ms=tuple(map(float, np.abs(times_ms))),
        init_ms=2.5,
        first_inference_ms=float(3 * median_ms),
        warmup_runs=8,
        **facts,
    )
