"""Which networks are measured to fit a model: a design that follows from a seed and from what was measured so far.

    batch    5 to fit to    2 held out, drawn at random    1 that was held out before, again    2 operators on their own

The first batches are spread over the space, the smallest and the largest network among them. After that, most of those
to fit to are the ones of which the operators measured so far say least: with a normal prior around each operator's time
the variance of every network's latency is known before it is measured (Gaussian process regression, linear kernel), and
falls with each that is chosen. The rest is drawn at random, in case the prior is wrong. What is held out is drawn from
the space and never fitted to; it is measured in between, so that a device that drifts, drifts for all.

No network tells apart operators that always occur together, so some are measured on their own: those that reduce the
variances of all networks most. They do not count as networks, but their time counts.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, section 2.2; Gonzalez, "Clustering to
minimize the maximum intercluster distance", 1985, for the spread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from nas_edge.latency.models.operators import count_matrix
from nas_edge.latency.models.predictor import FloatArray
from nas_edge.latency.models.rates import fit_rates
from nas_edge.latency.models.subject import Observation, OperatorShape, Subject, subject_of_architecture
from nas_edge.latency_fitting.isolated import isolated_network
from nas_edge.seeds import generator
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.points import Points

_FITTED, _HELD_OUT, _ISOLATED = 5, 2, 2
_SPREAD_BATCHES = 3
_OF_RANDOM = 2
# Standard deviation of an operator's time around its rates, of a measured network around the sum, and of an operator on
# its own around its time in a network; relatively.
_OF_OPERATOR, _OF_NETWORK, _OF_ISOLATED = 0.3, 0.01, 0.1


class Role(str, Enum):
    """What a measurement is for."""

    FITTED = "fitted"
    HELD_OUT = "held out"
    REPEATED = "repeated"
    ISOLATED = "isolated"


@dataclass(frozen=True)
class Pick:
    """What to measure: a network, or an operator on its own.

    Attributes:
        role: what for.
        architecture: canonical; without choices for an operator on its own.
        operator: of role `ISOLATED`; None for a network.
    """

    role: Role
    architecture: Architecture
    operator: OperatorShape | None = None

    @classmethod
    def isolated(cls, operator: OperatorShape) -> Pick:
        """An operator on its own."""
        return cls(Role.ISOLATED, Architecture(()), operator)


class Sampler:
    """Chooses networks, batch after batch; the same ones for the same seed and the same latencies.

    Args:
        space: of networks.
        seed: of everything random.
        pool: networks that those to fit to are chosen from.
    """

    def __init__(self, space: SearchSpace, seed: int, pool: int = 384) -> None:
        self._space = space
        self._rng = generator(seed, "latency design")
        self._of_held_out = generator(seed, "latency held out")
        drawn = Points(space).sample(pool, generator(seed, "latency pool")).tolist()
        self._pool = list(dict.fromkeys(Architecture(tuple(row)) for row in drawn))
        self._subjects: dict[Architecture, Subject] = {}
        self._chosen: list[int] = []
        self._isolated: dict[OperatorShape, bool] = {}
        self._held_out: list[Architecture] = []
        self._repeated = 0
        self._batches = 0

    @property
    def population(self) -> list[Subject]:
        """Networks of the space, drawn at random."""
        return [self.subject(architecture) for architecture in self._pool]

    def subject(self, architecture: Architecture) -> Subject:
        """What a model is told of an architecture; kept, because it takes milliseconds."""
        if architecture not in self._subjects:
            self._subjects[architecture] = subject_of_architecture(self._space, architecture)
        return self._subjects[architecture]

    def batch(self, observations: Sequence[Observation], fit: bool = True) -> list[Pick]:
        """The next networks; fewer, and none in the end, where the space is small.

        Args:
            observations: of those to fit to, measured so far.
            fit: whether networks to fit to are still wanted.
        """
        fitted = self.fitted(_FITTED, observations) if fit else []
        if fit and not fitted:
            return []
        picks = [Pick(Role.FITTED, architecture) for architecture in fitted]
        if fit and self._batches > _SPREAD_BATCHES:
            picks += [Pick.isolated(operator) for operator in self.isolated(_ISOLATED, observations)]
        new = list(self._drawn(_HELD_OUT))
        if not fit and not new:
            return []
        picks += [Pick(Role.HELD_OUT, architecture) for architecture in new]
        if self._repeated < len(self._held_out):
            picks.append(Pick(Role.REPEATED, self._held_out[self._repeated]))
            self._repeated += 1
        self._held_out += new
        order = self._rng.permutation(len(picks))
        return [picks[place] for place in order]

    def fitted(self, count: int, observations: Sequence[Observation]) -> list[Architecture]:
        """The next networks to fit to."""
        spread = self._batches < _SPREAD_BATCHES or len(observations) < 2 * _FITTED
        self._batches += 1
        count = min(count, len(self._pool) - len(self._chosen))
        at_random = 0 if spread else min(_OF_RANDOM, count)
        places = self._spread(count) if spread else self._least_known(count - at_random, observations)
        self._chosen += places
        left = [place for place in range(len(self._pool)) if place not in set(self._chosen)]
        drawn = [int(place) for place in self._rng.permutation(left)[:at_random]]
        self._chosen += drawn
        return [self._pool[place] for place in (*places, *drawn)]

    def _drawn(self, count: int) -> Iterator[Architecture]:
        """Architectures to hold out, in none of the other sets."""
        taken = {*self._held_out, *self._pool}
        for _ in range(100 * count):
            architecture = self._space.canonical(self._space.sample(self._of_held_out))
            if architecture not in taken:
                taken.add(architecture)
                count -= 1
                yield architecture
            if not count:
                return

    def _spread(self, count: int) -> list[int]:
        """Those furthest from all that were chosen, by their decisions; first of all the extremes."""
        features = Points(self._space).features(np.array([one.choices for one in self._pool]))
        places: list[int] = []
        if not self._chosen and count > 1:
            macs = [subject.macs for subject in self.population]
            places = list(dict.fromkeys([int(np.argmin(macs)), int(np.argmax(macs))]))
        while len(places) < count:
            taken = [*self._chosen, *places]
            if not taken:
                places.append(int(self._rng.integers(len(self._pool))))
                continue
            distances = np.min([np.abs(features - features[place]).sum(axis=1) for place in taken], axis=0)
            distances[taken] = -1.0
            places.append(int(np.argmax(distances)))
        return places

    def isolated(self, count: int, observations: Sequence[Observation]) -> list[OperatorShape]:
        """The next operators to measure on their own; none until there are enough observations."""
        picked: list[OperatorShape] = []
        while len(picked) < count and len(observations) >= 2 * _FITTED:
            known = self._known(observations)
            order = np.argsort(-known.gains, kind="stable")
            candidates = (known.operators[place] for place in order.tolist())
            operator = next((one for one in candidates if self._can_stand_alone(one)), None)
            if operator is None:
                break
            self._isolated[operator] = True
            picked.append(operator)
        return picked

    def _can_stand_alone(self, operator: OperatorShape) -> bool:
        """Whether an operator can be measured on its own and has not been."""
        if operator not in self._isolated and isolated_network(operator) is None:
            self._isolated[operator] = False
        return operator not in self._isolated

    def _least_known(self, count: int, observations: Sequence[Observation]) -> list[int]:
        covariance = self._known(observations).covariance
        places: list[int] = []
        for _ in range(count):
            variances = np.diag(covariance).copy()
            variances[[*self._chosen, *places]] = -1.0
            place = int(np.argmax(variances))
            covariance = _conditioned(covariance, place)
            places.append(place)
        return places

    def _known(self, observations: Sequence[Observation]) -> _Known:
        """What is known from what was chosen so far, see the top of this file."""
        rates = fit_rates(observations)
        counts = [subject.operators or Counter() for subject in self.population]
        operators = list(dict.fromkeys(operator for counter in counts for operator in counter))
        times_ms = np.array([rates.latency_ms(operator) for operator in operators])
        features = count_matrix(counts, operators) * times_ms
        shares = features / np.maximum(features.sum(axis=1, keepdims=True), 1e-12)  # [networks, operators]
        alone = [place for place, operator in enumerate(operators) if self._isolated.get(operator)]
        seen = np.concatenate([shares[self._chosen], np.eye(len(operators))[alone]])  # [measured, operators]
        errors = np.repeat([_OF_NETWORK, _OF_ISOLATED], [len(self._chosen), len(alone)]) / _OF_OPERATOR
        explained = np.linalg.solve(seen @ seen.T + np.diag(errors**2), seen)
        left = np.square(_OF_OPERATOR) * (shares - (shares @ seen.T) @ explained)  # of networks with operators
        variances = np.square(_OF_OPERATOR) * (1.0 - np.sum(seen * explained, axis=0))
        return _Known(left @ shares.T, operators, np.square(left).sum(axis=0) / (variances + _OF_ISOLATED**2))


@dataclass(frozen=True)
class _Known:
    """The remaining uncertainty.

    Attributes:
        covariance: of the relative latencies of all networks, `[n, n]`.
        operators: that occur in them.
        gains: reduction of the total variance of all networks by measuring each operator on its own.
    """

    covariance: FloatArray
    operators: Sequence[OperatorShape]
    gains: FloatArray


def _conditioned(covariance: FloatArray, place: int) -> FloatArray:
    """What is left of a covariance once one of the networks is measured."""
    column = covariance[:, place]
    left: FloatArray = covariance - np.outer(column, column) / (column[place] + _OF_NETWORK**2)
    return left
