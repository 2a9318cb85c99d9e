"""What models are run on while they are timed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from device_agents.api import BenchmarkSpec, DeviceAgent, Measurement
from device_agents.compiling import CompiledModel, Compiler, CompilingAgent
from device_agents.errors import SpecError
from device_agents.patient import PatientAgent
from device_agents.quiet import VisitSettings
from device_agents.visiting import VisitingAgent
from device_agents.worker.feeding import Examples, FedModel, as_input
from device_agents.worker.spec import RANDOM_VALUES
from device_agents.worker_agent import WorkerAgent
from nas_edge.networks.tflite_model import tflite_model
from tests.device_agents.test_worker_agent import SocketChannel, identify
from tests.support import models
from tests.support.candidates import candidate

EXAMPLES = np.random.default_rng(0).normal(size=(3, 5, 5, 2)).astype(np.float32)
VISIT = VisitSettings().of_visit(BenchmarkSpec()).replace(min_duration_s=0.0, max_duration_s=1e-6)


def detail(
    shape: tuple[int, ...], dtype: Any, scales: tuple[float, ...] = (), zero_points: tuple[int, ...] = ()
) -> Any:
    quantization = {"scales": np.array(scales, np.float32), "zero_points": np.array(zero_points)}
    return {"name": "x", "index": 7, "shape": np.array(shape), "dtype": dtype, "quantization_parameters": quantization}


class Interpreter:
    """Remembers what it was run on."""

    def __init__(self, *details: Any) -> None:
        self._details, self._value, self.seen = details, np.zeros(0), []  # type: ignore[var-annotated]

    def get_input_details(self) -> Any:
        return list(self._details)

    def set_tensor(self, index: int, value: Any) -> None:
        self._value = value

    def invoke(self) -> None:
        self.seen.append(self._value)


def test_a_model_is_run_on_one_example_after_the_other() -> None:
    interpreter = Interpreter(detail((1, 5, 5, 2), np.float32))
    examples = Examples.of(EXAMPLES)
    model = FedModel(interpreter, examples)
    for _ in range(7):
        assert model.invoke_ms() >= 0
    assert model.inputs == examples.digest
    np.testing.assert_array_equal(np.concatenate(interpreter.seen), EXAMPLES[[0, 1, 2, 0, 1, 2, 0]])


@pytest.mark.parametrize(
    "details",
    [
        [detail((1, 5, 5, 3), np.float32)],
        [detail((2, 5, 5, 2), np.float32)],
        [detail((1, 5, 5, 2), np.float32)] * 2,
        [detail((1, 5, 5, 2), np.int8)],
        [detail((1, 5, 5, 2), np.bool_)],
    ],
    ids=["shape", "batch", "two inputs", "not quantised", "neither number"],
)
def test_where_examples_do_not_fit_values_are_random_and_stay_the_same(details: list[Any]) -> None:
    interpreter = Interpreter(*details)
    model = FedModel(interpreter, Examples.of(EXAMPLES))
    model.invoke_ms()
    model.invoke_ms()
    assert model.inputs == RANDOM_VALUES
    np.testing.assert_array_equal(*interpreter.seen)


def test_examples_are_quantised_as_the_file_says() -> None:
    values = np.array([[0.0, 0.5, -0.26, 1.0, 99.0, -99.0]], np.float32)
    quantised = as_input(detail((1, 6), np.int8, (0.25,), (10,)), values)
    assert quantised is not None
    assert quantised.dtype == np.int8
    assert quantised.tolist() == [[10, 12, 9, 14, 127, -128]]


def test_other_examples_have_another_digest() -> None:
    assert Examples.of(EXAMPLES).digest == Examples.of(EXAMPLES.copy()).digest
    assert Examples.of(EXAMPLES).digest != Examples.of(EXAMPLES + 1).digest
    assert Examples.of(EXAMPLES).digest != Examples.of(EXAMPLES.reshape(3, 50)).digest


@pytest.mark.parametrize("values", [np.zeros((0, 2), np.float32), np.zeros((2, 2)), np.zeros(3, np.float32)])
def test_what_is_no_set_of_examples_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="float32"):
        Examples.of(values)


def test_settings_with_and_without_examples_never_share_latencies() -> None:
    spec = BenchmarkSpec()
    digests = [Examples.of(values).digest for values in (EXAMPLES, EXAMPLES + 1)]
    assert len({spec.settings_hash, *(spec.replace(inputs=digest).settings_hash for digest in digests)}) == 3
    with pytest.raises(SpecError, match="inputs"):
        spec.replace(inputs="photos")


class Counting(SocketChannel):
    """Counts how often it was sent examples."""

    sent = 0

    def write(self, data: bytes) -> None:
        Counting.sent += data == EXAMPLES.tobytes()
        super().write(data)


def inputs_of(measurement: Measurement) -> str | None:
    assert measurement.conditions is not None
    return measurement.conditions.inputs


def test_examples_travel_once_to_each_worker_and_measurements_say_what_was_run_on() -> None:
    Counting.sent = 0
    fitting = models.conv_model(layers=1, channels=2, side=5)
    other = models.conv_model(layers=1, channels=3, side=5)
    with WorkerAgent(Counting, identify) as agent:
        assert inputs_of(agent.measure(fitting, VISIT)) == RANDOM_VALUES
        digest = agent.take_examples(EXAMPLES)
        spec = VISIT.replace(inputs=digest)
        found = agent.measure_all([(fitting, spec), (other, spec), (fitting, VISIT), (fitting, spec)])
        assert [inputs_of(one) for one in found] == [digest, RANDOM_VALUES, RANDOM_VALUES, digest]
        assert inputs_of(agent.measure(fitting, spec)) == digest
        assert Counting.sent == 1
        assert agent._worker is not None
        agent._worker.channel.kill()
        assert inputs_of(agent.measure(fitting, spec)) == digest
        assert Counting.sent == 2
    assert Measurement.from_json(found[0].to_json()) == found[0]


def test_candidates_of_both_precisions_are_timed_on_examples() -> None:
    network = candidate(0).network
    examples = np.zeros((2, *network.input_shape), np.float32)
    with WorkerAgent(SocketChannel, identify) as agent:
        spec = VISIT.replace(inputs=agent.take_examples(examples))
        found = agent.measure_all([(tflite_model(network, precision), spec) for precision in ("int8", "float32")])
    assert [inputs_of(one) for one in found] == [spec.inputs] * 2


def test_examples_that_were_not_sent_are_an_error_and_not_replaced_by_others() -> None:
    spec = VISIT.replace(inputs=Examples.of(EXAMPLES).digest)
    with WorkerAgent(SocketChannel, identify) as agent:
        agent.take_examples(EXAMPLES + 1)
        with pytest.raises(Exception, match=f"{spec.inputs} were not sent"):
            agent.measure_all([(models.conv_model(layers=1, channels=2, side=5), spec)])


class OwnFiles(Compiler):
    """Compiles nothing: every model is its own file."""

    def compiled(self, model: bytes) -> CompiledModel:
        return CompiledModel(model)


@pytest.mark.parametrize(
    "around", [PatientAgent, partial(VisitingAgent, probes=[]), partial(CompilingAgent, compiler=OwnFiles())]
)
def test_an_agent_around_an_agent_hands_the_examples_on(around: Callable[[DeviceAgent], DeviceAgent]) -> None:
    model = models.conv_model(layers=1, channels=2, side=5)
    with around(WorkerAgent(SocketChannel, identify)) as agent:
        digest = agent.take_examples(EXAMPLES)
        assert digest == Examples.of(EXAMPLES).digest
        assert inputs_of(agent.measure(model, VISIT.replace(inputs=digest))) == digest
