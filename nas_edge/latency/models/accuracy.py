"""How far predictions are from what was measured, in the figures that this field reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from nas_edge.latency.models.predictor import FloatArray


class Accuracy(BaseModel):
    """Figures over networks that the model was not fitted to.

    Attributes:
        networks: how many.
        mape: mean absolute error, as a share of what was measured.
        p90_error: that error of nine in ten networks is at most this.
        within_5: share of the networks whose error is at most 5%.
        within_10: likewise 10%.
        spearman: rank correlation; None for fewer than three networks, or where all are equal.
        kendall: likewise, tau-b.
        covered: share of the networks within their 95% interval; None without intervals.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    networks: int
    mape: float
    p90_error: float
    within_5: float
    within_10: float
    spearman: float | None = None
    kendall: float | None = None
    covered: float | None = None


def accuracy_of(
    predicted_ms: Sequence[float] | FloatArray,
    measured_ms: Sequence[float] | FloatArray,
    half_widths: Sequence[float] | FloatArray | None = None,
) -> Accuracy:
    """The figures.

    Args:
        predicted_ms: `[n]`, at least one.
        measured_ms: `[n]`.
        half_widths: half of each prediction's 95% interval as a share of it, `[n]`.
    """
    from scipy.stats import kendalltau, spearmanr

    predicted, measured = np.asarray(predicted_ms, float), np.asarray(measured_ms, float)
    errors = np.abs(predicted - measured) / measured
    ordered = len(measured) > 2 and np.ptp(predicted) > 0 and np.ptp(measured) > 0
    covered = None
    if half_widths is not None:
        covered = float(np.mean(np.abs(measured - predicted) <= np.asarray(half_widths) * predicted))
    return Accuracy(
        networks=len(measured),
        mape=float(errors.mean()),
        p90_error=float(np.quantile(errors, 0.9)),
        within_5=float(np.mean(errors <= 0.05)),
        within_10=float(np.mean(errors <= 0.10)),
        spearman=float(spearmanr(predicted, measured).statistic) if ordered else None,
        kendall=float(kendalltau(predicted, measured).statistic) if ordered else None,
        covered=covered,
    )
