"""Gaussian processes over architectures: what is known of some, predicted of others as a joint normal distribution.

    Symbol  Name here    Meaning                                                                Shape
    x       inputs       one-hot choices, zeros for a decision that is not reached; then how    [n, K + G]
                         many decisions made each choice that several offer alike
    y       values       what is predicted, standardised                                        [n]
    w       relevance    of each column, the same for all of a decision and for all counts      [K + G]
    d^2     squared      sum_i w_i (x_i - x'_i)^2                                                [n, m]
    k       kernel       variance * Matern_5/2(d) + sum_i slope_i x_i x'_i
    s       noise        variance of what is told of one architecture

The linear part explains what adds up over decisions, which most of a latency does; the other how they combine, and what
the counts bring: networks made of the same layers in another order are alike. How relevant each decision is, and
the counts are, is learned (automatic relevance determination).

All of these are where the likelihood of the values, times a wide log-normal prior, is highest; the prior decides as
long as there are few values.

Sources: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1 and equations 4.17, 5.1,
5.9; counts of operators as a kernel of architectures: the first step of Ru et al., ICLR 2021, arXiv:2006.07556.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from nas_edge.spaces.points import Points

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Rows beyond which a prediction takes seconds; more of them are represented by a selection.
MOST_ROWS = 500
# Likewise of the fit of a kernel, which takes the time of fifty predictions.
MOST_ROWS_OF_KERNEL = 250
# A kernel is fitted again whenever there are so many times as many rows, from so many on.
_GROWTH, _FIRST_ROWS = 1.2, 4

# Mean and standard deviation of the prior of the logarithms of variance, noise, slopes of choices and of counts, and of
# what scales all relevances; and of each relevance. Two decisions that differ are 1/2 apart.
_PRIOR_MEAN = np.log([1.0, 1e-3, 0.3, 0.3, 1.0])
_PRIOR_DEVIATION = np.array([1.5, 2.0, 1.5, 1.5, 1.0])
_RELEVANCE_MEAN, _RELEVANCE_DEVIATION = np.log(1 / 8), 0.5
# Within these, rounding does not make a matrix of some hundred rows indefinite.
_BOUNDS = np.log([[1e-2, 1e2], [1e-6, 3.0], [1e-6, 30.0], [1e-6, 30.0], [0.05, 20.0]])
_RELEVANCE_BOUNDS = np.log([1e-5, 1e2])
# Relative to the variance of a value; what rounding may take from a covariance.
_ROUNDING = 1e-6


def inputs_of(points: Points, choices: IntArray) -> FloatArray:
    """The inputs of the models, `[n, K + G]`, of choices `[n, decisions]`."""
    features = points.features(choices)
    return np.concatenate([features, points.counts(features)], axis=1)


@dataclass(frozen=True)
class Kernel:
    """How alike the values of two architectures are; see the module.

    Attributes:
        variance: of the part that is not linear.
        relevance: of each column.
        slopes: likewise, variance of what one more of it adds.
        noise: variance of one value.
    """

    variance: float
    relevance: FloatArray
    slopes: FloatArray
    noise: float

    def between(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Covariance without noise, of inputs `[n, K + G]` and `[m, K + G]`: `[n, m]`."""
        combined = _matern(_squared(first, second, self.relevance))[0]
        covariance: FloatArray = self.variance * combined + (first * self.slopes) @ second.T
        return covariance

    def of_each(self, inputs: FloatArray) -> FloatArray:
        """Variance of each value without noise, `[n]`."""
        variances: FloatArray = self.variance + np.square(inputs) @ self.slopes
        return variances


def fit_kernel(points: Points, inputs: FloatArray, values: FloatArray) -> Kernel:
    """The kernel under which values are most likely; a function of its arguments alone.

    Args:
        points: of the space.
        inputs: `[n, K + G]`.
        values: `[n]`, in any unit; the kernel is of them standardised.
    """
    rows = evenly(len(values), MOST_ROWS_OF_KERNEL)
    inputs, values = inputs[rows], values[rows]
    mean, deviation = moments(values)
    return kernel_of(fitted(points, inputs, (values - mean) / deviation), points)


def fitted(points: Points, inputs: FloatArray, standardised: FloatArray) -> FloatArray:
    """Where the loss is lowest within its bounds."""
    loss = loss_of(points, inputs, standardised)
    start, _, bounds = prior_of(points)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    theta: FloatArray = found.x
    return theta


