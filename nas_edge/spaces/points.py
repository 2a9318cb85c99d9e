"""Many architectures of a space at once, as arrays of choices: drawn, mutated, in canonical form, and as features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas_edge.spaces.decisions import SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class Points:
    """Architectures of a space as choices `[n, decisions]`, always canonical where they are returned.

    Args:
        space: whose architectures they are.

    Attributes:
        groups: of each column of `features`, then of `counts`: its decision, or one more for a count, `[K + G]`.
        counted: likewise, 0 for a choice and 1 for a count.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._sizes = np.array([len(decision.choices) for decision in space.decisions])
        self._guards = [
            (i, [[(space.index[path], choice) for path, choice in guard] for guard in decision.guards])
            for i, decision in enumerate(space.decisions)
            if all(decision.guards)  # an empty guard always holds
        ]
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        alike: dict[object, list[int]] = {}
        for decision, start in zip(space.decisions, self._starts.tolist(), strict=False):
            for i in range(len(decision.choices)):
                alike.setdefault((decision.kind, decision.choices, i), []).append(start + i)
        self._alike = [columns for columns in alike.values() if len(columns) > 1]

        decisions = np.repeat(np.arange(len(self._sizes)), self._sizes)
        self.groups: IntArray = np.append(decisions, np.full(len(self._alike), len(self._sizes)))
        self.counted: IntArray = np.asarray(self.groups >= len(self._sizes), np.int64)

    def active(self, choices: IntArray) -> BoolArray:
        """Whether each decision is reached, as `SearchSpace.active`."""
        active = np.ones(choices.shape, bool)
        for position, guards in self._guards:
            reached = np.zeros(len(choices), bool)
            for guard in guards:
                held = np.ones(len(choices), bool)
                for above, choice in guard:
                    held &= choices[:, above] == choice
                reached |= held
            active[:, position] = reached
        return active

    def canonical(self, choices: IntArray) -> IntArray:
        """The same networks with every inactive decision set to 0."""
        return np.where(self.active(choices), choices, 0)

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """Architectures drawn uniformly per decision."""
        return self.canonical(rng.integers(self._sizes, size=(n, len(self._sizes))))

    def every(self) -> IntArray:
        """All architectures, some of them several times; for small spaces."""
        grid = np.indices(tuple(self._sizes)).reshape(len(self._sizes), -1).T
        return self.canonical(grid)

    def mutated(self, parents: IntArray, n: int, rng: np.random.Generator) -> IntArray:
        """Mutations of each parent in turn.

        Of the decisions that are reached one is changed, or two with half the probability of that, and so on.
        """
        choices = parents[np.arange(n) % len(parents)]
        changes = rng.geometric(0.5, size=n)
        for made in range(int(changes.max(initial=0))):
            open_ = self.active(choices) & (self._sizes > 1)
            rows = np.flatnonzero((changes > made) & open_.any(axis=1))
            # The largest of a random number for each open decision: one of them, all equally likely.
            positions = np.where(open_[rows], rng.random((len(rows), len(self._sizes))), -1.0).argmax(axis=1)
            steps = rng.integers(1, np.maximum(self._sizes[positions], 2))
            choices[rows, positions] = (choices[rows, positions] + steps) % self._sizes[positions]
        return self.canonical(choices)

    def features(self, choices: IntArray) -> FloatArray:
        """One-hot choices `[n, K]`; zeros for a decision that is not reached."""
        features = np.zeros((len(choices), int(self._starts[-1])))
        rows, positions = np.nonzero(self.active(choices))
        features[rows, self._starts[positions] + choices[rows, positions]] = 1.0
        return features

    def counts(self, features: FloatArray) -> FloatArray:
        """How many decisions made each choice that several of them offer alike, `[n, G]`, of features `[n, K]`."""
        counts = np.zeros((len(features), len(self._alike)))
        for i, columns in enumerate(self._alike):
            counts[:, i] = features[:, columns].sum(axis=1)
        return counts
