"""Ridge regression in which each coefficient has a prior of its own, in the form in which few rows meet many columns.

    y = base + X beta + noise,   beta_j ~ N(0, v_j),   noise_i ~ N(0, s / w_i^2)

`s` is the one of a few with the least error at rows that are left out, which of a linear fit follows from the one with
them.

Source: Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", 2nd edition, sections 3.4 and 7.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas_edge.latency.models.predictor import FloatArray

# From hardly any trust in the rows to hardly any in the prior, as shares of what the columns explain.
_NOISES = np.geomspace(1e-5, 10.0, 19)


@dataclass(frozen=True)
class Ridge:
    """A fit.

    Attributes:
        base: of a row in the middle of the first group.
        centre: weighted mean of the columns there, `[K]`.
        coefficients: `[K]`.
        noise: the chosen `s`.
        held_out: `w_i` times the error at each row without it, `[n]`.
        biases: of a row of zeros, in each group.
    """

    base: float
    centre: FloatArray
    coefficients: FloatArray
    noise: float
    held_out: FloatArray
    biases: FloatArray

    def predict(self, features: FloatArray) -> FloatArray:
        """Values of rows `[m, K]`: `[m]`."""
        values: FloatArray = self.base + (features - self.centre) @ self.coefficients
        return values


def fit_ridge(
    features: FloatArray,
    values: FloatArray,
    weights: FloatArray,
    variances: FloatArray,
    noise: float | None = None,
    group_sizes: Sequence[int] = (),
) -> Ridge:
    """The fit.

    Args:
        features: `[n, K]`.
        values: `[n]`.
        weights: `w`, `[n]`.
        variances: `v`, `[K]`, up to a common factor.
        noise: `s`, as a share of what the columns explain; None chooses it.
        group_sizes: how many rows belong together, one group after the other: each group has a base of its own, and the
            first alone chooses the noise. Empty for one group.
    """
    squares, sizes = weights**2, list(group_sizes) or [len(weights)]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    of_groups = np.eye(len(sizes))[groups] * squares[:, None]  # [n, groups]
    totals = of_groups.sum(axis=0)
    centres, bases = of_groups.T @ features / totals[:, None], of_groups.T @ values / totals
    scaled = (features - centres[groups]) * weights[:, None] * np.sqrt(variances)
    target = weights * (values - bases[groups])
    eigenvalues, vectors = np.linalg.eigh(scaled @ scaled.T)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    size = float(eigenvalues.mean()) or 1.0
    rotated, of_base = vectors.T @ target, squares / totals[groups]

    def left_out(share: float) -> FloatArray:
        kept = eigenvalues / (eigenvalues + share * size)
        leverages = of_base + np.square(vectors) @ kept
        errors: FloatArray = (target - vectors @ (kept * rotated)) / np.maximum(1.0 - leverages, 1e-3)
        return errors

    candidates = _NOISES if noise is None else [noise]
    chosen = min(candidates, key=lambda share: float(np.square(left_out(share)[: sizes[0]]).sum()))
    dual = vectors @ (rotated / (eigenvalues + chosen * size))
    coefficients = np.sqrt(variances) * (scaled.T @ dual)
    biases = bases - centres @ coefficients
    return Ridge(float(bases[0]), centres[0], coefficients, float(chosen), left_out(chosen), biases)
