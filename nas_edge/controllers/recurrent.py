"""The mathematics of the recurrent policy: an LSTM that makes one decision after another. NumPy; gradients by hand.

    start --> LSTM --> logits --> choice --> its embedding --> LSTM --> logits --> ...

    Symbol    Name here    Meaning                                                            Shape
    x         x            input of a step: `start`, an embedding, or what attention chose    [B, H]
    h, c      h, c         state of the LSTM                                                  [B, H]
    W         lstm         `[x, h] @ W` is the four gates: input, forget, output, candidate   [2H, 4H]
    a_j       anchors      output of the step that completed the earlier block j              [B, H]
    q_j       scores       `v . tanh(a_j @ keys + h @ query)`                                 [B, J]
    u         u            `h @ output (+ bias)`; of attention, the q_j                       [B, n]
    z         logits       `u / T`, then `constant * tanh(u / T)`                             [B, n]
    pi        pi           softmax(z)                                                         [B, n]

`B` architectures are processed as a batch. **Parents are decided first**, so that it is known whether a decision is
reached. One that is not is drawn nevertheless, since a search method may run it, but leaves the LSTM's state unchanged.
So the probability of a network does not depend on what was drawn for layers that it does not have.

**Connections.** A decision of kind `index` chooses one of several earlier blocks, which its choices name, and one of
kind `skip` whether there is a connection from the block that its second choice names. A block is all decisions whose
paths agree up to the last dot. Both kinds are decided by attention to the earlier blocks' anchors. After an `index`,
the next input is the chosen anchor; all `skip` decisions of a block are made in one step, after which the next input is
the sum of the chosen anchors divided by one more than their number. A name that is not an earlier block stands for an
input of the cell, whose anchor is zero.

Source: Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018,
arXiv:1802.03268; steps and attention as in its authors' code, `micro_controller.py` and `general_controller.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas_edge.controllers.reinforce import FloatArray
from nas_edge.spaces.decisions import Decision, SearchSpace

IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
Views: TypeAlias = dict[str, FloatArray]
# Takes a decision's position and its probabilities `[B, n]`; returns a choice for each row, `[B]`.
Decide: TypeAlias = Callable[[int, FloatArray], IntArray]

# Kinds of decisions that are made by attention to earlier blocks.
INDEX, SKIP = "index", "skip"
# Weights are drawn from -0.1 to 0.1.
_INITIAL = 0.1


# ---------------------------------------------------------------- steps


@dataclass(frozen=True)
class Step:
    """One step of the LSTM.

    Attributes:
        decisions: positions of the decisions made from its output: one, all connections into a block, or none if the
            step only makes an anchor.
        kind: `index`, `skip`, or "" for a choice from logits of its own.
        group: name of the weights of a choice.
        attended: numbers of the anchors that choices or connections refer to.
        anchor: number of the anchor that its output becomes; None for none.
        is_input: whether that anchor is an input of the cell: attended to like others, but zero.
    """

    decisions: tuple[int, ...] = ()
    kind: str = ""
    group: str = ""
    attended: tuple[int, ...] = ()
    anchor: int | None = None
    is_input: bool = False


def steps_of(space: SearchSpace, shared: bool) -> list[Step]:
    """The steps that make all decisions of a space; a decision with a single choice needs none.

    Args:
        space: the space.
        shared: whether decisions of the same kind and choices share weights.
    """
    order = [i for i in _parents_first(space) if len(space.decisions[i].choices) > 1]
    last = {_block(space.decisions[i]): i for i in order}
    named = {name for i in order for name in _sources(space.decisions[i])}
    numbers: dict[str, int] = {}  # of the anchors, by block
    steps: list[Step] = []
    for positions in _at_once(space, order):
        decision = space.decisions[positions[0]]
        sources = [name for i in positions for name in _sources(space.decisions[i])]
        for name in sources:
            if name not in numbers:
                numbers[name] = len(numbers)
                steps.append(Step(anchor=numbers[name], is_input=True))
        attended = tuple(numbers[name] for name in sources)
        block, anchor = _block(decision), None
        if block in named and last[block] == positions[-1]:
            anchor = numbers[block] = len(numbers)
        if decision.kind == SKIP:
            steps.append(Step(positions, SKIP, "", attended, anchor))
            continue
        group = f"{decision.kind}:{decision.choices}" if shared else decision.path
        steps.append(Step(positions, INDEX if decision.kind == INDEX else "", group, attended))
        if anchor is not None:
            steps.append(Step(anchor=anchor))
    return steps


def _parents_first(space: SearchSpace) -> list[int]:
    """Positions in the space's order, except that decisions follow those that their guards name."""
    order: dict[int, None] = {}

    def add(position: int) -> None:
        if position not in order:
            for guard in space.decisions[position].guards:
                for path, _ in guard:
                    add(space.index[path])
            order[position] = None

    for position in range(len(space.decisions)):
        add(position)
    return list(order)


