"""The space of accelerators and their simulator: known figures, and every term in closed form."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest

from nas_edge.accelerators.enumeration import fastest_within
from nas_edge.accelerators.simulator import Simulated, simulate, simulate_work
from nas_edge.accelerators.space import PARAMETERS, accelerators, all_accelerators, baseline, choices_of, count
from nas_edge.errors import SpaceError
from nas_edge.networks.analysis import analyze
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.work import OperatorWork
from nas_edge.rewards import Objective
from nas_edge.testing.mnasnet import INVERTED, mnasnet_a1

BASELINE = accelerators([baseline()])
AREA = Objective("relative_area", 1.0)


def exact_areas() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The area of every accelerator in integers, of which the baseline has `UNIT`."""
    every = all_accelerators()
    return np.array(
        200 * every.macs_per_cycle
        + 33 * 2_560 * every.pes * every.local_memory_mb
        + 12 * 40 * every.pes * every.lanes * every.register_file_kb
        + 10 * 4_096 * every.io_gbps
        + 5 * 5_120 * every.pes,
        np.int64,
    )


UNIT = 100 * 81_920


def test_there_are_fifty_thousand_accelerators() -> None:
    every = all_accelerators()
    assert count() == len(every) == 50_000
    for position in (0, 1, 4_711, 49_999):
        values = [p.values[choice] for p, choice in zip(PARAMETERS.values(), choices_of(position), strict=True)]
        assert values == [float(getattr(every, name)[position]) for name in PARAMETERS]


def test_the_baseline_has_twenty_six_tops() -> None:
    (macs,) = BASELINE.macs_per_cycle
    assert macs * 2 * 0.8e9 == pytest.approx(26.2e12, rel=0.01)
    assert BASELINE.area.tolist() == [1.0]


def test_so_many_are_not_larger_than_the_baseline() -> None:
    """32,869 by sums in floating point; six more are as large as the baseline, and just above it for rounding only."""
    exact, within = exact_areas(), all_accelerators().area <= 1.0
    assert within.tolist() == (exact <= UNIT).tolist()
    assert within.sum() == 32_875
    every = all_accelerators()
    added_up = (
        0.40 * every.macs_per_cycle / 16_384
        + 0.33 * every.pes * every.local_memory_mb / 32
        + 0.12 * every.pes * every.lanes * every.register_file_kb / 2_048
        + 0.10 * every.io_gbps / 20
        + 0.05 * every.pes / 16
    )
    assert (added_up <= 1.0).sum() == 32_869
    assert set(exact[within & (added_up > 1.0)].tolist()) == {UNIT}


def on_baseline_ms(network: NetworkSpec) -> float:
    return float(simulate(network, BASELINE).latency_ms[0])


def test_the_best_accelerator_for_mnasnet_a1() -> None:
    """Figures of the method's description, which counts no gates."""
    network = mnasnet_a1(gates=False)
    simulated = simulate(network, all_accelerators())
    best = fastest_within(simulated, [Objective("latency_ms", 1.0), AREA])
    assert simulated.latency_ms[best] == simulated.latency_ms[simulated.area <= 1.0].min()
    assert simulated.latency_ms[best] == pytest.approx(0.112, abs=0.0005)
    assert on_baseline_ms(network) == pytest.approx(0.164, abs=0.0005)
    assert 1 - simulated.latency_ms[best] / on_baseline_ms(network) == pytest.approx(0.32, abs=0.005)


def test_fusing_early_blocks_pays_and_fusing_all_does_not() -> None:
    plain, early, every = (mnasnet_a1(gates=False, fused=fused) for fused in ((), (2, 3), INVERTED))
    assert [round(analyze(network).macs / 1e6) for network in (plain, early)] == [311, 618]
    assert on_baseline_ms(early) == pytest.approx(0.154, abs=0.0005)
    assert on_baseline_ms(every) == pytest.approx(0.221, abs=0.0005)


def test_mnasnet_a1_is_the_published_network() -> None:
    analysis = analyze(mnasnet_a1())
    assert analysis.macs == pytest.approx(311.6e6, rel=0.001)
    assert analysis.parameters == pytest.approx(3.89e6, rel=0.005)


def conv(pixels: int, summed: int, channels: int, activation_bytes: int = 0) -> OperatorWork:
    return OperatorWork("CONV_2D", activation_bytes, pixels=pixels, summed=summed, channels=channels)


