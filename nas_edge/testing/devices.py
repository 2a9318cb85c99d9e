"""What a device agent promises."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from device_agents.anchor import builtin_anchor_model
from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement
from device_agents.errors import DeviceError, ModelError
from nas_edge.testing.expect import expect, expect_no_error

# Over quickly; how steady the device is, is not asked.
_SPEC = BenchmarkSpec(
    min_runs=6,
    max_runs=12,
    min_duration_s=0.0,
    max_duration_s=0.1,
    target_relative_half_width=10.0,
    max_relative_half_width=10.0,
    warmup_max_duration_s=0.05,
    max_attempts=1,
    timeout_s=60.0,
)


def check_device_agent(
    open_agent: Callable[[], DeviceAgent], model: bytes | None = None, spec: BenchmarkSpec = _SPEC
) -> None:
    """Checks a device agent; takes seconds where a measurement does.

    Args:
        open_agent: opens the device; called twice, after the first agent was closed.
        model: a TFLite file that the device can measure, with float inputs; None for a small one of 32 x 32 pixels.
        spec: how to measure it.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    good = builtin_anchor_model() if model is None else model
    with expect_no_error("opening the device"), open_agent() as agent:
        info = _check_info(agent)
        _check_measurement(agent.measure(good, spec), info, spec)
        for what, no_model in {"an empty file": b"", "a text": b"my notes " * 9, "a torn file": good[:1000]}.items():
            with expect_no_error(f"{what} is a verdict, not an exception"):
                failed = agent.measure(no_model, spec)
            expect(not failed.ok and not failed.samples_ms, f"{what} was measured: {failed.samples_ms}")
            expect(bool(failed.detail), f"{what} got the verdict {failed.verdict} without a word why")
        after = agent.measure(good, spec)
        expect(
            bool(after.samples_ms), f"after files that are no models, a good one is no longer measured: {after.detail}"
        )
        _check_running(agent, good)
        agent.close()  # and again at the end of the block
    with expect_no_error("opening the device again after it was closed"), open_agent() as agent:
        expect(
            agent.info().fingerprint == info.fingerprint,
            "opened twice, the device has another fingerprint, so what was measured before could not be used",
        )


def _check_info(agent: DeviceAgent) -> DeviceInfo:
    info = agent.info()
    expect(isinstance(info, DeviceInfo), f"`info` must be a DeviceInfo, received {type(info).__name__}")
    for name in ("address", "kind", "model", "runtime", "runtime_version"):
        value = getattr(info, name)
        expect(isinstance(value, str) and bool(value), f"`info().{name}` must be a text, received {value!r}")
    expect(
        isinstance(info.cores, int) and info.cores >= 1, f"`info().cores` must be 1 or more, received {info.cores!r}"
    )
    expect(agent.info() == info, "`info` changes from one call to the next")
    return info


def _check_measurement(measurement: Measurement, info: DeviceInfo, spec: BenchmarkSpec) -> None:
    expect(
        isinstance(measurement, Measurement),
        f"`measure` must give a Measurement, received {type(measurement).__name__}",
    )
    expect(
        bool(measurement.samples_ms),
        f"a good model was not timed: {measurement.verdict}, {measurement.detail}; pass one that runs on this device",
    )
    expect(min(measurement.samples_ms) > 0, f"samples must be above 0 ms, received {min(measurement.samples_ms)}")
    expect(measurement.busy_s >= 0, f"`busy_s` must not be negative, received {measurement.busy_s}")
    read_back = Measurement.from_json(json.loads(json.dumps(measurement.to_json())))
    expect(read_back == measurement, "the measurement does not survive being written to a journal")
    conditions = measurement.conditions
    if conditions is None:
        raise AssertionError("a timed model must come with its `conditions`")
    expect(
        (conditions.device_fingerprint, conditions.runtime) == (info.fingerprint, info.runtime),
        "`conditions` must name the device and the runtime of `info`",
    )
    expect(conditions.threads == spec.threads, f"`conditions.threads`: {spec.threads} asked, {conditions.threads} said")


def _check_running(agent: DeviceAgent, model: bytes) -> None:
    """An agent that cannot run models for their outputs says so with ModelError."""
    for inputs in ([], [np.zeros(3, np.float32)] * 9):
        try:
            agent.run(model, inputs)
        except ModelError:
            pass
        except Exception as error:
            raise AssertionError(f"`run` with wrong inputs must raise ModelError, raised {error!r}") from error
        else:
            raise AssertionError(f"`run` accepted {len(inputs)} inputs that the model does not have")
    try:
        outputs = agent.run(builtin_anchor_model(), [np.zeros((1, 32, 32, 32), np.float32)])
    except ModelError:
        return
    except DeviceError as error:
        raise AssertionError(f"`run` must give outputs or raise ModelError, raised {error!r}") from error
    shapes = [array.shape for array in outputs]
    expect(
        shapes == [(1, 32, 32, 32)],
        f"`run` of the built-in model must give one output [1, 32, 32, 32], received {shapes}",
    )
    expect(bool(np.isfinite(outputs[0]).all()), "`run` of the built-in model gives outputs that are not finite")
