"""The simulated Edge TPU: its roofline in closed form, what it refuses, and its constants beside what was published."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from device_agents.api import Verdict
from nas_edge.errors import ConfigError
from nas_edge.hardware import HARDWARE
from nas_edge.hardware.edgetpu_timing import EDGETPU_TIMING, EdgeTpuTiming
from nas_edge.hardware.lint import fit_space
from nas_edge.latency import LATENCY_SOURCES, LatencyContext, open_latency_source
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.roofline import estimate
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.networks.analysis import analyze
from nas_edge.networks.precisions import Precision
from nas_edge.networks.work import OperatorWork, kernel_work, network_work
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.design import Design
from nas_edge.spaces.reference import reference_network
from nas_edge.testing import check_latency_source
from nas_edge.testing.problems import nested_space
from tests.support.joint import JointSettings, joint_space
from tests.support.spaces import small_space, tiny_space

# Round numbers, so that every term can be told from the others.
ROUND = EdgeTpuTiming(
    cycle_ns=1e6,  # 1 ms
    block_us=1e4,  # 10 ms
    depthwise_cycle_ns=1e8,  # 100 ms
    operator_us=1e6,  # 1 s
    host_ms=1e4,
    link_bytes_per_ms={"usb": 0.01, "pcie": 0.001},
    on_chip_bytes=10_000,
)


def opened(text: str, space: SearchSpace, precision: Precision = "int8") -> LatencySource:
    settings = LATENCY_SOURCES.settings({"source": text})
    return open_latency_source(settings, LatencyContext(space, precision, None))  # type: ignore[arg-type]


def asked(source: LatencySource, space: SearchSpace, architecture: Architecture) -> LatencyAnswer:
    return source.submit(Candidate(space.build(architecture), architecture)).result(0)


def test_a_convolution_takes_its_blocks_times_its_pixels() -> None:
    # 3 * 3 * 8 = 72 summed values: two rows of blocks; 65 channels: two columns. 2 * 3 pixels.
    work = kernel_work("CONV_2D", (4, 6, 8), (65, 3, 3, 8), (2, 3, 65))
    assert work.macs == 6 * 72 * 65
    assert work.parameter_bytes == 65 * 72 + 4 * 65
    assert estimate([work], ROUND, "usb").latency_ms == pytest.approx(1e4 + 1e3 + 4 * (6 + 10))


def test_a_depthwise_convolution_takes_its_taps() -> None:
    work = kernel_work("DEPTHWISE_CONV_2D", (4, 4, 65), (1, 3, 3, 65), (2, 2, 65))
    assert work.macs == 4 * 9 * 65
    assert estimate([work], ROUND, "usb").latency_ms == pytest.approx(1e4 + 1e3 + 4 * 9 * 2 * 100)


def test_a_transposed_convolution_is_applied_where_it_reads() -> None:
    assert kernel_work("TRANSPOSE_CONV", (4, 4, 8), (3, 3, 3, 8), (8, 8, 3)).macs == 16 * 9 * 8 * 3


def test_moving_values_costs_nothing_and_other_operators_alike() -> None:
    works = [OperatorWork("RESHAPE", 10), OperatorWork("CONCATENATION", 10), OperatorWork("ADD", 10)]
    assert estimate(works, ROUND, "usb").latency_ms == pytest.approx(1e4 + 1e3)


def test_parameters_without_room_are_streamed_while_the_array_computes() -> None:
    first, second = (kernel_work("CONV_2D", (1, 1, 60), (60, 1, 1, 60), (1, 1, 60)) for _ in range(2))
    size, computing_ms = first.parameter_bytes, 1e3 + 1 + 10
    assert size == 60 * 60 + 4 * 60
    whole = estimate([first, second], ROUND, "usb")
    assert (whole.on_chip_bytes, whole.streamed_bytes) == (2 * size, 0)
    assert whole.latency_ms == pytest.approx(1e4 + 2 * computing_ms)
    # Activations of 4,000 bytes leave 6,000: the second operator's parameters travel in part.
    works = [first, second, OperatorWork("ADD", 4_000)]
    missing = 2 * size - 6_000
    for link, rate in ROUND.link_bytes_per_ms.items():
        found = estimate(works, ROUND, link)
        assert (found.on_chip_bytes, found.streamed_bytes) == (6_000, missing)
        assert missing / rate > computing_ms
        assert found.latency_ms == pytest.approx(1e4 + computing_ms + missing / rate + 1e3)
    fast = EdgeTpuTiming(1e6, 1e4, 1e8, 1e6, 1e4, {"usb": 1e9, "pcie": 1e9}, on_chip_bytes=10_000)
    assert estimate(works, fast, "usb").latency_ms == pytest.approx(1e4 + 2 * computing_ms + 1e3)


def test_activations_larger_than_the_chip_leave_no_room() -> None:
    work = kernel_work("CONV_2D", (100, 100, 8), (8, 1, 1, 8), (100, 100, 8))
    assert estimate([work], ROUND, "usb").streamed_bytes == work.parameter_bytes


@pytest.mark.parametrize("name", ["mobilenet-v1", "mobilenet-v2", "efficientnet-edgetpu-s"])
def test_the_work_of_a_network_is_that_of_its_analysis(name: str) -> None:
    spec = reference_network(name)
    works, analysis = network_work(spec), analyze(spec)
    assert sum(work.macs for work in works) == analysis.macs
    # The file has the kernels and a bias of 4 bytes in place of batch norm's two numbers.
    channels = sum(work.channels for work in works)
    classes = 1001
    assert sum(work.parameter_bytes for work in works) == analysis.parameters + 2 * channels + classes


@pytest.mark.parametrize("text", ["sim:edgetpu", "sim:edgetpu:pcie"])
def test_a_simulated_source_conforms_where_all_of_a_space_runs(text: str) -> None:
    space = tiny_space()
    check_latency_source(lambda: opened(text, space), space)


def test_it_says_simulated_and_the_same_every_time() -> None:
    space = find_space("proxylessnas")(224, 1.0, 1001, 3)
    architecture = Architecture((0,) * len(space.decisions))
    with opened("sim:edgetpu", space) as source, opened("sim:edgetpu:pcie", space) as other:
        answer = asked(source, space, architecture)
        assert answer == asked(source, space, architecture)
        assert answer.kind is LatencyKind.SIMULATED
        assert str(answer.kind) == "simulated"
        whole = estimate(network_work(space.decode(architecture)), EDGETPU_TIMING, "usb")
        assert answer.latency_ms == whole.latency_ms
        assert source.name != other.name, "a run at USB must not be continued at PCIe"
        assert not source.measures_on_host


@pytest.mark.parametrize("name", ["proxylessnas", "proxylessnas-enlarged", "mobilenet-v3-like"])
def test_it_simulates_every_space_that_was_made_to_fit(name: str) -> None:
    space = fit_space(find_space(name)(64, 0.5, 10, 3), HARDWARE["edgetpu"]).space
    check_latency_source(lambda: opened("sim:edgetpu", space), space, candidates=2)


def test_a_space_of_which_nothing_runs_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"no network of small runs on .*HARD_SWISH.*--hardware edgetpu"):
        opened("sim:edgetpu", small_space())


def test_a_candidate_that_does_not_run_has_no_latency() -> None:
    space = nested_space()
    source = opened("sim:edgetpu", space)
    hostile = reference_network("mobilenet-v3-large", 32, 0.25, 10)
    answer = source.submit(Candidate(Design(hostile))).result(0)
    assert (answer.kind, answer.verdict, answer.latency_ms) == (LatencyKind.SIMULATED, Verdict.FALLBACK, None)
    assert "HARD_SWISH" in answer.detail
    assert math.isfinite(asked(source, space, Architecture((0,) * len(space.decisions))).latency_ms or math.nan)


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"int8 networks only.*--precision int8"):
        opened("sim:edgetpu", tiny_space(), "float32")
    with pytest.raises(ConfigError, match="expected one of edgetpu, edgetpu:pcie"):
        opened("sim:tpu", tiny_space())


def test_a_space_of_a_table_is_refused(tmp_path: Path) -> None:
    from nas_edge.spaces.table import TableSpaceSettings, table_space

    file = tmp_path / "table.csv"
    file.write_text("op,accuracy,ms\na,0.5,1\nb,0.6,2\n")
    space = table_space(TableSpaceSettings(file=str(file), decisions=("op",)))
    with pytest.raises(ConfigError, match=r"times networks, which .* does not describe"):
        opened("sim:edgetpu", space)


def test_a_joint_space_is_timed_by_its_networks() -> None:
    space = joint_space(JointSettings(), classes=10, channels=1)
    small, large = (asked(opened("sim:edgetpu", space), space, Architecture((width, 0))) for width in (0, 3))
    assert small.ok
    assert large.ok
    assert asked(opened("sim:edgetpu", space), space, Architecture((0, 2))) == small
