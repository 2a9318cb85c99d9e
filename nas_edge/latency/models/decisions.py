"""The linear model over decisions: a bias, and what each choice and each combination of choices of a layer adds.

    T(architecture) = bias + sum of the terms whose choices are all made

as TuNAS' published tables have it (reference code `cost_model_lib.py`: products of one-hot choices per layer). The
decisions of one layer are those whose names differ after the last dot only: `block2.layer1.kernel`, `...ratio`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import ClassVar, Literal, TypeAlias

import numpy as np

from nas_edge.latency.models.predictor import Prediction, Predictor, weights_of
from nas_edge.latency.models.ridge import fit_ridge
from nas_edge.latency.models.subject import Observation, Subject
from nas_edge.latency.table import Term
from nas_edge.spaces.design import Extra

_Term: TypeAlias = "tuple[tuple[str, Extra], ...]"

# Prior variance of what a combination of choices adds beyond the choices alone, relative to theirs.
_OF_COMBINATIONS = 0.25
# How much less sure a model is for each choice that no observation had.
_ERROR_OF_UNSEEN = 0.05


class DecisionModel(Predictor):
    """A bias and terms.

    Attributes:
        bias_ms: what every architecture pays.
        terms: milliseconds of choices and combinations of choices.
        error: relative standard error.
    """

    needs_choices: ClassVar[bool] = True

    kind: Literal["decisions"] = "decisions"
    bias_ms: float
    terms: tuple[Term, ...]
    error: float = 0.0

    @classmethod
    def fit(cls, observations: Sequence[Observation]) -> DecisionModel | None:
        """By ridge regression; None where there are observations without decisions."""
        told = [one.subject.choices for one in observations]
        chosen = [choices for choices in told if choices is not None]
        if len(chosen) < max(cls.fewest, len(told)):
            return None
        rows = [list(_terms_of(choices)) for choices in chosen]
        position = {term: place for place, term in enumerate(dict.fromkeys(term for row in rows for term in row))}
        features = np.zeros((len(rows), len(position)))
        for number, row in enumerate(rows):
            features[number, [position[term] for term in row]] = 1.0
        # A column that is the same in all rows says nothing; its part is the bias's.
        varies = np.ptp(features, axis=0) > 0
        terms = [term for term, kept in zip(position, varies, strict=True) if kept]
        # It is kept all the same, so that another choice is known to be one that was never seen.
        constant = [term for term, kept in zip(position, varies, strict=True) if not kept and len(term) == 1]
        features = features[:, varies]
        if not terms:
            return None
        variances = np.array([1.0 if len(term) == 1 else _OF_COMBINATIONS for term in terms])
        latencies_ms = np.array([one.latency_ms for one in observations])
        weights = weights_of(observations)
        found = fit_ridge(features, latencies_ms, weights, variances)
        bias_ms = found.base - float(found.centre @ found.coefficients)
        error = float(np.sqrt(np.mean(np.square(found.held_out / weights / latencies_ms))))
        return cls(
            bias_ms=bias_ms,
            terms=(
                *(Term(dict(term), float(ms)) for term, ms in zip(terms, found.coefficients, strict=True)),
                *(Term(dict(term), 0.0) for term in constant),
            ),
            error=error,
        )

    @cached_property
    def _groups(self) -> dict[tuple[str, ...], dict[tuple[Extra, ...], float]]:
        """Milliseconds by names and values of decisions, so that a prediction is one look-up per layer."""
        groups: dict[tuple[str, ...], dict[tuple[Extra, ...], float]] = {}
        for term in self.terms:
            group = groups.setdefault(tuple(term.when), {})
            values = tuple(term.when.values())
            group[values] = group.get(values, 0.0) + term.ms
        return groups

    def predict(self, subjects: Sequence[Subject]) -> Prediction:
        """See `Predictor`; NaN for a network of no space."""
        found = [(math.nan, math.nan) if one.choices is None else self._predict(one.choices) for one in subjects]
        latencies_ms, errors = np.array(found).reshape(-1, 2).T
        return Prediction(latencies_ms, errors)

    def _predict(self, choices: Mapping[str, Extra]) -> tuple[float, float]:
        parts, unseen = [self.bias_ms], 0
        for names, group in self._groups.items():
            if all(name in choices for name in names):
                ms = group.get(tuple(choices[name] for name in names))
                parts.append(ms or 0.0)
                unseen += ms is None and len(names) == 1
        return math.fsum(parts), self.error + _ERROR_OF_UNSEEN * unseen


def _terms_of(choices: Mapping[str, Extra]) -> Iterator[_Term]:
    """Each choice, and of each layer with several decisions their combination."""
    layers: dict[str, list[tuple[str, Extra]]] = {}
    for path, value in choices.items():
        yield ((path, value),)
        layer, dot, _ = path.rpartition(".")
        if dot:
            layers.setdefault(layer, []).append((path, value))
    for layer_choices in layers.values():
        if len(layer_choices) > 1:
            yield tuple(layer_choices)
