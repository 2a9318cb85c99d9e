"""How fast a device is at each kind of operator: the time of one that was never measured.

    t(operator) = overhead + per_mmac * MACs / 10^6 + per_mvalue * values moved / 10^6

with rates of its group (`OperatorShape.group`), none of them negative. A group that was never measured takes the mean
of all, by the share of the work that they did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nas_edge.latency.models.predictor import FloatArray, weights_of
from nas_edge.latency.models.subject import Observation, OperatorShape, Subject

_MILLION = 1e6
# Keeps a rate from growing where others explain as much; columns and target are scaled to length 1.
_PENALTY = 0.01
# Relative standard error of an operator's time on its own, when its inputs and weights stay in caches, around its time
# in a network.
ERROR_OF_ISOLATED = 0.1


class Rates(BaseModel):
    """Of one group of operators.

    Attributes:
        overhead_ms: of each operator, however small.
        ms_per_mmac: of a million multiply-accumulates.
        ms_per_mvalue: of a million values that are read or written, parameters among them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    overhead_ms: float = Field(ge=0)
    ms_per_mmac: float = Field(ge=0)
    ms_per_mvalue: float = Field(ge=0)

    def latency_ms(self, operator: OperatorShape) -> float:
        """Of one operator, in milliseconds."""
        overhead, mmacs, mvalues = _work(operator)
        return self.overhead_ms * overhead + self.ms_per_mmac * mmacs + self.ms_per_mvalue * mvalues


class RatesOfGroups(BaseModel):
    """The rates of all groups.

    Attributes:
        groups: by name.
        others: of a group that is not among them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    groups: Mapping[str, Rates]
    others: Rates

    def latency_ms(self, operator: OperatorShape) -> float:
        """Of one operator, in milliseconds."""
        return self.groups.get(operator.group, self.others).latency_ms(operator)


def fit_rates(observations: Sequence[Observation], isolated: Sequence[Observation] = ()) -> RatesOfGroups:
    """The rates under which the latencies of networks are best explained.

    Args:
        observations: of networks, with operators.
        isolated: of operators on their own, which all have the same overhead.

    Source: Lawson and Hanson, "Solving Least Squares Problems", 1974: least squares with no negative coefficient.
    """
    from scipy.optimize import nnls

    rows = [*observations, *isolated]
    groups = sorted({operator.group for one in rows for operator in one.subject.operators or ()})
    works = np.stack([group_works(one.subject, groups) for one in rows])  # [n, groups, 3]
    weights = weights_of(observations)
    columns = works.reshape(len(rows), -1)
    if isolated:
        weights = np.append(weights, weights_of(isolated, ERROR_OF_ISOLATED))
        columns = np.column_stack([columns, np.arange(len(rows)) >= len(observations)])
    columns = columns * weights[:, None]
    target = weights * np.array([one.latency_ms for one in rows])
    scales = np.linalg.norm(columns, axis=0)
    scales[scales == 0] = 1.0
    size = float(np.linalg.norm(target))
    penalty = _PENALTY * np.eye(columns.shape[1])
    found, _ = nnls(
        np.concatenate([columns / scales, penalty]), np.concatenate([target / size, np.zeros(columns.shape[1])])
    )
    rates = (found * size / scales)[: 3 * len(groups)].reshape(-1, 3)
    shares = works.sum(axis=0)  # [groups, 3]
    with np.errstate(invalid="ignore"):
        means = np.nan_to_num((rates * shares).sum(axis=0) / shares.sum(axis=0))
    return RatesOfGroups(
        groups={group: _rates(row) for group, row in zip(groups, rates, strict=True)}, others=_rates(means)
    )


def group_works(subject: Subject, groups: Sequence[str]) -> FloatArray:
    """Operators, million MACs and million values of each group, `[groups, 3]`."""
    position = {group: place for place, group in enumerate(groups)}
    works = np.zeros((len(groups), 3))
    for operator, count in (subject.operators or {}).items():
        if operator.group in position:
            works[position[operator.group]] += count * np.array(_work(operator))
    return works


def _work(operator: OperatorShape) -> tuple[float, float, float]:
    values = operator.activation_values + operator.parameter_values
    return 1.0, operator.macs / _MILLION, values / _MILLION


def _rates(row: FloatArray) -> Rates:
    overhead, per_mmac, per_mvalue = map(float, row)
    return Rates(overhead_ms=overhead, ms_per_mmac=per_mmac, ms_per_mvalue=per_mvalue)
