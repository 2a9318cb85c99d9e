"""Whether the simulator orders networks as a device does that exists; before that it claims no milliseconds.

Of networks that were measured on the device, and simulated on the accelerator that comes nearest to it, the ranks have
to agree: Spearman's correlation of at least 0.8 over at least 30 networks. Simulated latencies then become milliseconds
of that device by one factor, the median of measured over simulated.
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
        networks: that were compared.
        spearman: correlation of their ranks; None where all measured, or all simulated latencies are equal.
        factor: measured over simulated, median; what a simulated latency is multiplied with.
    """

    networks: int
    spearman: float | None
    factor: float

    @property
    def refusal(self) -> str:
        """Why no milliseconds may be claimed; empty when they may."""
        if self.networks < MIN_NETWORKS:
            return f"{self.networks} measured networks are too few to calibrate with: expected {MIN_NETWORKS} or more"
        if self.spearman is None or self.spearman < MIN_SPEARMAN:
            found = "none, since all are alike" if self.spearman is None else f"{self.spearman:.2f}"
            return (
                f"the simulator does not order networks as the device does: Spearman's correlation of {self.networks} "
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
        ValueError: when they are not as many, or one is not a positive number.
    """
    if len(simulated_ms) != len(measured_ms):
        raise ValueError(f"expected as many, received {len(simulated_ms)} simulated and {len(measured_ms)} measured")
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
