"""The tool's command line and its output, from transcripts written after the real forms (devices.md of the project)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.android.benchmark_model import (
    BLOCKS,
    RunStatistics,
    block_invocation,
    judge_report,
    profile_invocation,
    read_report,
)
from device_agents.api import BenchmarkSpec, Verdict
from device_agents.errors import SpecError
from device_agents.worker.statistics import median_interval
from tests.support.android.tools import transcript
from tests.support.data import DATA

SPEC = BenchmarkSpec(min_runs=45, min_duration_s=0.9, max_duration_s=1.0, warmup_min_runs=4, warmup_min_duration_s=0.02)


def test_a_present_build_is_read() -> None:
    report = read_report(transcript("tf_2_14"))
    assert report.warmup == RunStatistics(1, 1388, 1388, 1388)
    assert report.timed == RunStatistics(20, 829.85, 751, 1030, 68)
    assert (report.init_us, report.first_inference_us) == (403, 1388)
    assert report.model_bytes == 22724
    assert (report.init_memory_bytes, report.overall_memory_bytes) == (2879484, 4382722)
    assert report.loaded
    assert report.ready


def test_a_build_without_prefix_and_with_exponents_is_read() -> None:
    report = read_report(transcript("no_prefix"))
    assert report.warmup is not None
    assert report.timed is not None
    assert (report.warmup.count, report.timed.count, report.timed.sample_us) == (3, 50, 2.95034e6)


def test_the_oldest_form_gives_a_mean_of_unknown_count() -> None:
    report = read_report(transcript("oldest"))
    assert report.timed == RunStatistics(0, 66767.6)
    assert (report.init_us, report.overall_memory_bytes) == (9933, 13484687)


def test_the_tool_of_litert_is_read() -> None:
    report = read_report(transcript("litert_tool"))
    assert report.timed == RunStatistics(20, 7112.4, 7054, 7301, 51, 7101, 7060, 7240)
    assert (report.init_us, report.first_inference_us) == (9870, 9010)
    assert report.overall_memory_bytes == 14.25 * 2**20
    # On Android the lines of statistics may be in its log only, and the block of results here.
    rounded = read_report(transcript("litert_results_only")).timed
    assert rounded is not None
    assert (rounded.count, rounded.mean_us, rounded.min_us) == (20, 7110, pytest.approx(7050))


def test_equal_runs_are_read() -> None:
    assert read_report(transcript("all_same")).timed == RunStatistics(4, 9, 9, 9)


def test_the_median_is_taken_where_it_is_printed() -> None:
    timed = read_report(transcript("quantiles")).timed
    assert timed is not None
    assert (timed.sample_us, timed.mean_us, timed.p5_us, timed.p95_us) == (853, 879.85, 850, 1010)


@pytest.mark.parametrize("name", ["profile", "profile_old"])
def test_operators_are_read_in_the_order_they_ran(name: str) -> None:
    report = read_report(transcript(name))
    assert [(row.op, row.mean_ms) for row in report.profile] == [
        ("CONV_2D", 0.300),
        ("DEPTHWISE_CONV_2D", 0.346),
        ("FULLY_CONNECTED", 0.704),
    ]
    assert sum(row.share for row in report.profile) == pytest.approx(1)
    assert [row.name for row in report.profile][1:] == ["[block with a tab]:1", "[StatefulPartitionedCall:0]:2"]
    # The tables' own count= lines are not the measurement.
    assert report.timed is not None
    assert report.timed.mean_us == 829.85


@pytest.mark.needs("data")
def test_a_transcript_of_somebody_elses_board_is_read() -> None:
    report = read_report((DATA / "benchmark_model_logs/meta-tflite_mobilenet_v1_opprofile.md").read_text())
    assert report.timed is not None
    assert (report.timed.count, report.timed.mean_us) == (50, 2.95034e6)
    assert len(report.profile) == 31
    assert report.profile[0].name == "[MobilenetV1/MobilenetV1/Conv2d_0/Relu6]:0"
    assert sum(row.share for row in report.profile) == pytest.approx(1, abs=0.01)


# Verdicts


@pytest.mark.parametrize(
    ("name", "exit_code", "delegate", "verdict", "detail"),
    [
        ("tf_2_14", 0, "cpu", Verdict.OK, ""),
        ("oldest", 0, "cpu", Verdict.OK, ""),
        ("unknown_flag", 0, "gpu", Verdict.FALLBACK, "does not know --use_gpu=true"),
        ("tf_2_14", 0, "gpu", Verdict.FALLBACK, "does not say that the gpu delegate was used"),
        ("gpu", 0, "gpu", Verdict.OK, ""),
        ("nnapi_none", 0, "nnapi", Verdict.FALLBACK, "the nnapi delegate took over no operator"),
        ("nnapi_none", 0, "nnapi+cpu", Verdict.FALLBACK, "the nnapi delegate took over no operator"),
        ("partial", 0, "external:/l", Verdict.FALLBACK, "only a part of the model (2 kernels)"),
        ("litert_tool", 0, "cpu", Verdict.OK, ""),
        ("litert_tool", 0, "gpu", Verdict.FALLBACK, "does not say that the gpu delegate was used"),
        ("litert_gpu_partial", 0, "gpu", Verdict.FALLBACK, "a part of the model (30 of 64 operators)"),
        ("litert_gpu_partial", 0, "gpu+cpu", Verdict.OK, ""),
        ("warmup_only", 0, "cpu", Verdict.RUN_FAILED, "reported the warm-up, but no timed runs"),
        ("crashed_delegate", 139, "external:/l", Verdict.LOAD_FAILED, "SIGSEGV"),
        ("missing_model", 1, "cpu", Verdict.LOAD_FAILED, "Could not open"),
        ("tf_2_14", 139, "cpu", Verdict.RUN_FAILED, "SIGSEGV"),
        ("tf_2_14", 137, "cpu", Verdict.OUT_OF_MEMORY, "SIGKILL"),
        ("tf_2_14", 132, "cpu", Verdict.RUN_FAILED, "SIGILL"),
    ],
)
def test_each_failure_has_its_verdict(name: str, exit_code: int, delegate: str, verdict: Verdict, detail: str) -> None:
    invocation = block_invocation(SPEC.replace(delegate=delegate), "/m.tflite")
    got, text = judge_report(read_report(transcript(name)), exit_code, invocation, require_delegate=True)
    assert (got, detail in text) == (verdict, True), text


def test_a_delegate_that_took_a_part_is_a_fallback_unless_the_cpu_may_do_the_rest() -> None:
    report = read_report(transcript("partial"))
    for delegate, expected in (("external", Verdict.FALLBACK), ("external+cpu", Verdict.OK)):
        spec = SPEC.replace(delegate=f"{delegate}:/lib.so,a=1,b=2", min_runs=1)
        invocation = block_invocation(spec, "/m.tflite", "/on/phone.so")
        assert "--external_delegate_path=/on/phone.so" in invocation.flags
        assert "--external_delegate_options=a:1;b:2" in invocation.flags
        verdict, detail = judge_report(report, 0, invocation, require_delegate=False)
        assert verdict is expected
    assert (
        "2 kernels" in judge_report(report, 0, block_invocation(SPEC.replace(delegate="external:/l"), "/m"), False)[1]
    )
    assert detail == ""


def test_a_delegate_that_took_nothing_is_a_fallback() -> None:
    text = transcript("tf_2_14").replace(
        "INFO: Loaded",
        "INFO: Though GPU delegate is explicitly applied, the model graph will not be executed.\nINFO: Loaded",
    )
    invocation = block_invocation(SPEC.replace(delegate="gpu+cpu"), "/m.tflite")
    verdict, detail = judge_report(read_report(text), 0, invocation, require_delegate=False)
    assert (verdict, detail) == (Verdict.FALLBACK, "the gpu delegate took over no operator")


def test_a_tool_without_xnnpack_does_what_none_asks_for() -> None:
    text = transcript("unknown_flag").replace("--use_gpu=true", "--use_xnnpack=false")
    assert (
        judge_report(read_report(text), 0, block_invocation(SPEC.replace(delegate="none", min_runs=1), "/m"), False)[0]
        is Verdict.OK
    )


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("ERROR: Encountered unresolved custom op: edgetpu-custom-op.", Verdict.LOAD_FAILED),
        ("terminate called after throwing an instance of 'std::bad_alloc'", Verdict.OUT_OF_MEMORY),
        ("ERROR: Failed to allocate tensors!", Verdict.LOAD_FAILED),
    ],
)
def test_the_line_that_says_why_is_found(line: str, verdict: Verdict) -> None:
    text = f"INFO: Loaded model m\n{line}\nERROR: Benchmarking failed.\n"
    got, detail = judge_report(read_report(text), 1, block_invocation(SPEC, "/m"), False)
    assert got is verdict
    assert line.removeprefix("ERROR: ") in detail


# The command line


def test_the_tool_runs_as_often_as_asked_and_not_for_its_own_minimum_times() -> None:
    flags = block_invocation(SPEC, "/m.tflite").flags
    assert flags == (
        "--graph=/m.tflite",
        "--num_runs=5",
        "--num_threads=1",
        "--min_secs=0.1",
        "--max_secs=60",
        "--warmup_runs=4",
        "--warmup_min_secs=0.02",
    )
    assert SPEC.min_runs == 5 * BLOCKS
    assert "--enable_op_profiling=true" in profile_invocation(SPEC, "/m").flags
    assert "--min_secs=0" in profile_invocation(SPEC, "/m").flags


def test_shapes_are_handed_over() -> None:
    spec = SPEC.replace(input_shapes={"x": (1, 224, 224, 3), "y": (1, 10)})
    assert block_invocation(spec, "/m").flags[-2:] == (
        "--input_layer=x,y",
        "--input_layer_shape=1,224,224,3:1,10",
    )
    assert "--input_layer=serving:0" in block_invocation(SPEC.replace(input_shapes={"serving:0": (1, 2)}), "/m").flags
    with pytest.raises(SpecError, match="commas"):
        block_invocation(SPEC.replace(input_shapes={"a,b": (1, 2)}), "/m")
    with pytest.raises(SpecError, match="Unknown delegate"):
        SPEC.replace(delegate="npu")


def test_one_disturbed_block_does_not_widen_the_interval() -> None:
    assert median_interval([*[1.0] * (BLOCKS - 1), 9.0]) == (1.0, 1.0)


# Hostile output


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
def test_any_text_is_read_without_an_error(text: str) -> None:
    read_report(text)


@given(st.integers(0, 2000), st.text(max_size=5))
def test_transcripts_damaged_anywhere_are_read_without_an_error(at: int, inserted: str) -> None:
    for name in ("profile", "quantiles", "litert_gpu_partial"):
        text = transcript(name)
        report = read_report(text[:at] + inserted + text[at + 3 :])
        judge_report(report, 0, block_invocation(SPEC, "/m"), False)


@pytest.mark.parametrize(
    "line", ["count=0 avg=1", "count=5 avg=-3 curr=1", "count=5 avg=1e99", "count=99999999999 avg=1"]
)
def test_absurd_statistics_are_not_believed(line: str) -> None:
    assert read_report(f"{line}\n{line}\n").timed is None


@pytest.mark.parametrize(
    ("start", "filling", "end"),
    [
        ("count=1 a=", "1", "x"),
        ("count=1 ", "a", ""),
        ("Inference timings in us: ", "a", ""),
        ("Memory footprint delta from the start of the tool (MB): init=", "1", ""),
        ("count=", "1", ""),
    ],
)
def test_a_line_of_any_length_is_done_with_at_once(start: str, filling: str, end: str) -> None:
    # Were the time to read it to grow with the square of its length, this would take hours.
    report = read_report(start + 3_000_000 * filling + end + "\n" + transcript("tf_2_14"))
    assert report.timed == RunStatistics(20, 829.85, 751, 1030, 68)


def test_fewer_runs_than_asked_are_no_measurement() -> None:
    spec = SPEC.replace(min_runs=50 * BLOCKS)
    verdict, detail = judge_report(read_report(transcript("tf_2_14")), 0, block_invocation(spec, "/m"), False)
    assert (verdict, detail) == (Verdict.RUN_FAILED, "benchmark_model ran the model 20 times, 50 were asked for")
    # The oldest builds do not say how often.
    assert judge_report(read_report(transcript("oldest")), 0, block_invocation(spec, "/m"), False)[0] is Verdict.OK