def prior_of(points: Points) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, standard deviation and bounds of the logarithms of all that is fitted."""
    count = int(points.groups.max()) + 1
    return (
        np.concatenate([_PRIOR_MEAN, np.full(count, _RELEVANCE_MEAN)]),
        np.concatenate([_PRIOR_DEVIATION, np.full(count, _RELEVANCE_DEVIATION)]),
        np.concatenate([_BOUNDS, np.tile(_RELEVANCE_BOUNDS, (count, 1))]),
    )


def kernel_of(theta: FloatArray, points: Points) -> Kernel:
    """The kernel of what is fitted."""
    variance, noise, *slopes, scale = np.exp(theta[:5]).tolist()
    return Kernel(variance, scale * np.exp(theta[5:])[points.groups], np.array(slopes)[points.counted], noise)


def loss_of(
    points: Points, inputs: FloatArray, standardised: FloatArray
) -> Callable[[FloatArray], tuple[float, FloatArray]]:
    """Minus the logarithm of likelihood times prior, with its gradient, of theta."""
    unit, squares = np.eye(len(standardised)), np.square(inputs)
    prior_mean, prior_deviation, _ = prior_of(points)

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        kernel = kernel_of(theta, points)
        base, slope_of_base = _matern(_squared(inputs, inputs, kernel.relevance))
        linear = (inputs * kernel.slopes) @ inputs.T
        factor = cholesky(kernel.variance * base + linear + kernel.noise * unit, lower=True)
        inverse = cho_solve((factor, True), unit)
        alpha = inverse @ standardised
        residual = inverse - np.outer(alpha, alpha)
        # Of each column: the sum over all pairs of the derivative by d^2, times the squared difference of the column.
        by_squared = kernel.variance * residual * slope_of_base
        by_relevance = (
            2.0
            * kernel.relevance
            * (squares.T @ by_squared.sum(axis=1) - np.einsum("np,np->p", inputs, by_squared @ inputs))
        )
        by_slope = kernel.slopes * np.einsum("np,np->p", inputs, residual @ inputs)
        by_theta = np.concatenate(
            [
                [kernel.variance * np.sum(residual * base), kernel.noise * np.trace(residual)],
                np.bincount(points.counted, by_slope, 2),
                [by_relevance.sum()],
                np.bincount(points.groups, by_relevance),
            ]
        )
        away = (theta - prior_mean) / prior_deviation
        likelihood = 0.5 * float(standardised @ alpha) + float(np.log(np.diag(factor)).sum())
        return likelihood + 0.5 * float(away @ away), 0.5 * by_theta + away / prior_deviation

    return loss


class Posterior:
    """What values may be, given some of them.

    Args:
        kernel: of the values, standardised.
        inputs: of the known ones, `[n, K + G]`.
        values: likewise, `[n]`, in any unit.
    """

    def __init__(self, kernel: Kernel, inputs: FloatArray, values: FloatArray) -> None:
        self._kernel, self._inputs = kernel, inputs
        self._mean, self._deviation = moments(values)
        known = kernel.between(inputs, inputs)
        known[np.diag_indices_from(known)] += kernel.noise
        self._factor = cholesky(known, lower=True)
        self._weights = cho_solve((self._factor, True), (values - self._mean) / self._deviation)

    def each(self, asked: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of each architecture's value, `[m]` each, of inputs `[m, K + G]`."""
        means, half = self._conditioned(asked)
        variances = self._kernel.of_each(asked) - np.square(half).sum(axis=0)
        return means, self._deviation * np.sqrt(np.maximum(variances, 0.0))

    def draws(self, asked: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
        """Values that may be, of all architectures together, `[count, m]`, of inputs `[m, K + G]`."""
        means, half = self._conditioned(asked)
        covariance = self._kernel.between(asked, asked) - half.T @ half
        # Rounding may leave a covariance that is not quite positive.
        covariance[np.diag_indices_from(covariance)] += _ROUNDING * self._kernel.of_each(asked)
        factor = cholesky(covariance, lower=True)
        drawn: FloatArray = means + self._deviation * (rng.standard_normal((count, len(means))) @ factor.T)
        return drawn

    def _conditioned(self, asked: FloatArray) -> tuple[FloatArray, FloatArray]:
        across = self._kernel.between(self._inputs, asked)
        means: FloatArray = self._mean + self._deviation * (self._weights @ across)
        return means, solve_triangular(self._factor, across, lower=True)


def moments(values: FloatArray) -> tuple[float, float]:
    """Mean and standard deviation, which is 1 where all values are the same."""
    return float(values.mean()), float(values.std()) or 1.0


def floored(values: FloatArray, least: float = 0.0) -> FloatArray:
    """Values, the lowest raised to twice as far below the median as the best tenth is above it.

    Args:
        values: `[n]`.
        least: how far below the median a value is left alone in any case.
    """
    median, high = np.quantile(values, [0.5, 0.9])
    depth = max(2.0 * (high - median), least)
    return np.maximum(values, median - depth) if depth > 0.0 else values


def rows_of_kernel(count: int) -> int:
    """To how many of the first rows a kernel is fitted when there are so many: at least five sixths of them."""
    rows = _FIRST_ROWS
    while (more := math.ceil(rows * _GROWTH)) <= count:
        rows = more
    return rows


def selected(rewards: FloatArray, most: int) -> IntArray:
    """Positions of so many rows that a model is fitted to, half of them those with the highest rewards, the others at
    even distances; all when there are no more.
    """
    if len(rewards) <= most:
        return np.arange(len(rewards))
    order = np.argsort(-rewards, kind="stable")
    others = np.sort(order[most // 2 :])
    return np.concatenate([order[: most // 2], others[evenly(len(others), most - most // 2)]])


def evenly(count: int, most: int) -> IntArray:
    """Positions of so many of `count` rows, at even distances; all when there are no more."""
    return np.arange(count) if count <= most else np.arange(most) * count // most


def _squared(first: FloatArray, second: FloatArray, relevance: FloatArray) -> FloatArray:
    """Squared distances, `[n, m]`."""
    of_first, of_second = np.square(first) @ relevance, np.square(second) @ relevance
    result: FloatArray = np.maximum(of_first[:, None] + of_second[None, :] - 2.0 * (first * relevance) @ second.T, 0.0)
    return result


def _matern(squared: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The Matern kernel, 5/2, of squared distances, and its derivative by these."""
    scaled = np.sqrt(5.0 * squared)
    falling = np.exp(-scaled)
    return (1.0 + scaled + scaled**2 / 3.0) * falling, -5.0 / 6.0 * (1.0 + scaled) * falling
