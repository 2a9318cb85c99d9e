"""The measuring loop's logic with a runtime made of functions; nothing here is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from device_agents.worker.feeding import FedModel
from device_agents.worker.measure import Outcome, measure_model
from device_agents.worker.runtime import Runtime
from device_agents.worker.spec import BenchmarkSpec
from device_agents.worker.tensors import decode_arrays, encode_arrays, random_input, wanted_shapes


class Interpreter:
    def __init__(self, on_invoke: Callable[[], None]) -> None:
        self.invoke = on_invoke
        self.set_tensors: dict[int, Any] = {}

    def get_input_details(self) -> list[dict[str, Any]]:
        return [detail("x", 0, (1, 2), np.float32)]

    def resize_tensor_input(self, index: int, shape: tuple[int, ...]) -> None: ...

    def allocate_tensors(self) -> None: ...

    def set_tensor(self, index: int, value: Any) -> None:
        self.set_tensors[index] = value


def detail(
    name: str,
    index: int,
    shape: tuple[int, ...],
    dtype: Any,
    signature: Any = None,
    scales: Any = (),
) -> dict[str, Any]:
    return {
        "name": name,
        "index": index,
        "shape": np.array(shape, np.int32),
        "shape_signature": np.array(shape if signature is None else signature, np.int32),
        "dtype": dtype,
        "quantization_parameters": {"scales": np.array(scales)},
    }


def measured(spec: BenchmarkSpec, on_invoke: Callable[[], None] = lambda: None) -> Outcome:
    class FakeRuntime(Runtime):
        def interpreter(self, model: bytes, threads: int, delegate: str) -> Any:
            return Interpreter(on_invoke)

    return measure_model(FakeRuntime("fake", "1", None), b"", spec, stages.append)


stages: list[str] = []
FIXED = BenchmarkSpec(
    min_runs=10,
    max_runs=10,
    min_duration_s=0.0,
    warmup_min_runs=3,
    warmup_min_duration_s=0.0,
    warmup_max_duration_s=60.0,
)


@pytest.fixture(autouse=True)
def scripted_times(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Replaces the stopwatch by given times in ms; the last one repeats."""
    script: list[float] = [1.0]

    def invoke_ms(model: Any) -> float:
        model._interpreter.invoke()
        return script.pop(0) if len(script) > 1 else script[0]

    monkeypatch.setattr(FedModel, "invoke_ms", invoke_ms)

    def use(times: list[float]) -> None:
        script[:] = times

    return use


def test_timing_stops_at_min_runs_when_the_interval_is_narrow() -> None:
    outcome = measured(FIXED.replace(max_runs=500))
    assert len(outcome.samples_ms) == 10


def test_timing_goes_on_until_the_shortest_duration_is_over() -> None:
    outcome = measured(FIXED.replace(max_runs=5000, min_duration_s=0.1, max_duration_s=1.0))
    assert 100 <= len(outcome.samples_ms) <= 130


def test_timing_of_a_scattered_model_stops_at_the_longest_duration(scripted_times: Any) -> None:
    scripted_times([1.0] * 9 + [1.0, 9.0] * 5000)
    outcome = measured(FIXED.replace(max_runs=5000, max_duration_s=0.5))
    assert sum(outcome.samples_ms) >= 500
    assert len(outcome.samples_ms) < 200


def test_timing_stops_at_max_runs(scripted_times: Any) -> None:
    scripted_times([1.0] * 9 + [1.0, 9.0] * 5000)
    assert len(measured(FIXED.replace(max_runs=30)).samples_ms) == 30


def test_a_slow_model_still_gets_min_runs(scripted_times: Any) -> None:
    scripted_times([2000.0])
    assert len(measured(FIXED.replace(max_duration_s=0.5)).samples_ms) == 10


def test_warm_up_lasts_until_times_stop_falling(scripted_times: Any) -> None:
    first, falling = [50.0], [40.0, 30.0, 20.0, 15.0, 12.0, 11.0, 10.5, 10.2]
    scripted_times([*first, *falling, 10.0])
    outcome = measured(FIXED)
    assert outcome.first_inference_ms == 50.0
    assert outcome.warmup_runs is not None
    assert outcome.warmup_runs >= len(falling)
    assert outcome.samples_ms == [10.0] * 10


def test_stages_are_announced_before_they_begin() -> None:
    stages.clear()
    measured(FIXED)
    assert stages == ["load", "run"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("bad op"), "error"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError(), "out_of_memory"),
    ],
)
def test_what_the_runtime_raises_is_reported_with_its_stage(error: Exception, kind: str) -> None:
    def fail() -> None:
        raise error

    failure = measured(FIXED, fail).failure
    assert failure is not None
    assert (failure["stage"], failure["kind"]) == ("run", kind)


def test_open_dimensions_become_one_unless_overridden() -> None:
    details = [
        detail("a", 3, (1, 4), np.float32, (-1, 4)),
        detail("b", 5, (1, 4), np.float32),
    ]
    assert wanted_shapes(details, ()) == {3: (1, 4)}
    assert wanted_shapes(details, (("a", (8, 4)), ("b", (2, 4)))) == {3: (8, 4), 5: (2, 4)}
    with pytest.raises(ValueError, match=r"No input is named c; the inputs are a, b"):
        wanted_shapes(details, (("c", (1,)),))


@pytest.mark.parametrize(
    "dtype",
    [
        np.float32,
        np.float16,
        np.float64,
        np.int8,
        np.uint8,
        np.int32,
        np.int64,
        np.bool_,
        np.complex64,
        np.bytes_,
    ],
)
def test_inputs_have_the_dtype_and_shape_of_the_model(dtype: Any) -> None:
    value = random_input(detail("x", 0, (2, 3), dtype), np.random.default_rng(0))
    assert value.shape == (2, 3)
    assert value.dtype == (object if dtype is np.bytes_ else dtype)


def test_plain_integers_are_valid_indices_and_quantized_ones_use_the_whole_range() -> None:
    rng = np.random.default_rng(0)
    assert random_input(detail("x", 0, (999,), np.int32), rng).max() <= 1
    assert random_input(detail("x", 0, (9999,), np.int8, scales=(0.1,)), rng).min() == -128


def test_arrays_survive_the_wire() -> None:
    arrays = [
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.array(1.5, np.float32),
        np.array([True, False]),
        np.array([b"a", b"\xff\x00"], dtype=object),
        np.zeros((0, 3), np.float64),
    ]
    for sent, received in zip(arrays, decode_arrays(*encode_arrays(arrays)), strict=True):
        assert received.shape == sent.shape
        np.testing.assert_array_equal(received, sent)
