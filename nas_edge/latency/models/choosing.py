"""Which kind of model is best at networks that it was not fitted to, and how wide its intervals have to be.

    fold 1 held out: fit on the others, predict it   fold 2 ...   ->  errors at every network, none of which was seen

The kind with the smallest mean error is fitted to all. Its intervals are as wide as 95% of those errors need them to be
(cross-conformal prediction), relative to what the model itself says of its error at each network.

Source: Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 2015.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from nas_edge.errors import ConfigError
from nas_edge.latency.models import PREDICTORS
from nas_edge.latency.models.accuracy import Accuracy, accuracy_of
from nas_edge.latency.models.predictor import FloatArray, Prediction, Predictor
from nas_edge.latency.models.subject import Observation

FOLDS = 5
_COVERAGE = 0.95
WITH_ISOLATED = " and isolated"
"""Suffix of the name of a kind that was also fitted to operators on their own."""


@dataclass(frozen=True)
class ChosenModel:
    """What came of a fit.

    Attributes:
        name: of the best: its kind, with the suffix `WITH_ISOLATED` if it was also fitted to operators on their own.
        model: of the best kind, fitted to all observations.
        half_width: see `ModelFile.half_width`.
        scores: errors at observations that the model was not fitted to, per unit of what it says of its error, `[n]`.
        errors: mean relative error of each on held-out observations, by name.
        others: the other models, fitted to all observations, by name.
    """

    name: str
    model: Predictor
    half_width: float
    scores: FloatArray
    errors: Mapping[str, float]
    others: Mapping[str, Predictor]


Fit: TypeAlias = Callable[[Sequence[Observation]], "Predictor | None"]


def choose_model(
    observations: Sequence[Observation],
    kinds: Sequence[str] = tuple(PREDICTORS),
    isolated: Sequence[Observation] = (),
) -> ChosenModel:
    """Fits every kind that can be fitted, and chooses one.

    A kind that can use operators on their own is fitted with and without them; held-out networks decide.

    Args:
        observations: what was measured of networks, in an order that has nothing to do with latencies.
        kinds: names in `PREDICTORS`.
        isolated: operators that were measured on their own.

    Raises:
        ConfigError: when there are too few of them for any.
    """
    fits: dict[str, Fit] = {kind: PREDICTORS[kind].fit for kind in kinds}
    if isolated:
        fits |= {f"{kind}{WITH_ISOLATED}": partial(_with_isolated, PREDICTORS[kind], isolated) for kind in kinds}
    with threadpool_limits(1):  # sums in another order would be another model, and the matrices are small
        fitted = {name: fit(observations) for name, fit in fits.items()}
        held_out = {name: _held_out(fits[name], observations) for name, model in fitted.items() if model is not None}
    errors = {name: _mean_error(found, observations) for name, found in held_out.items() if found is not None}
    if not errors:
        fewest = min(PREDICTORS[kind].fewest for kind in kinds)
        raise ConfigError(
            "too few networks could be measured to fit a model",
            expected=f"at least {math.ceil(fewest * FOLDS / (FOLDS - 1))}",
            received=f"{len(observations)}",
            fix="measure longer (--budget)",
        )
    best = min(errors, key=lambda name: errors[name])
    model, found = fitted[best], held_out[best]
    assert model is not None
    assert found is not None
    others = {name: other for name, other in fitted.items() if other is not None and name in errors and name != best}
    scores = error_scores(found, observations)
    return ChosenModel(best, model, half_width_of(scores), scores, errors, others)


def _with_isolated(
    kind: type[Predictor], isolated: Sequence[Observation], observations: Sequence[Observation]
) -> Predictor | None:
    return kind.fit_with_isolated(observations, isolated)


def _held_out(fit: Fit, observations: Sequence[Observation]) -> Prediction | None:
    """What a kind predicts of each observation when fitted to the other folds."""
    folds = np.arange(len(observations)) % FOLDS
    latencies_ms, errors = np.full(len(folds), np.nan), np.full(len(folds), np.nan)
    for fold in range(FOLDS):
        model = fit([one for one, of in zip(observations, folds, strict=True) if of != fold])
        if model is None:
            return None
        places = np.flatnonzero(folds == fold).tolist()
        found = model.predict([observations[place].subject for place in places])
        latencies_ms[places], errors[places] = found.latency_ms, found.relative_error
    return Prediction(latencies_ms, errors)


def _relative_errors(found: Prediction, observations: Sequence[Observation]) -> FloatArray:
    measured = np.array([one.latency_ms for one in observations])
    errors: FloatArray = np.abs(measured - found.latency_ms) / np.maximum(np.abs(found.latency_ms), 1e-12)
    return errors


def _mean_error(found: Prediction, observations: Sequence[Observation]) -> float:
    measured = np.array([one.latency_ms for one in observations])
    return float(np.mean(np.abs(measured - found.latency_ms) / measured))


def error_scores(found: Prediction, observations: Sequence[Observation]) -> FloatArray:
    """How far predictions are off, per unit of what the model says of its error, `[n]`.

    Args:
        found: of the observations.
        observations: that the model was not fitted to.
    """
    scores: FloatArray = _relative_errors(found, observations) / np.maximum(found.relative_error, 1e-6)
    return scores


def half_width_of(scores: Sequence[float] | FloatArray, coverage: float = _COVERAGE) -> float:
    """Half of the interval that holds so much, see `ModelFile.half_width`.

    Args:
        scores: see `error_scores`; at least one.
        coverage: the share that is to lie within.
    """
    place = min(len(scores) - 1, math.ceil(coverage * (len(scores) + 1)) - 1)
    return float(np.sort(scores)[place])


def accuracy_on(
    model: Predictor, observations: Sequence[Observation], half_width: float | None = None
) -> Accuracy | None:
    """The figures of a model on what it was not fitted to; None where it knows none of it.

    Args:
        model: fitted.
        observations: held out.
        half_width: see `ModelFile.half_width`.
    """
    found = model.predict([one.subject for one in observations])
    known = np.isfinite(found.latency_ms) & (found.latency_ms > 0)
    if not known.any():
        return None
    measured = np.array([one.latency_ms for one in observations])
    half_widths = None if half_width is None else half_width * found.relative_error[known]
    return accuracy_of(found.latency_ms[known], measured[known], half_widths)


def accuracy_of_macs(train: Sequence[Observation], held_out: Sequence[Observation]) -> Accuracy | None:
    """Those of a straight line over multiply-accumulates, to compare with; None without networks."""
    macs = np.array([one.subject.macs for one in train])
    if not held_out or len(train) < 3 or np.ptp(macs) == 0:
        return None
    slope, base = np.polyfit(macs, [one.latency_ms for one in train], 1)
    asked = np.array([one.subject.macs for one in held_out])
    return accuracy_of(base + slope * asked, [one.latency_ms for one in held_out])
