"""A model of one device brought to another, or to another session, by about ten measurements.

    T'(network) = base + a * T(network) + sum over parts of b_part * (of which T is made, or what was chosen)

`T` is the model of the first device. All coefficients have normal priors: `a` a wide one, the others narrow ones, so
that few measurements say how fast the device is as a whole, and more of them where it differs: at which kind of
operators, at which choices. Without networks, what was chosen stands in for parts: how often a value is chosen,
wherever it is, more than where.

Source: the idea of a few measured samples is that of HELP (arXiv:2106.08630) and of One Proxy Device
(arXiv:2111.01203); the regression is Bayesian and linear, as in Bishop, "Pattern Recognition and Machine Learning",
2006, section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field

from nas_edge.latency.models.blocks import BlockTable
from nas_edge.latency.models.decisions import DecisionModel
from nas_edge.latency.models.features import FeatureModel
from nas_edge.latency.models.operators import OperatorTable
from nas_edge.latency.models.predictor import FloatArray, Prediction, Predictor
from nas_edge.latency.models.ridge import fit_ridge
from nas_edge.latency.models.subject import Observation, Subject

Source: TypeAlias = Annotated[DecisionModel | OperatorTable | FeatureModel | BlockTable, Discriminator("kind")]

# Prior variance of each kind of column, standardised; the target's is 1.
_OF_LATENCY, _OF_PART, _OF_VALUE, _OF_CHOICE = 1.0, 0.03, 0.1, 0.02
_LATENCY = "latency"
# Of so few measurements, the error of those left out is itself too uncertain to choose the noise by.
_MANY, _NOISE_OF_FEW = 20, 0.3


class Column(BaseModel):
    """What a latency depends on.

    Attributes:
        of: `latency`, of the source, in ms; `part GROUP`, in ms; `value VALUE`, how often it is chosen; `choice
            DECISION=VALUE`, 0 or 1.
        centre: where it counts as 0.
        ms: what one more of it adds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    of: str
    centre: float
    ms: float


class AdaptedModel(Predictor):
    """A source and what is different.

    Attributes:
        source: of the first device.
        base_ms: of a network in the middle of what was measured.
        columns: see above.
        error: relative standard error.
    """

    kind: Literal["adapted"] = "adapted"
    source: Source
    base_ms: float
    columns: tuple[Column, ...]
    error: float = Field(ge=0)

    def predict(self, subjects: Sequence[Subject]) -> Prediction:
        """See `Predictor`; NaN where the source does not know."""
        names = [column.of for column in self.columns]
        rows = _rows(self.source, subjects)
        features = _matrix(rows, names)
        centres, coefficients = (np.array([getattr(c, what) for c in self.columns]) for what in ("centre", "ms"))
        latencies_ms: FloatArray = self.base_ms + (features - centres) @ coefficients
        known = np.isfinite(features[:, names.index(_LATENCY)])
        # A few measurements know nothing of networks far from them: no latency is negative.
        latencies_ms = np.where(known, np.maximum(latencies_ms, 0.05 * self.base_ms), np.nan)
        return Prediction(latencies_ms, np.where(known, self.error, np.nan))


def adapt(source: Source, observations: Sequence[Observation], population: Sequence[Subject]) -> AdaptedModel:
    """A model of another device.

    Args:
        source: of the first device.
        observations: of the other, at least three that the source knows.
        population: of networks that are to be predicted, which say how much each column varies.

    Raises:
        ValueError: when the source knows too few of them.
    """
    rows = _rows(source, [one.subject for one in observations])
    kept = [place for place, row in enumerate(rows) if np.isfinite(row[_LATENCY])]
    if len(kept) < 3:
        raise ValueError(f"the source knows {len(kept)} of the measured networks, and 3 are needed")
    of_population = [row for row in _rows(source, population) if np.isfinite(row[_LATENCY])] or rows
    names = list(dict.fromkeys(name for row in of_population for name in row))
    everywhere = _matrix(of_population, names)
    scales = everywhere.std(axis=0)
    names = [name for name, scale in zip(names, scales, strict=True) if scale > 0 or name == _LATENCY]
    everywhere = _matrix(of_population, names)
    centres, scales = everywhere.mean(axis=0), everywhere.std(axis=0)
    scales[scales == 0] = 1.0
    features = (_matrix([rows[place] for place in kept], names) - centres) / scales
    latencies_ms = np.array([observations[place].latency_ms for place in kept])
    variances = np.array(
        [_variance(name) * (scale**2 if _is_count(name) else 1.0) for name, scale in zip(names, scales, strict=True)]
    )
    weights = 1.0 / latencies_ms.mean() * np.ones(len(kept))
    found = fit_ridge(features, latencies_ms, weights, variances, None if len(kept) >= _MANY else _NOISE_OF_FEW)
    coefficients = found.coefficients / scales
    # What was measured has its middle elsewhere than the population.
    middle = centres + found.centre * scales
    error = float(np.sqrt(np.mean(np.square(found.held_out / weights / latencies_ms))))
    return AdaptedModel(
        source=source,
        base_ms=found.base,
        columns=tuple(
            Column(of=name, centre=float(centre), ms=float(ms))
            for name, centre, ms in zip(names, middle, coefficients, strict=True)
        ),
        error=error,
    )


def _rows(source: Predictor, subjects: Sequence[Subject]) -> list[dict[str, float]]:
    latencies_ms = source.predict(subjects).latency_ms
    return [
        {_LATENCY: float(latency_ms), **_parts(source, subject)}
        for latency_ms, subject in zip(latencies_ms, subjects, strict=True)
    ]


def _parts(source: Predictor, subject: Subject) -> dict[str, float]:
    parts: Mapping[str, float] = source.parts_ms(subject)
    if parts or subject.choices is None:
        return {f"part {group}": ms for group, ms in parts.items()}
    counts: dict[str, float] = {}
    for path, value in subject.choices.items():
        for name in (f"value {value}", f"choice {path}={value}"):
            counts[name] = counts.get(name, 0.0) + 1.0
    return counts


def _matrix(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> FloatArray:
    return np.array([[row.get(name, 0.0) for name in names] for row in rows]).reshape(len(rows), len(names))


def _is_count(name: str) -> bool:
    return name.startswith(("value ", "choice "))


def _variance(name: str) -> float:
    of = {"part": _OF_PART, "value": _OF_VALUE, "choice": _OF_CHOICE}
    return of.get(name.split(" ", 1)[0], _OF_LATENCY)
