"""Gaussian processes over architectures: what is known of some, predicted of others as a joint normal distribution.

    Symbol  Name here    Meaning                                                                Shape
    x       features     one-hot choices; zeros for a decision that is not reached               [n, K]
    y       values       what is predicted, standardised                                         [n]
    d^2     squared      half of |x - x'|^2: the decisions in which two architectures differ     [n, m]
    k       kernel       variance * Matern_5/2(d / length)
    s       noise        variance of what is told of one architecture
    theta                logarithms of variance, length and noise                                [3]

`theta` is where the likelihood of the values, times a wide log-normal prior, is highest; the prior decides as long as
there are few values.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1 and equations 4.17, 5.9.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

FloatArray = NDArray[np.float64]

# Rows beyond which a prediction takes seconds; more of them are represented by a selection.
MOST_ROWS = 500
# Likewise of the fit of a kernel, which takes the time of fifty predictions.
MOST_ROWS_OF_KERNEL = 250

# Mean and standard deviation of the prior of theta.
_PRIOR_MEAN = np.log([1.0, 2.0, 1e-3])
_PRIOR_DEVIATION = np.array([1.5, 1.0, 2.0])
# Within these, rounding does not make a matrix of some hundred rows indefinite.
_BOUNDS = np.log([[1e-2, 1e2], [0.2, 50.0], [1e-6, 3.0]])


@dataclass(frozen=True)
class Kernel:
    """How alike the values of two architectures are; see the module."""

    variance: float
    length: float
    noise: float

    def between(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Covariance without noise, of features `[n, K]` and `[m, K]`: `[n, m]`."""
        return self.variance * _matern(_squared(first, second), self.length)[0]


def fit_kernel(features: FloatArray, values: FloatArray) -> Kernel:
    """The kernel under which values are most likely; a function of its arguments alone.

    Args:
        features: `[n, K]`.
        values: `[n]`, in any unit; the kernel is of them standardised.
    """
    rows = evenly(len(values), MOST_ROWS_OF_KERNEL)
    features, values = features[rows], values[rows]
    mean, deviation = moments(values)
    standardised = (values - mean) / deviation
    squared, unit = _squared(features, features), np.eye(len(values))

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        variance, length, noise = np.exp(theta)
        base, by_length = _matern(squared, length)
        factor = cholesky(variance * base + noise * unit, lower=True)
        inverse = cho_solve((factor, True), unit)
        alpha = inverse @ standardised
        residual = inverse - np.outer(alpha, alpha)
        by_theta = np.array(
            [
                variance * np.sum(residual * base),
                variance * np.sum(residual * by_length),
                noise * np.trace(residual),
            ]
        )
        away = (theta - _PRIOR_MEAN) / _PRIOR_DEVIATION
        likelihood = 0.5 * float(standardised @ alpha) + float(np.log(np.diag(factor)).sum())
        return likelihood + 0.5 * float(away @ away), 0.5 * by_theta + away / _PRIOR_DEVIATION

    found = minimize(loss, _PRIOR_MEAN, jac=True, method="L-BFGS-B", bounds=_BOUNDS, options={"maxiter": 50})
    variance, length, noise = map(float, np.exp(found.x))
    return Kernel(variance, length, noise)


class Posterior:
    """What values may be, given some of them.

    Args:
        kernel: of the values, standardised.
        features: of the known ones, `[n, K]`.
        values: likewise, `[n]`, in any unit.
    """

    def __init__(self, kernel: Kernel, features: FloatArray, values: FloatArray) -> None:
        self._kernel, self._features = kernel, features
        self._mean, self._deviation = moments(values)
        known = kernel.between(features, features)
        known[np.diag_indices_from(known)] += kernel.noise
        self._factor = cholesky(known, lower=True)
        self._weights = cho_solve((self._factor, True), (values - self._mean) / self._deviation)

    def each(self, asked: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of each architecture's value, `[m]` each, of features `[m, K]`."""
        means, half = self._conditioned(asked)
        variances = self._kernel.variance - np.square(half).sum(axis=0)
        return means, self._deviation * np.sqrt(np.maximum(variances, 0.0))

    def draws(self, asked: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
        """Values that may be, of all architectures together, `[count, m]`, of features `[m, K]`."""
        means, half = self._conditioned(asked)
        covariance = self._kernel.between(asked, asked) - half.T @ half
        # Rounding may leave a covariance that is not quite positive.
        covariance[np.diag_indices_from(covariance)] += 1e-6 * self._kernel.variance
        factor = cholesky(covariance, lower=True)
        drawn: FloatArray = means + self._deviation * (rng.standard_normal((count, len(means))) @ factor.T)
        return drawn

    def _conditioned(self, asked: FloatArray) -> tuple[FloatArray, FloatArray]:
        across = self._kernel.between(self._features, asked)
        means: FloatArray = self._mean + self._deviation * (self._weights @ across)
        return means, solve_triangular(self._factor, across, lower=True)


def moments(values: FloatArray) -> tuple[float, float]:
    """Mean and standard deviation, which is 1 where all values are the same."""
    return float(values.mean()), float(values.std()) or 1.0


def floored(values: FloatArray) -> FloatArray:
    """Values, the lowest raised to twice as far below the median as the best tenth is above it."""
    median, high = np.quantile(values, [0.5, 0.9])
    return np.maximum(values, median - 2.0 * (high - median)) if high > median else values


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Positions of so many of `count` rows, at even distances; all when there are no more."""
    return np.arange(count) if count <= most else np.arange(most) * count // most


def _squared(first: FloatArray, second: FloatArray) -> FloatArray:
    """In how many decisions architectures differ, `[n, m]`; half of one that only one of them reaches."""
    of_first, of_second = first.sum(axis=1), second.sum(axis=1)  # of ones and zeros, so their squares, too
    result: FloatArray = np.maximum(0.5 * (of_first[:, None] + of_second[None, :]) - first @ second.T, 0.0)
    return result


def _matern(squared: FloatArray, length: float) -> tuple[FloatArray, FloatArray]:
    """The Matern kernel, 5/2, of squared distances, and its derivative by the logarithm of the length."""
    scaled = np.sqrt(5.0 * squared) / length
    falling = np.exp(-scaled)
    return (1.0 + scaled + scaled**2 / 3.0) * falling, scaled**2 * (1.0 + scaled) / 3.0 * falling