def latency_us(work: OperatorWork, **changed: float) -> float:
    return float(simulate_work([work], accelerators([{**baseline(), **changed}])).latency_ms[0]) * 1e3


def cycles_us(cycles: float) -> float:
    return cycles / 800 + 1.0


def test_a_convolution_takes_the_better_mapping() -> None:
    # Channels on 4 * 64 units and pixels on 4 * 4 of them, or channels on 16 and pixels on 256.
    deep, wide = conv(pixels=16, summed=9, channels=256), conv(pixels=256, summed=9, channels=16)
    assert latency_us(deep) == pytest.approx(cycles_us(3))
    assert latency_us(wide) == pytest.approx(cycles_us(3))
    assert latency_us(conv(pixels=257, summed=9, channels=16)) == pytest.approx(cycles_us(2 * 3))


def test_a_depthwise_convolution_has_work_for_one_lane() -> None:
    work = OperatorWork("DEPTHWISE_CONV_2D", 0, pixels=49, summed=25, channels=300)
    assert latency_us(work) == latency_us(work, lanes=8) == pytest.approx(cycles_us(2 * ceil(49 / 4) * 25))


def test_kernels_beyond_the_register_files_cost_up_to_fifteen_percent() -> None:
    registers = 4 * 4 * 4 * 8 * 1024  # bytes
    twice, often = (conv(1, 4 * times * registers // 1024, 256) for times in (2, 8))
    assert latency_us(twice, register_file_kb=8) == pytest.approx(cycles_us(2 * registers // 1024 * 1.05))
    assert latency_us(often, register_file_kb=8) == pytest.approx(cycles_us(8 * registers // 1024 * 1.15))


def test_what_does_not_fit_into_memory_is_read_over_the_io() -> None:
    one_pe = {"pes_x": 1, "pes_y": 1, "local_memory_mb": 1.0, "io_gbps": 8}
    half_of_kernels = conv(1, 1536, 1024)  # 1.5 MiB, of which 0.75 MiB stay
    assert latency_us(half_of_kernels, **one_pe) == pytest.approx(0.75 * 2**20 / 1e3 + 1.0)
    activations = conv(1, 1, 1, activation_bytes=2**20)  # of which a quarter stays
    assert latency_us(activations, **one_pe) == pytest.approx(0.75 * 2**20 / 1e3 + 1.0)


def test_energy_counts_work_and_bytes() -> None:
    one_pe = accelerators([{**baseline(), "pes_x": 1, "pes_y": 1, "local_memory_mb": 1.0}])
    fits, streams = conv(10, 64, 32, activation_bytes=1000), conv(1, 1536, 1024)
    assert simulate_work([fits], one_pe).energy_mj * 1e9 == pytest.approx(10 * 64 * 32 + 6 * (1000 + 64 * 32))
    kernel = 1536 * 1024
    assert simulate_work([streams], one_pe).energy_mj * 1e9 == pytest.approx(kernel * (1 + 6 + 150 / 2))


def test_operators_without_a_kernel_are_not_counted() -> None:
    work = conv(16, 9, 256)
    assert latency_us(work) == simulate_work([work, OperatorWork("ADD", 10**9)], BASELINE).latency_ms[0] * 1e3


def test_the_fastest_that_meets_the_other_targets_is_best() -> None:
    def column(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array(values)

    simulated = Simulated(column(4, 3, 2, 1), column(0.5, 0.9, 1.1, 3), column(1, 2, 3, 4))
    latency = Objective("latency_ms", 9.0)
    assert fastest_within(simulated, [latency]) == 3
    assert fastest_within(simulated, [latency, AREA]) == 1
    assert fastest_within(simulated, [AREA, Objective("energy_mj", 1.5)]) == 0
    assert fastest_within(simulated, [Objective("relative_area", 0.1)]) == 0, "the least miss"
    assert fastest_within(simulated, [Objective("macs", 1.0)]) == 3, "no accelerator changes it"


@pytest.mark.parametrize("value", [None, 0, -1, "four", float("nan")])
def test_an_accelerator_needs_all_of_its_parameters(value: float | str | None) -> None:
    given = {**baseline(), "lanes": value}
    with pytest.raises(SpaceError, match="positive lanes"):
        accelerators([{name: one for name, one in given.items() if one is not None}])