def _block(decision: Decision) -> str:
    return decision.path.rpartition(".")[0]


def _sources(decision: Decision) -> tuple[str, ...]:
    """The blocks that a decision may connect to."""
    if decision.kind == SKIP:
        return (str(decision.choices[1]),)
    return tuple(map(str, decision.choices)) if decision.kind == INDEX else ()


def _at_once(space: SearchSpace, order: Sequence[int]) -> list[tuple[int, ...]]:
    """Decisions made in one step: all connections into a block together, every other decision on its own."""

    def key(position: int) -> tuple[str, int]:
        decision = space.decisions[position]
        return (_block(decision), -1) if decision.kind == SKIP else ("", position)

    return [tuple(positions) for _, positions in groupby(order, key)]


# ---------------------------------------------------------------- the policy


@dataclass(frozen=True)
class Squashing:
    """How outputs become logits.

    Attributes:
        temperature: divides them.
        constant: bounds them, by `constant * tanh`; None does not.
    """

    temperature: float = 1.0
    constant: float | None = None

    def logits(self, u: FloatArray) -> FloatArray:
        """`u -> z`."""
        scaled: FloatArray = u / self.temperature
        return scaled if self.constant is None else np.asarray(self.constant * np.tanh(scaled))

    def slope(self, logits: FloatArray) -> FloatArray | float:
        """`dz / du`."""
        if self.constant is None:
            return 1.0 / self.temperature
        return np.asarray((self.constant - logits**2 / self.constant) / self.temperature)


@dataclass
class _Log:
    """The values of a step that its gradient needs."""

    joined: FloatArray  # [x, h] before it
    gates: FloatArray
    c_before: FloatArray
    c_squashed: FloatArray
    h: FloatArray
    c: FloatArray
    mask: FloatArray | None = None  # 1 in rows that take the step, [B, 1]; None: all do
    logits: list[FloatArray] = field(default_factory=list)
    attention: FloatArray | None = None  # tanh(...), [J, B, H]


@dataclass
class Trace:
    """One pass through all decisions.

    Attributes:
        choices: `[B, decisions]`.
        active: whether each was reached, likewise.
        pi: by decision, its probabilities given what was decided before it, `[B, n]`.
    """

    choices: IntArray
    active: BoolArray
    pi: list[FloatArray]
    logs: list[_Log] = field(default_factory=list)
    anchors: list[FloatArray] = field(default_factory=list)
    keys: list[FloatArray] = field(default_factory=list)

    def log_prob(self, counted: BoolArray) -> FloatArray:
        """The sum of the log-probabilities of the decisions that count, `[B]`."""
        rows = np.arange(len(self.choices))
        parts = [np.log(pi[rows, self.choices[:, i]]) * counted[:, i] for i, pi in enumerate(self.pi)]
        return np.asarray(np.sum(parts, axis=0))

    def entropy(self, counted: BoolArray) -> FloatArray:
        """The sum of the entropies of the decisions that count, each given those before it, `[B]`, in nats."""
        parts = [_entropy(pi) * counted[:, i] for i, pi in enumerate(self.pi)]
        return np.asarray(np.sum(parts, axis=0))


