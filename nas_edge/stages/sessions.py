"""Sessions of a run: what each start runs on, so that latencies from before and after are comparable."""

from __future__ import annotations

from dataclasses import asdict

from nas_edge.runs.environment import environment
from nas_edge.stages.context import RunContext


def add_session(context: RunContext) -> None:
    """Records the environment of this start of the run.

    Raises:
        RunError: when latencies would not be comparable with those of the first start.
    """
    run, device, config = context.run, context.bench.device, context.config
    run.prepare_to_write(context.reporter.say)
    info = {} if device is None else {**asdict(device.info), "fingerprint": device.info.fingerprint}
    data = {} if context.data is None else context.data.dataset.to_json()
    measuring = {"measure": config.measure.model_dump(), "final_measure": config.final_measure.model_dump()}
    differing = run.add_session(environment(info, context.bench.measured_with, data, measuring))
    if differing:
        context.reporter.say(f"results may differ from an uninterrupted run in their last bits: {', '.join(differing)}")
