"""The result file, written here by the real protobuf package."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.android.benchmark_model import read_report
from device_agents.android.result_file import read_result_file
from tests.support.android.result_file import result, result_type
from tests.support.android.tools import transcript


def test_what_protobuf_writes_is_read() -> None:
    numbers = read_result_file(result())
    assert numbers["median_ms"] == 7.375
    assert numbers["num_runs"] == 40
    assert numbers["overall_footprint_kb"] == 14592
    assert "model_size_mb" not in numbers


def test_it_adds_to_what_the_tool_printed() -> None:
    report = read_report(transcript("tf_2_14")).with_result(read_result_file(result()))
    assert report.timed is not None
    assert (report.timed.count, report.timed.sample_us, report.timed.std_us) == (40, 7375, None)
    assert (report.init_us, report.first_inference_us) == (10500, 9000)
    assert report.overall_memory_bytes == 14592 * 1024
    assert report.warmup == read_report(transcript("tf_2_14")).warmup


def test_a_tool_that_writes_none_changes_nothing() -> None:
    report = read_report(transcript("tf_2_14"))
    assert report.with_result(read_result_file(b"")) == report


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e20])
def test_absurd_numbers_are_left_out(value: float) -> None:
    message = result_type()()
    message.latency_metrics.avg_ms = value
    assert read_result_file(message.SerializeToString()) == {}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_error(data: bytes) -> None:
    read_report("").with_result(read_result_file(data))


@given(st.integers(0, 80), st.binary(max_size=4))
def test_damaged_files_are_read_without_an_error(at: int, inserted: bytes) -> None:
    data = result()
    read_report("").with_result(read_result_file(data[:at] + inserted + data[at + 1 :]))
