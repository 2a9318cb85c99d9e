"""The learned regressor: rates of operators, corrected by a Gaussian process over how much of each kind there is.

    log T(network) = log(sum over its operators of their rates) + f(x),   f ~ GP(0, variance * exp(-|x - x'|^2 / 2
    length^2))

    x    the logarithm of how many operators, MACs and values each group has, standardised

so it knows that times do not simply add up, and says how far a network is from all that was measured. scikit-learn
finds the kernel; what a file holds is enough to predict with NumPy.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from nas_edge.latency.models.predictor import FloatArray, Prediction, Predictor
from nas_edge.latency.models.rates import RatesOfGroups, fit_rates, group_works
from nas_edge.latency.models.subject import Observation, OperatorShape, Subject

_TINY = 1e-9


class FeatureModel(Predictor):
    """Rates, and the Gaussian process of what they miss.

    Attributes:
        rates: of the operators.
        groups: whose work the features are, in order.
        centre: of the features, `[K]`.
        scale: likewise.
        known: standardised features of what was measured, `[n, K]`.
        residuals: logarithm of what was measured over what the rates say, `[n]`.
        variance: of the process.
        length: likewise.
        noise: variance of each residual, `[n]`.
    """

    kind: Literal["features"] = "features"
    rates: RatesOfGroups
    groups: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    known: tuple[tuple[float, ...], ...]
    residuals: tuple[float, ...]
    variance: float = Field(gt=0)
    length: float = Field(gt=0)
    noise: tuple[float, ...]

    @model_validator(mode="after")
    def _lengths_fit(self) -> FeatureModel:
        columns = 3 * len(self.groups)
        if {len(row) for row in (*self.known, self.centre, self.scale)} != {columns}:
            raise ValueError(f"each row of features must have {columns} values, 3 for each group")
        if not len(self.known) == len(self.residuals) == len(self.noise):
            raise ValueError("known, residuals and noise must have the same length")
        if min(self.scale) <= 0 or min(self.noise) <= 0:
            raise ValueError("scale and noise must be above 0")
        return self

    @classmethod
    def fit(cls, observations: Sequence[Observation]) -> FeatureModel | None:
        """With scikit-learn; None where there are observations without operators."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        if len(observations) < cls.fewest or any(one.subject.operators is None for one in observations):
            return None
        rates = fit_rates(observations)
        groups = tuple(rates.groups)
        features = np.stack([_features(one.subject, groups) for one in observations])
        centre, scale = features.mean(axis=0), features.std(axis=0)
        scale[scale == 0] = 1.0
        known = (features - centre) / scale
        base_ms = np.array([_base_ms(rates, one.subject) for one in observations])
        residuals = np.log(np.array([one.latency_ms for one in observations]) / base_ms)
        of_measuring = np.square([one.relative_error for one in observations])
        kernel = ConstantKernel(1e-3, (1e-6, 1.0)) * RBF(5.0, (0.5, 100.0)) + WhiteKernel(1e-4, (1e-7, 0.1))
        process = GaussianProcessRegressor(kernel, alpha=of_measuring)
        with warnings.catch_warnings():
            # A parameter at its bound is an answer, too: there is nothing to correct, or nothing but noise.
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(known, residuals)
        signal, white = process.kernel_.k1, process.kernel_.k2
        return cls(
            rates=rates,
            groups=groups,
            centre=tuple(centre.tolist()),
            scale=tuple(scale.tolist()),
            known=tuple(tuple(row) for row in known.tolist()),
            residuals=tuple(residuals.tolist()),
            variance=float(signal.k1.constant_value),
            length=float(signal.k2.length_scale),
            noise=tuple((of_measuring + white.noise_level).tolist()),
        )

    @cached_property
    def _solved(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Known features, the Cholesky factor of their covariance, and the weights of each."""
        from scipy.linalg import cho_solve, cholesky

        known = np.array(self.known)
        factor = cholesky(self._kernel(known, known) + np.diag(self.noise), lower=True)
        return known, factor, cho_solve((factor, True), np.array(self.residuals))

    def _kernel(self, first: FloatArray, second: FloatArray) -> FloatArray:
        squared = np.square(first[:, None, :] - second[None, :, :]).sum(axis=2)
        kernel: FloatArray = self.variance * np.exp(-0.5 * squared / self.length**2)
        return kernel

    def predict(self, subjects: Sequence[Subject]) -> Prediction:
        """See `Predictor`; NaN where there is no network."""
        from scipy.linalg import solve_triangular

        latencies_ms, errors = np.full(len(subjects), np.nan), np.full(len(subjects), np.nan)
        told = [place for place, subject in enumerate(subjects) if subject.operators is not None]
        if not told:
            return Prediction(latencies_ms, errors)
        features = np.stack([_features(subjects[place], self.groups) for place in told])
        known, factor, weights = self._solved
        across = self._kernel((features - np.array(self.centre)) / np.array(self.scale), known)
        half = solve_triangular(factor, across.T, lower=True)
        variances = self.variance - np.square(half).sum(axis=0) + float(np.median(self.noise))
        base_ms = np.array([_base_ms(self.rates, subjects[place]) for place in told])
        latencies_ms[told] = base_ms * np.exp(across @ weights)
        errors[told] = np.sqrt(np.maximum(variances, _TINY))
        return Prediction(latencies_ms, errors)

    def operator_ms(self, operator: OperatorShape) -> float:
        """See `Predictor`: by the rates alone."""
        return self.rates.latency_ms(operator)

    def parts_ms(self, subject: Subject) -> Mapping[str, float]:
        """See `Predictor`; by the rates, and the difference between their sum and the whole network."""
        parts: Counter[str] = Counter()
        for operator, count in (subject.operators or {}).items():
            parts[operator.group] += count * self.operator_ms(operator)  # type: ignore[assignment]
        if not parts:
            return {}
        whole_ms = float(self.predict([subject]).latency_ms[0])
        return {**parts, "correction of the network": whole_ms - math.fsum(parts.values())}


def _features(subject: Subject, groups: Sequence[str]) -> FloatArray:
    works: FloatArray = np.log1p(group_works(subject, groups) * np.array([1.0, 1.0, 10.0])).ravel()
    return works


def _base_ms(rates: RatesOfGroups, subject: Subject) -> float:
    return max(_TINY, math.fsum(count * rates.latency_ms(one) for one, count in (subject.operators or {}).items()))
