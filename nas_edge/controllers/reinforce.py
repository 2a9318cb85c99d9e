"""The mathematics of the categorical policy and its learning rule. Pure functions on NumPy arrays.

Sources: REINFORCE, Williams 1992 (doi:10.1007/BF00992696); its use for architecture search with shared weights,
TuNAS (arXiv:2008.06120, patent US11347995); Adam (arXiv:1412.6980) and its zero-debiased moving averages.

    Symbol    Name here        Meaning                                                     Shape
    l         logits           what is learned, for one decision                           [n]
    tau       temperature      flattens the policy                                         scalar
    pi        pi               softmax(l / tau)                                            [n]
    c         choice           the sampled choice                                          scalar
    theta     logits           all decisions' logits, one after the other                  [K]
    r         rewards          one per sample of a step                                    [S]
    b         baseline         moving average of past rewards                              scalar
    g         gradients        (r - b) * d log_prob / d theta, per sample                  [S, K]
    v         v                moving average of mean_S(g ** 2)                            [K]

All losses here are *ascended*: a positive advantage makes a sample more likely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]


# ---------------------------------------------------------------- the policy


def log_policy(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """`log pi = log softmax(l / tau)`, safe for large logits. `[n] -> [n]`."""
    scaled = logits / temperature
    shifted = scaled - scaled.max()
    result: FloatArray = shifted - np.log(np.exp(shifted).sum())
    return result


def policy(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """`pi = softmax(l / tau)`. `[n] -> [n]`."""
    result: FloatArray = np.exp(log_policy(logits, temperature))
    return result


def starting_logits(choices: int, start: int | None, probability: float = 0.9) -> FloatArray:
    """Logits `[choices]` of an even policy, or of one that takes the choice `start` with a probability."""
    logits = np.zeros(choices)
    if start is not None and choices > 1:
        logits[start] = math.log(probability * (choices - 1) / (1.0 - probability))
    return logits


def log_prob(
    logits: Sequence[FloatArray],
    choices: Sequence[int],
    active: Sequence[bool],
    replaced: Sequence[bool],
    temperature: float = 1.0,
) -> float:
    """Log-probability of a sample under the policy.

    Sum of `log pi[c]` over the *active* decisions that were not replaced. A decision that is not reached (the kernel
    of a skipped layer) did not shape the network, and one that warm-up replaced was not the policy's, so they count
    nothing.

    Args:
        logits: per decision, `[n]`.
        choices: per decision, `c`.
        active: per decision, whether it is reached.
        replaced: per decision, whether warm-up replaced it.
        temperature: `tau`.

    Source: TuNAS reference code, `controller.py` (as described in the design notes, section 3).
    """
    return sum(
        float(log_policy(row, temperature)[c])
        for row, c, on, was_replaced in zip(logits, choices, active, replaced, strict=True)
        if on and not was_replaced
    )


def log_prob_gradient(
    logits: Sequence[FloatArray],
    choices: Sequence[int],
    active: Sequence[bool],
    replaced: Sequence[bool],
    temperature: float = 1.0,
) -> FloatArray:
    """Gradient of `log_prob` by all logits: `(onehot(c) - pi) / tau` where active and not replaced, else 0. `-> [K]`.

    Arguments as `log_prob`.
    """
    parts = []
    for row, c, on, was_replaced in zip(logits, choices, active, replaced, strict=True):
        gradient = np.zeros_like(row)
        if on and not was_replaced:
            gradient -= policy(row, temperature)
            gradient[c] += 1.0
        parts.append(gradient / temperature)
    return np.concatenate(parts)


def entropy(logits: Sequence[FloatArray], active: Sequence[bool], temperature: float = 1.0) -> float:
    """Entropy of the policy summed over the active decisions, `sum -pi . log pi`, in nats."""
    total = 0.0
    for row, on in zip(logits, active, strict=True):
        if on:
            log_pi = log_policy(row, temperature)
            total -= float(np.exp(log_pi) @ log_pi)
    return total


def entropy_gradient(logits: Sequence[FloatArray], active: Sequence[bool], temperature: float = 1.0) -> FloatArray:
    """Gradient of `entropy` by all logits: `-pi * (log pi + H) / tau` where active, else 0. `-> [K]`."""
    parts = []
    for row, on in zip(logits, active, strict=True):
        gradient = np.zeros_like(row)
        if on:
            log_pi = log_policy(row, temperature)
            pi = np.exp(log_pi)
            gradient = -pi * (log_pi - pi @ log_pi) / temperature
        parts.append(gradient)
    return np.concatenate(parts)


# ---------------------------------------------------------------- the baseline


@dataclass(frozen=True)
class MovingAverage:
    """A zero-debiased moving average: `value = numerator / weight`, so that it is right from the first value on.

    `numerator <- m * numerator + (1 - m) * x` and `weight <- m * weight + (1 - m)`.

    Source: Adam, arXiv:1412.6980, section 3; TuNAS uses it for the baseline with `m = 0.95`.
    """

    numerator: float = 0.0
    weight: float = 0.0

    def update(self, x: float, momentum: float) -> MovingAverage:
        """The average after taking in `x`."""
        return MovingAverage(
            momentum * self.numerator + (1.0 - momentum) * x, momentum * self.weight + (1.0 - momentum)
        )

    @property
    def value(self) -> float | None:
        """The average, or None before the first value."""
        return self.numerator / self.weight if self.weight else None


# ---------------------------------------------------------------- the optimiser


def second_moment(v: FloatArray, gradients: FloatArray, beta2: float = 0.999) -> FloatArray:
    """`v <- beta2 * v + (1 - beta2) * mean_S(g ** 2)`: squared per sample, *then* averaged.

    Squaring first makes the step shrink as samples disagree, which squaring the mean would hide.

    Args:
        v: `[K]`.
        gradients: per sample, `[S, K]`.
        beta2: how slowly `v` forgets.
    """
    result: FloatArray = beta2 * v + (1.0 - beta2) * np.mean(np.square(gradients), axis=0)
    return result


def adam_direction(
    v: FloatArray, count: int, gradients: FloatArray, beta2: float = 0.999, epsilon: float = 1e-8
) -> FloatArray:
    """Adam's step for `beta1 = 0` and learning rate 1: `mean_S(g) / (sqrt(v / (1 - beta2 ** count)) + epsilon)`.

    Args:
        v: `[K]`, from `second_moment`, these gradients included.
        count: how many times `v` was updated, at least 1.
        gradients: per sample, `[S, K]`.
        beta2: as given to `second_moment`.
        epsilon: added after the root.

    Source: Adam, arXiv:1412.6980, algorithm 1, with the settings of the TuNAS code.
    """
    corrected = v / (1.0 - beta2**count)
    result: FloatArray = np.mean(gradients, axis=0) / (np.sqrt(corrected) + epsilon)
    return result


# ---------------------------------------------------------------- schedules


def learning_rate(step: int, total_steps: int, delay_steps: int, base: float, final_factor: float = 10.0) -> float:
    """The controller's learning rate: 0 during the delay, then rising exponentially from `base`.

    `base * final_factor ** progress`, with progress 0 at the end of the delay and 1 at `total_steps`. The rise is what
    ends a search decided: with a low entropy the most likely network has the latency of the sampled ones.

    Args:
        step: from 0.
        total_steps: length of the search.
        delay_steps: steps at the start in which the logits rest.
        base: rate at the end of the delay.
        final_factor: last rate over first.

    Source: patent US11347995; the values are those of the TuNAS code.
    """
    if step < delay_steps:
        return 0.0
    progress = min(1.0, (step - delay_steps) / max(1, total_steps - delay_steps))
    return float(base * final_factor**progress)


def default_base_rate(updates: int, samples: int = 1) -> float:
    """The base learning rate for a search of `updates` updates: `0.0048 * sqrt(20288 * samples / updates)`.

    TuNAS's 0.0048 was set for 20,288 updates of 32 samples each; a search on one device makes hundreds, of one or a few
    samples, and with that rate it would end undecided. Adam's steps have the size of the learning rate whatever the
    reward's scale, and averaging `S` samples shrinks what is noise in them by `sqrt(S)`, so noise alone moves the
    logits by about `rate * sqrt(updates / S)`: the rule keeps that distance. Form and distance are this project's; on
    the Pixel-1 table (100 to 1,000 updates of 1 or 4 samples, rates a factor of two apart) its values lie in the best
    range. It is not meant for the published scale, where it would come to 5.66 times the published rate: the preset
    `full` has that as a setting.

    Args:
        updates: number of updates after the delay.
        samples: samples per update.
    """
    return 0.0048 * math.sqrt(20_288 * samples / max(1, updates))