class RecurrentPolicy:
    """The LSTM of a space; its weights are passed to each method as one array.

    Args:
        space: the space.
        hidden: width of the LSTM.
        shared: see `steps_of`; if false, each decision has embeddings, output weights and a bias of its own.
        squashing: of the logits of choices.
        attention: of the logits of attention.

    Attributes:
        size: number of weights.
    """

    def __init__(
        self, space: SearchSpace, hidden: int, shared: bool, squashing: Squashing, attention: Squashing
    ) -> None:
        self._steps = steps_of(space, shared)
        self._space, self._hidden = space, hidden
        self._squashing = {"": squashing, INDEX: attention, SKIP: attention}
        self._guards = {
            i: [[(space.index[path], choice) for path, choice in guard] for guard in decision.guards]
            for i, decision in enumerate(space.decisions)
            if all(decision.guards)  # an empty guard always holds
        }
        shapes: dict[str, tuple[int, ...]] = {"lstm": (2 * hidden, 4 * hidden), "start": (hidden,)}
        for step in self._steps:
            if step.decisions and not step.kind:
                choices = len(space.decisions[step.decisions[0]].choices)
                shapes[f"{step.group} embedding"] = (choices, hidden)
                shapes[f"{step.group} output"] = (hidden, choices)
                if not shared:
                    shapes[f"{step.group} bias"] = (choices,)
        if any(step.attended for step in self._steps):
            shapes |= {"keys": (hidden, hidden), "query": (hidden, hidden), "v": (hidden,)}
        self._shapes = shapes
        self.size = sum(map(math.prod, shapes.values()))

    def views(self, weights: FloatArray) -> Views:
        """Each weight by name, as a view into the array."""
        views, start = {}, 0
        for name, shape in self._shapes.items():
            views[name] = weights[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
        return views

    def initial(self, rng: np.random.Generator) -> FloatArray:
        """Initial weights: uniform, biases 0."""
        weights = rng.uniform(-_INITIAL, _INITIAL, self.size)
        for name, view in self.views(weights).items():
            if name.endswith(" bias"):
                view[...] = 0.0
        return weights

    def factors(self, factor: float) -> FloatArray:
        """Factors of the learning rate: 1 for biases, the given one for all other weights."""
        factors = np.full(self.size, factor)
        for name, view in self.views(factors).items():
            if name.endswith(" bias"):
                view[...] = 1.0
        return factors

    def run(self, weights: FloatArray, count: int, decide: Decide, active: BoolArray | None = None) -> Trace:
        """Makes all decisions of a batch of architectures.

        Args:
            weights: all weights, `[size]`.
            count: number of architectures, `B`.
            decide: makes one decision.
            active: whether each decision is reached, `[B, decisions]`; None: determined from the choices.
        """
        w, decisions = self.views(weights), self._space.decisions
        trace = Trace(
            np.zeros((count, len(decisions)), np.int64),
            np.ones((count, len(decisions)), bool) if active is None else active,
            [np.ones((count, 1)) for _ in decisions],
        )
        x = np.broadcast_to(w["start"], (count, self._hidden))
        h = c = np.zeros((count, self._hidden))
        for step in self._steps:
            log = _cell(w["lstm"], x, h, c)
            trace.logs.append(log)
            if step.decisions:
                self._make(step, w, trace, decide, find_active=active is None)
            if step.anchor is not None:
                trace.anchors.append(np.zeros_like(log.h) if step.is_input else log.h)
                trace.keys.append(log.h @ w["keys"])
            made = self._next_input(step, w, trace), log.h, log.c
            if log.mask is None:
                x, h, c = made
            else:
                x, h, c = (np.where(log.mask > 0, new, old) for new, old in zip(made, (x, h, c), strict=True))
        return trace

    def _make(self, step: Step, w: Views, trace: Trace, decide: Decide, find_active: bool) -> None:
        """Makes a step's decisions from its output."""
        log = trace.logs[-1]
        for i, u in zip(step.decisions, self._outputs(step, w, trace), strict=True):
            logits = self._squashing[step.kind].logits(u)
            log.logits.append(logits)
            trace.pi[i] = _softmax(logits)
            trace.choices[:, i] = decide(i, trace.pi[i])
            if find_active and i in self._guards:
                trace.active[:, i] = self._reached(i, trace.choices)
        if any(i in self._guards for i in step.decisions):
            reached = trace.active[:, list(step.decisions)].any(axis=1, keepdims=True)
            log.mask = np.asarray(reached, np.float64)

    def _outputs(self, step: Step, w: Views, trace: Trace) -> list[FloatArray]:
        """The outputs that become a step's logits, by decision."""
        log = trace.logs[-1]
        if not step.kind:
            u = log.h @ w[f"{step.group} output"]
            bias = w.get(f"{step.group} bias")
            return [u if bias is None else u + bias]
        keys = np.stack([trace.keys[j] for j in step.attended])
        log.attention = np.asarray(np.tanh(keys + log.h @ w["query"]))
        scores = (log.attention @ w["v"]).T  # [B, J]
        return [scores] if step.kind == INDEX else [np.stack([-q, q], axis=1) for q in scores.T]

    def _reached(self, position: int, choices: IntArray) -> BoolArray:
        reached = np.zeros(len(choices), bool)
        for guard in self._guards[position]:
            reached |= np.all([choices[:, above] == choice for above, choice in guard], axis=0)
        return reached

    def _next_input(self, step: Step, w: Views, trace: Trace) -> FloatArray:
        """The input of the step after this one."""
        if not step.decisions:
            return np.broadcast_to(w["start"], (len(trace.choices), self._hidden))
        if not step.kind:
            return np.asarray(w[f"{step.group} embedding"][trace.choices[:, step.decisions[0]]])
        parts = [
            share[:, None] * trace.anchors[j] for share, j in zip(_shares(step, trace), step.attended, strict=True)
        ]
        return np.asarray(np.sum(parts, axis=0))

    def gradient(self, weights: FloatArray, trace: Trace, by_logits: Sequence[FloatArray]) -> FloatArray:
        """Backpropagates gradients with respect to the logits to all weights, `[size]`.

        Args:
            weights: all weights.
            trace: of `run` with these weights.
            by_logits: for each decision, `[B, n]`; the result is summed over the architectures.
        """
        w, gradient = self.views(weights), np.zeros(self.size)
        g, back = self.views(gradient), _Back(len(trace.choices), self._hidden, len(trace.anchors))
        for step, log in zip(reversed(self._steps), reversed(trace.logs), strict=True):
            (dx, dh, dc), past = back.split(log.mask)
            self._back_to_input(step, trace, g, back, dx)
            if step.decisions:
                dh = dh + self._back_to_output(step, w, g, log, back, by_logits)
            if step.anchor is not None:
                keys = back.keys[step.anchor]
                g["keys"] += log.h.T @ keys
                dh = dh + keys @ w["keys"].T + (0.0 if step.is_input else back.anchors[step.anchor])
            back.onward = _cell_back(w["lstm"], back.gates, log, dh, dc)
            if past is not None:
                back.onward = tuple(new + kept for new, kept in zip(back.onward, past, strict=True))
        g["start"] += back.onward[0].sum(axis=0)
        # One product over all steps is faster than one per step.
        joined = np.concatenate([log.joined for log in reversed(trace.logs)])
        g["lstm"][...] = joined.T @ np.concatenate(back.gates)
        return gradient

    def _back_to_input(self, step: Step, trace: Trace, g: Views, back: _Back, dx: FloatArray) -> None:
        """Backpropagates from the next step's input to its sources."""
        if not step.decisions:
            g["start"] += dx.sum(axis=0)
        elif not step.kind:
            np.add.at(g[f"{step.group} embedding"], trace.choices[:, step.decisions[0]], dx)
        else:
            for share, j in zip(_shares(step, trace), step.attended, strict=True):
                back.anchors[j] += share[:, None] * dx

    def _back_to_output(
        self, step: Step, w: Views, g: Views, log: _Log, back: _Back, by_logits: Sequence[FloatArray]
    ) -> FloatArray:
        """Backpropagates from a step's logits to its output `h`."""
        slope = self._squashing[step.kind].slope
        du = [by_logits[i] * slope(logits) for i, logits in zip(step.decisions, log.logits, strict=True)]
        if not step.kind:
            g[f"{step.group} output"] += log.h.T @ du[0]
            if f"{step.group} bias" in g:
                g[f"{step.group} bias"] += du[0].sum(axis=0)
            return np.asarray(du[0] @ w[f"{step.group} output"].T)
        assert log.attention is not None
        scores = du[0].T if step.kind == INDEX else np.stack([one[:, 1] - one[:, 0] for one in du])  # [J, B]
        g["v"] += np.einsum("jb,jbh->h", scores, log.attention)
        inner = scores[..., None] * w["v"] * (1.0 - log.attention**2)
        for by_key, j in zip(inner, step.attended, strict=True):
            back.keys[j] += by_key
        query = inner.sum(axis=0)
        g["query"] += log.h.T @ query
        return np.asarray(query @ w["query"].T)


class _Back:
    """Gradients during backpropagation.

    Attributes:
        onward: with respect to the `x`, `h` and `c` that a step passes on.
        anchors, keys: with respect to each anchor and its key.
        gates: with respect to the gates of each step, the last first.
    """

    def __init__(self, count: int, hidden: int, anchors: int) -> None:
        self.onward: tuple[FloatArray, ...] = (np.zeros((count, hidden)),) * 3
        self.anchors = [np.zeros((count, hidden)) for _ in range(anchors)]
        self.keys = [np.zeros((count, hidden)) for _ in range(anchors)]
        self.gates: list[FloatArray] = []

    def split(self, mask: FloatArray | None) -> tuple[tuple[FloatArray, ...], tuple[FloatArray, ...] | None]:
        """The gradients that go through a step and, for rows that skip it, those that go past it."""
        if mask is None:
            return self.onward, None
        return tuple(one * mask for one in self.onward), tuple(one * (1.0 - mask) for one in self.onward)


def _shares(step: Step, trace: Trace) -> list[FloatArray]:
    """The weight of each attended anchor in the next input, `[B]`."""
    if step.kind == INDEX:
        chosen = trace.choices[:, step.decisions[0]]
        return [(chosen == j).astype(np.float64) for j in range(len(step.attended))]
    taken = [(trace.choices[:, i] * trace.active[:, i]).astype(np.float64) for i in step.decisions]
    total = 1.0 + np.sum(taken, axis=0)
    return [one / total for one in taken]


def _quarters(gates: FloatArray) -> list[FloatArray]:
    width = gates.shape[1] // 4
    return [gates[:, i * width : (i + 1) * width] for i in range(4)]  # np.split takes ten times as long


def _cell(lstm: FloatArray, x: FloatArray, h: FloatArray, c: FloatArray) -> _Log:
    """One step of an LSTM without biases."""
    joined = np.concatenate([x, h], axis=1)
    gates = joined @ lstm
    sigmoids = gates[:, : 3 * h.shape[1]]
    sigmoids *= 0.5  # 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2
    np.tanh(gates, out=gates)
    sigmoids *= 0.5
    sigmoids += 0.5
    i, f, o, candidate = _quarters(gates)
    c_after = i * candidate + f * c
    squashed = np.tanh(c_after)
    return _Log(joined, gates, c, squashed, o * squashed, c_after)


def _cell_back(
    lstm: FloatArray, gates: list[FloatArray], log: _Log, dh: FloatArray, dc: FloatArray
) -> tuple[FloatArray, ...]:
    """Gradients with respect to `x`, `h` and `c` before the step; appends that of the gates to `gates`."""
    i, f, o, candidate = _quarters(log.gates)
    dc = dc + dh * o * (1.0 - log.c_squashed**2)
    by_gates = np.concatenate(
        [
            dc * candidate * i * (1.0 - i),
            dc * log.c_before * f * (1.0 - f),
            dh * log.c_squashed * o * (1.0 - o),
            dc * i * (1.0 - candidate**2),
        ],
        axis=1,
    )
    gates.append(by_gates)
    joined, width = by_gates @ lstm.T, dh.shape[1]
    return joined[:, :width], joined[:, width:], dc * f


def _softmax(logits: FloatArray) -> FloatArray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _log(pi: FloatArray) -> FloatArray:
    """Logarithms of probabilities, some of which may have become 0."""
    return np.asarray(np.log(np.maximum(pi, np.finfo(np.float64).tiny)))


def _entropy(pi: FloatArray) -> FloatArray:
    """`[B, n] -> [B]`."""
    return np.asarray(-(pi * _log(pi)).sum(axis=1))


# ---------------------------------------------------------------- gradients with respect to logits


def by_logits_of_log_prob(pi: FloatArray, choices: IntArray) -> FloatArray:
    """Gradient of `log pi[c]` with respect to the logits: `onehot(c) - pi`, `[B, n]`."""
    gradient = -pi
    gradient[np.arange(len(pi)), choices] += 1.0
    return gradient


def by_logits_of_entropy(pi: FloatArray) -> FloatArray:
    """Gradient of the entropy with respect to the logits: `-pi * (log pi + H)`, `[B, n]`."""
    return np.asarray(-pi * (_log(pi) + _entropy(pi)[:, None]))


def by_logits_of_divergence(pi: FloatArray, target: FloatArray) -> FloatArray:
    """Gradient of `KL(pi || target)` with respect to the logits: `pi * (log(pi / target) - KL)`, `[B, n]`."""
    ratio = _log(pi) - np.log(target)
    return np.asarray(pi * (ratio - (pi * ratio).sum(axis=1, keepdims=True)))
