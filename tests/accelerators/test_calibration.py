"""What has to hold before simulated latencies are called milliseconds."""

from __future__ import annotations

import numpy as np
import pytest

from nas_edge.accelerators.calibration import calibrate

SIMULATED = [1.0 + i / 10 for i in range(30)]


def test_latencies_in_the_same_order_are_calibrated_by_their_ratio() -> None:
    calibration = calibrate(SIMULATED, [20 * value for value in SIMULATED])
    assert calibration.refusal == ""
    assert calibration.spearman == pytest.approx(1.0)
    assert calibration.factor == pytest.approx(20)
    assert str(calibration) == "Spearman's correlation 1.00 over 30 networks, factor 20"


def test_too_few_networks_claim_nothing() -> None:
    assert "29 measured networks are too few" in calibrate(SIMULATED[:29], SIMULATED[:29]).refusal
    assert "0 measured networks" in calibrate([], []).refusal


def test_another_order_claims_nothing() -> None:
    shuffled = np.random.default_rng(0).permutation(SIMULATED).tolist()
    calibration = calibrate(SIMULATED, shuffled)
    assert "does not rank networks as the device does" in calibration.refusal
    assert str(calibration) == calibration.refusal


def test_networks_that_are_all_alike_claim_nothing() -> None:
    assert "all are equal" in calibrate([1.0] * 30, SIMULATED).refusal


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_only_positive_latencies_are_compared(bad: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        calibrate([1.0, bad], [1.0, 1.0])
    with pytest.raises(ValueError, match="as many"):
        calibrate([1.0], [1.0, 1.0])
