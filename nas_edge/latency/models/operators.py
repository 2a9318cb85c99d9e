"""The table of operators: a time for each that occurs in what was measured, and rates for those that do not.

    T(network) = bias + sum over its operators of t(operator)

Operators that are equal, wherever they stand, share an entry. An entry is drawn towards what the rates of its group say
(`rates.py`), the more, the less was measured of it: operators that always occur together could not be told apart
otherwise. The overhead of starting an operator is part of its time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from nas_edge.latency.models.predictor import FloatArray, Prediction, Predictor, weights_of
from nas_edge.latency.models.rates import RatesOfGroups, fit_rates
from nas_edge.latency.models.ridge import fit_ridge
from nas_edge.latency.models.subject import Observation, OperatorShape, Subject, parse_operator

# Standard error of the rates at a single operator, as a share of its time.
_ERROR_OF_RATES = 0.3


def _operator_line(text: str) -> str:
    parse_operator(text)
    return text


class OperatorTable(Predictor):
    """A bias, entries and rates.

    Attributes:
        bias_ms: what every network pays.
        entries: milliseconds by operator, see `OperatorShape`.
        rates: of those without an entry.
        error: relative standard error of a network all of whose operators have an entry.
    """

    kind: Literal["operators"] = "operators"
    bias_ms: float
    entries: Mapping[Annotated[str, AfterValidator(_operator_line)], Annotated[float, Field(ge=0)]]
    rates: RatesOfGroups
    error: float = Field(ge=0)

    @classmethod
    def fit(cls, observations: Sequence[Observation]) -> OperatorTable | None:
        """By ridge regression around the rates; None where there are observations without operators."""
        told = [one.subject.operators for one in observations]
        counts = [operators for operators in told if operators is not None]
        if len(counts) < max(cls.fewest, len(told)):
            return None
        rates = fit_rates(observations)
        operators = list(dict.fromkeys(operator for counter in counts for operator in counter))
        features = count_matrix(counts, operators)
        prior_ms = np.array([rates.latency_ms(operator) for operator in operators])
        latencies_ms = np.array([one.latency_ms for one in observations])
        weights = weights_of(observations)
        # In proportion to its own time, and never nothing: the rates of a group may have come out as zero.
        deviations = prior_ms + float(np.mean(prior_ms)) * 0.1
        found = fit_ridge(features, latencies_ms - features @ prior_ms, weights, deviations**2)
        entries_ms = np.maximum(prior_ms + found.coefficients, 0.0)
        bias_ms = found.base - float(found.centre @ found.coefficients)
        error = float(np.sqrt(np.mean(np.square(found.held_out / weights / latencies_ms))))
        return cls(
            bias_ms=bias_ms,
            entries={str(operator): float(ms) for operator, ms in zip(operators, entries_ms, strict=True)},
            rates=rates,
            error=error,
        )

    @cached_property
    def _known_ms(self) -> dict[OperatorShape, float]:
        return {parse_operator(text): ms for text, ms in self.entries.items()}

    def operator_ms(self, operator: OperatorShape) -> float:
        """See `Predictor`."""
        known = self._known_ms.get(operator)
        return self.rates.latency_ms(operator) if known is None else known

    def predict(self, subjects: Sequence[Subject]) -> Prediction:
        """See `Predictor`; NaN where there is no network."""
        found = [self._predict(subject) for subject in subjects]
        latencies_ms, errors = np.array(found).reshape(-1, 2).T
        return Prediction(latencies_ms, errors)

    def _predict(self, subject: Subject) -> tuple[float, float]:
        if subject.operators is None:
            return np.nan, np.nan
        known_ms = self._known_ms
        times = [(known_ms.get(operator), operator, count) for operator, count in subject.operators.items()]
        seen = sum(count * ms for ms, _, count in times if ms is not None)
        unseen = [count * self.rates.latency_ms(operator) for ms, operator, count in times if ms is None]
        total_ms = self.bias_ms + seen + sum(unseen)
        # Errors of operators that were never measured are taken for independent of each other.
        of_rates = _ERROR_OF_RATES * float(np.sqrt(np.sum(np.square(unseen)))) / total_ms if total_ms > 0 else np.nan
        return total_ms, float(np.hypot(self.error, of_rates))

    def parts_ms(self, subject: Subject) -> Mapping[str, float]:
        """See `Predictor`."""
        parts: Counter[str] = Counter()
        for operator, count in (subject.operators or {}).items():
            parts[operator.group] += count * self.operator_ms(operator)  # type: ignore[assignment]
        return {**parts, "overhead of the network": self.bias_ms}


def count_matrix(counts: Sequence[Counter[OperatorShape]], operators: Sequence[OperatorShape]) -> FloatArray:
    """How often each network has each operator, `[n, operators]`; others are left out."""
    position = {operator: place for place, operator in enumerate(operators)}
    features = np.zeros((len(counts), len(operators)))
    for number, counter in enumerate(counts):
        for operator, count in counter.items():
            if operator in position:
                features[number, position[operator]] = count
    return features
