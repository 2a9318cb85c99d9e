"""`Predictor`: a fitted model of latencies, which is also what a model's file holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from nas_edge.latency.models.subject import Observation, OperatorShape, Subject

FloatArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """What a model says.

    Attributes:
        latency_ms: in milliseconds, `[n]`; NaN where the model cannot know.
        relative_error: standard error as a share of the latency, `[n]`, up to a factor that calibration finds.
    """

    latency_ms: FloatArray
    relative_error: FloatArray


class Predictor(BaseModel, ABC):
    """A fitted model. Its fields are what a file holds, so a subclass is data: numbers and text that people can read.

    Attributes:
        kind: its name in `PREDICTORS`; a subclass has it as a field with a `Literal`, too.
        needs_choices: whether it goes by the decisions of a space, and so serves that space only.
        fewest: observations that a fit takes at least.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    needs_choices: ClassVar[bool] = False
    fewest: ClassVar[int] = 8

    kind: str

    @classmethod
    def fit(cls, observations: Sequence[Observation]) -> Predictor | None:
        """The model of some measurements; None where this kind cannot be fitted to them."""
        return None

    @classmethod
    def fit_with_isolated(
        cls, observations: Sequence[Observation], isolated: Sequence[Observation]
    ) -> Predictor | None:
        """As `fit`, also to operators that were measured on their own; None if this kind cannot use them."""
        return None

    @abstractmethod
    def predict(self, subjects: Sequence[Subject]) -> Prediction:
        """What the latencies of some candidates are."""

    def operator_ms(self, operator: OperatorShape) -> float | None:
        """Of one operator, in milliseconds; None where the model does not tell."""
        return None

    def parts_ms(self, subject: Subject) -> Mapping[str, float]:
        """Of what a latency is made, by group of operators, in milliseconds; empty where the model does not tell."""
        return {}


def weights_of(observations: Sequence[Observation], model_error: float = 0.01) -> FloatArray:
    """The weight of each observation in a fit of milliseconds `[n]`: relative errors count, and noisy ones less.

    Below the median, errors count as those there: a network that a runtime folds to next to nothing would otherwise
    decide the fit.
    """
    latencies_ms = np.array([one.latency_ms for one in observations])
    errors = np.array([one.relative_error for one in observations])
    scale_ms = np.maximum(latencies_ms, np.median(latencies_ms))
    weights: FloatArray = 1.0 / (scale_ms * np.hypot(errors, model_error))
    return weights
