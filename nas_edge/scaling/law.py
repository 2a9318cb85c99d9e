"""`Law`: how the latency of a network depends on depth, width and input size on one device; a scaling law.

    ln t = c + a ln d + b ln w + g ln r [+ h ln max(1, parameters / memory)] [+ products of these]

The exponents give the cost of each factor: at twice the width, a network takes `2 ** b` times as long. Parameters that
do not fit the on-chip memory are transferred in every inference, which bends the law: the term in h. While the error is
above 10%, the product of two logarithms that reduces it most is added.

Source: Li et al., CVPR 2021 (arXiv:2102.05610), that latency is not proportional to multiply-adds; the form is our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
# Columns whose product a coefficient multiplies: none for the constant, one for an exponent, two for a product.
Term: TypeAlias = tuple[int, ...]

COLUMNS = ("depth", "width", "input_size", "memory")
# A law with a larger leave-one-out error gets another term.
MOST_ERROR = 0.10
# More networks than coefficients, by this many, are needed to estimate an error.
_SPARE = 2
# A column with a smaller range is constant.
_CONSTANT = 1e-6


@dataclass(frozen=True)
class Law:
    """A fitted law.

    Attributes:
        terms: see `Term`.
        coefficients: one per term.
        error: leave-one-out error, the root mean square of relative errors.
        networks: how many it is fitted to.
        spread: standard deviation of ln t around the law.
        inverse: of the normal equations, `[terms, terms]`.
    """

    terms: tuple[Term, ...]
    coefficients: FloatArray
    error: float
    networks: int
    spread: float
    inverse: FloatArray

    def latency_ms(self, points: FloatArray) -> FloatArray:
        """Predicted latencies.

        Args:
            points: logarithms as `COLUMNS` name them, `[..., 4]`.

        Returns:
            Milliseconds, `[...]`.
        """
        predicted: FloatArray = np.exp(_features(points, self.terms) @ self.coefficients)
        return predicted

    def interval_ms(self, point: FloatArray) -> tuple[float, float]:
        """The 95% interval of a prediction, from how the networks scatter around the law.

        Args:
            point: `[4]`.
        """
        from scipy.stats import t

        features = _features(point, self.terms)
        free = max(1, self.networks - len(self.terms))
        half = t.ppf(0.975, free) * self.spread * np.sqrt(1 + features @ self.inverse @ features)
        middle = float(features @ self.coefficients)
        return float(np.exp(middle - half)), float(np.exp(middle + half))

    def to_json(self) -> dict[str, Any]:
        """For people and programs: each term by the names of what it multiplies."""
        named = [
            {"of": [COLUMNS[column] for column in term], "coefficient": float(value)}
            for term, value in zip(self.terms, self.coefficients, strict=True)
        ]
        return {"terms": named, "error": self.error, "networks": self.networks}


def fit(points: FloatArray, latencies_ms: Sequence[float]) -> Law:
    """Fits a law to measured networks.

    Args:
        points: `[networks, 4]`, see `Law.latency_ms`.
        latencies_ms: of each.

    Raises:
        ValueError: when there are too few of them.
    """
    varying = [column for column in range(points.shape[1]) if np.ptp(points[:, column]) > _CONSTANT]
    terms: tuple[Term, ...] = ((), *((column,) for column in varying))
    if len(points) < len(terms) + _SPARE:
        raise ValueError(f"a law of {len(terms)} coefficients requires {len(terms) + _SPARE} networks")
    target: FloatArray = np.log(np.asarray(latencies_ms, float))
    law = _fitted(terms, points, target)
    products: list[Term] = list(combinations_with_replacement([column for column in varying if column < 3], 2))
    while law.error > MOST_ERROR and products and len(points) >= len(law.terms) + 1 + _SPARE:
        tried = [_fitted((*law.terms, product), points, target) for product in products]
        best = min(tried, key=lambda one: one.error)
        if best.error >= law.error:
            break
        law = best
        products.remove(law.terms[-1])
    return law


def _fitted(terms: tuple[Term, ...], points: FloatArray, target: FloatArray) -> Law:
    features = _features(points, terms)
    inverse: FloatArray = np.linalg.pinv(features.T @ features, hermitian=True)
    coefficients = inverse @ features.T @ target
    residuals = target - features @ coefficients
    leverage = np.einsum("ij,jk,ik->i", features, inverse, features)
    left_out = residuals / np.maximum(1 - leverage, 1e-3)
    free = max(1, len(target) - len(terms))
    error = float(np.sqrt(np.mean(np.expm1(np.abs(left_out)) ** 2)))
    return Law(terms, coefficients, error, len(target), float(np.sqrt(residuals @ residuals / free)), inverse)


def _features(points: FloatArray, terms: Sequence[Term]) -> FloatArray:
    columns = [np.prod(points[..., list(term)], axis=-1) for term in terms]
    return np.stack(columns, axis=-1)
