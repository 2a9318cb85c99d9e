"""Whether the simulator ranks networks as a real device does; without that it claims no milliseconds.

Networks are measured on the device and simulated on the baseline accelerator. Their ranks have to agree: Spearman's
correlation of at least 0.8 over at least 30 networks. One factor, the median of measured over simulated, then turns
simulated latencies into milliseconds of that device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

MIN_NETWORKS = 30
MIN_SPEARMAN = 0.8


@dataclass(frozen=True)
class Calibration:
    """How simulated and measured latencies compare.

    Attributes:
        networks: how many were compared.
        spearman: correlation of their ranks; None if all measured or all simulated latencies are equal.
        factor: median of measured over simulated latencies; simulated latencies are multiplied by it.
    """

    networks: int
    spearman: float | None
    factor: float

    @property
    def refusal(self) -> str:
        """Why no milliseconds may be claimed; empty when they may."""
        if self.networks < MIN_NETWORKS:
            return f"{self.networks} measured networks are too few for a calibration: expected {MIN_NETWORKS} or more"
        if self.spearman is None or self.spearman < MIN_SPEARMAN:
            found = "undefined, since all are equal" if self.spearman is None else f"{self.spearman:.2f}"
            return (
                f"the simulator does not rank networks as the device does: Spearman's correlation over {self.networks} "
                f"networks is {found}, expected {MIN_SPEARMAN} or more"
            )
        return ""

    def __str__(self) -> str:
        """For people."""
        if self.refusal:
            return self.refusal
        return f"Spearman's correlation {self.spearman:.2f} over {self.networks} networks, factor {self.factor:.3g}"


def calibrate(simulated_ms: Sequence[float], measured_ms: Sequence[float]) -> Calibration:
    """Compares latencies of the same networks, in the same order.

    Raises:
        ValueError: when their numbers differ, or a latency is not a positive number.
    """
    if len(simulated_ms) != len(measured_ms):
        raise ValueError(
            f"expected as many simulated as measured latencies, received {len(simulated_ms)} and {len(measured_ms)}"
        )
    if bad := [value for value in (*simulated_ms, *measured_ms) if not 0 < value < math.inf]:
        raise ValueError(f"expected positive latencies, received {bad[0]}")
    if not simulated_ms:
        return Calibration(0, None, 1.0)
    alike = len(set(simulated_ms)) == 1 or len(set(measured_ms)) == 1
    spearman = None
    if not alike:
        from scipy.stats import spearmanr

        spearman = float(spearmanr(simulated_ms, measured_ms).statistic)
    factor = median(measured / simulated for simulated, measured in zip(simulated_ms, measured_ms, strict=True))
    return Calibration(len(simulated_ms), spearman, factor)
