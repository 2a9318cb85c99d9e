"""The table of operators: a time for each that occurs in what was measured, and rates for those that do not.

    T(network) = bias + sum over its operators of t(operator)

Operators that are equal, wherever they stand, share an entry. An entry is drawn towards what the rates of its group say
(`rates.py`), the more, the less was measured of it: operators that always occur together could not be told apart
otherwise. If operators were also measured on their own, rates and entries are fitted to these as well:

    T(operator on its own) = isolated bias + t(operator)

The overhead of starting an operator is part of its time; that of a network, or of a network of a single operator, is a
bias.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from nas_edge.latency.models.predictor import FloatArray, Prediction, Predictor, weights_of
from nas_edge.latency.models.rates import ERROR_OF_ISOLATED, RatesOfGroups, fit_rates
from nas_edge.latency.models.ridge import fit_ridge
from nas_edge.latency.models.subject import Observation, OperatorShape, Subject, parse_operator

# Standard error of the rates at a single operator, as a share of its time.
_ERROR_OF_RATES = 0.3


def operator_line(text: str) -> str:
    """Returns a line of text that is an operator; raises ValueError for others."""
    parse_operator(text)
    return text


class OperatorTable(Predictor):
    """A bias, entries and rates.

    Attributes:
        bias_ms: what every network pays.
        entries: milliseconds by operator, see `OperatorShape`.
        rates: of those without an entry.
        error: relative standard error of a network all of whose operators have an entry.
        isolated_bias_ms: overhead of an operator measured on its own; None if the fit uses none.
    """

    kind: Literal["operators"] = "operators"
    bias_ms: float
    entries: Mapping[Annotated[str, AfterValidator(operator_line)], Annotated[float, Field(ge=0)]]
    rates: RatesOfGroups
    error: float = Field(ge=0)
    isolated_bias_ms: float | None = None

    @classmethod
    def fit(cls, observations: Sequence[Observation]) -> OperatorTable | None:
        """By ridge regression around the rates; None where there are observations without operators."""
        return cls._fit(observations, ())

    @classmethod
    def fit_with_isolated(
        cls, observations: Sequence[Observation], isolated: Sequence[Observation]
    ) -> OperatorTable | None:
        """See `Predictor`; an operator on its own is a row with its entry and an overhead shared by all such rows."""
        return cls._fit(observations, isolated)

    @classmethod
    def _fit(cls, observations: Sequence[Observation], isolated: Sequence[Observation]) -> OperatorTable | None:
        told = [one.subject.operators for one in (*observations, *isolated)]
        counts = [operators for operators in told if operators is not None]
        networks = len(observations)
        if len(counts) < len(told) or networks < cls.fewest:
            return None
        rates = fit_rates(observations, isolated)
        operators = list(dict.fromkeys(operator for counter in counts for operator in counter))
        features = count_matrix(counts, operators)
        prior_ms = np.array([rates.latency_ms(operator) for operator in operators])
        latencies_ms = np.array([one.latency_ms for one in (*observations, *isolated)])
        weights = weights_of(observations)
        if isolated:
            weights = np.append(weights, weights_of(isolated, ERROR_OF_ISOLATED))
        # In proportion to its own time, and never nothing: the rates of a group may have come out as zero.
        deviations = prior_ms + float(np.mean(prior_ms)) * 0.1
        values = latencies_ms - features @ prior_ms
        sizes = [networks, len(isolated)] if isolated else [networks]
        found = fit_ridge(features, values, weights, deviations**2, group_sizes=sizes)
        entries_ms = np.maximum(prior_ms + found.coefficients, 0.0)
        off = found.held_out[:networks] / weights[:networks] / latencies_ms[:networks]
        return cls(
            bias_ms=float(found.biases[0]),
            entries={str(operator): float(ms) for operator, ms in zip(operators, entries_ms, strict=True)},
            rates=rates,
            error=float(np.sqrt(np.mean(np.square(off)))),
            isolated_bias_ms=float(found.biases[1]) if isolated else None,
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
