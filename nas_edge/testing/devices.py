"""What a device agent promises, and what a device scheme does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement
from device_agents.checks import Check
from device_agents.errors import DeviceError, ModelError
from device_agents.probe_models import compute_model
from device_agents.scheme import DeviceRow, Scheme
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
    patience_s=0.0,
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
    good = compute_model() if model is None else model
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
        outputs = agent.run(compute_model(), [np.zeros((1, 32, 32, 32), np.float32)])
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


# What `nas-edge devices setup` has already.
_TAKEN_OPTIONS = ("address", "debug", "help")


def check_device_scheme(scheme: Scheme, rest: str, malformed: Sequence[str] = ()) -> None:
    """Checks a device scheme; the agent it opens has a suite of its own, `check_device_agent`.

    Nothing is set up. The device at `rest` must be there: it is opened, its `doctor` looks at it, and its `clean`
    removes what stays on it.

    Args:
        scheme: the scheme.
        rest: what follows the colon in the address of a device of this kind.
        malformed: some that are not well-formed.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    expect(isinstance(scheme, Scheme), f"a scheme must be a Scheme, received {type(scheme).__name__}")
    _check_description(scheme)
    expect(scheme.problem(rest) == "", f"`problem` refuses {rest!r}, the address of a device: {scheme.problem(rest)}")
    for wrong in malformed:
        with expect_no_error(f"`problem` of {wrong!r}"):
            problem = scheme.problem(wrong)
        expect(bool(problem), f"`problem` finds nothing wrong with {wrong!r}")
        expect("\n" not in problem, f"`problem` must be one line, received {problem!r}")
    _check_listing(scheme)
    _check_completion(scheme, rest)
    _check_setup(scheme)
    with expect_no_error("opening the device"), scheme.open(rest) as agent:
        expect(isinstance(agent, DeviceAgent), f"`open` must give a DeviceAgent, received {type(agent).__name__}")
        kind = agent.info().kind
        expect(bool(kind), "the device that `open` opened says nothing of its kind")
    if scheme.doctor is not None:
        _check_checks("doctor", partial(scheme.doctor, rest))
    if scheme.check_host is not None:
        _check_checks("check_host", scheme.check_host)
    _check_cleaning(scheme, rest)


def _check_description(scheme: Scheme) -> None:
    expect(
        bool(re.fullmatch(r"[a-z][a-z0-9-]*", scheme.name)),
        f"`name` must be small letters, digits and dashes, received {scheme.name!r}",
    )
    expect(
        scheme.form.startswith(f"{scheme.name}:"), f"`form` must begin with {scheme.name}:, received {scheme.form!r}"
    )
    expect(bool(scheme.what) and "\n" not in scheme.what, f"`what` must be a few words, received {scheme.what!r}")


def _check_listing(scheme: Scheme) -> None:
    if scheme.list is None:
        return
    with expect_no_error("`list` says in a row what is wrong, and raises nothing"):
        rows = scheme.list()
    for row in rows:
        expect(isinstance(row, DeviceRow), f"`list` must give DeviceRows, received {type(row).__name__}")
        name, _, found = row.address.partition(":")
        expect(name == scheme.name, f"`list` gives {row.address!r}, which is of another scheme")
        problem = scheme.problem(found) if row.present else ""
        expect(problem == "", f"`list` gives {row.address!r}, which `problem` refuses: {problem}")
        expect(bool(row.state), f"`list` gives {row.address!r} without a `state`")
        why = row.detail or row.fix
        expect(row.state == "ready" or bool(why), f"`list` does not say why {row.address!r} is {row.state}")


def _check_completion(scheme: Scheme, rest: str) -> None:
    if scheme.complete is None:
        return
    for typed in ("", rest[: len(rest) // 2], rest):
        found = scheme.complete(typed)
        expect(
            all(isinstance(more, str) for more in found) and not isinstance(found, str),
            f"`complete` must give texts, received {found!r:.80}",
        )
        for more in found:
            problem = scheme.problem(more)
            expect(problem == "", f"`complete` offers {more!r}, which `problem` refuses: {problem}")


def _check_setup(scheme: Scheme) -> None:
    if scheme.setup is None:
        return
    for option in scheme.setup.options:
        expect(
            bool(re.fullmatch(r"[a-z][a-z0-9-]*", option.name)) and option.name not in _TAKEN_OPTIONS,
            f"an option of `setup` must be small letters, digits and dashes and none of {', '.join(_TAKEN_OPTIONS)}, "
            f"received {option.name!r}",
        )
        expect(bool(option.metavar and option.help), f"the option --{option.name} of `setup` must say what it takes")
    example = scheme.setup.example
    expect(
        not example or example.startswith(f"{scheme.name}:") or ":" in example.split()[0],
        f"`setup.example` must begin with an address, received {example!r}",
    )


def _check_cleaning(scheme: Scheme, rest: str) -> None:
    if scheme.clean is None:
        return
    with expect_no_error("`clean` of a device that is there"):
        removed, again = scheme.clean(rest), scheme.clean(rest)
    for lines in (removed, again):
        expect(
            isinstance(lines, (list, tuple)) and all(isinstance(line, str) for line in lines),
            f"`clean` must give a line for each thing that was removed, received {lines!r:.80}",
        )
        for line in lines:
            expect(bool(line) and "\n" not in line, f"`clean` must give single lines, received {line!r:.80}")
    expect(not again, f"`clean` removes again what it has removed: {', '.join(again)}")


def _check_checks(name: str, look: Callable[[], Sequence[Check]]) -> None:
    with expect_no_error(f"`{name}` says in a check what is wrong, and raises nothing"):
        checks = list(look())
    expect(bool(checks), f"`{name}` found nothing at all")
    for check in checks:
        expect(isinstance(check, Check), f"`{name}` must give Checks, received {type(check).__name__}")
        expect(bool(check.name and check.found), f"`{name}` gives a check without a name or without what was found")
        expect(
            check.state == "pass" or bool(check.fix),
            f"`{name}` says of {check.name!r} that it is {check.state}, not what to do",
        )
