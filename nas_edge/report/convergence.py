"""How the controller's policy converged: its probabilities over the steps, and every decision at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from nas_edge.report import plots
from nas_edge.report.content import Cell, ColumnSpec, Section, Table, make_table
from nas_edge.report.reading import RunFacts
from nas_edge.spaces.decisions import Decision, SearchSpace

# More moments of a policy could not be told apart on a screen.
POLICY_MOMENTS = 60

# Steps done, and per decision the probability of each choice.
Moment: TypeAlias = tuple[int, tuple[tuple[float, ...], ...]]
# A decision with more than one choice, and its place in the space.
OpenDecision: TypeAlias = tuple[int, Decision]


def convergence_section(facts: RunFacts, space: SearchSpace | None) -> Section | None:
    """How the probabilities of each decision evolved."""
    if space is None:
        return None
    open_decisions = [(i, d) for i, d in enumerate(space.decisions) if len(d.choices) > 1]
    choices = [len(decision.choices) for decision in space.decisions]
    moments = [moment for moment in facts.policy or () if [len(row) for row in moment[1]] == choices]
    if not moments or not open_decisions:
        why = _why_none(facts)
        return None if why is None else Section("convergence", "How the policy converged", (why,))
    decisions = _decisions_table(facts, space, moments[-1], open_decisions)
    sure = sum(probability >= 0.9 for probability in _likeliest(moments[-1], open_decisions))
    first, last = (sum(_entropy(moment[1][i]) for i, _ in open_decisions) for moment in (moments[0], moments[-1]))
    says = (
        f"For {sure} of {len(open_decisions)} decisions, one choice has a probability of at least 90%. The policy's "
        f"entropy went from {first:.1f} to {last:.1f} nats (0: deterministic). Decisions that hardly change either "
        "have little effect on quality and latency, or the search was too short for them.",
    )
    paths = [decision.path for _, decision in open_decisions]
    shown = (plots.confidence(len(paths)), plots.one_decision(paths))
    tables = (decisions, _policy_table(moments, open_decisions))
    return Section("convergence", "How the policy converged", says, shown, tables)


def _why_none(facts: RunFacts) -> str | None:
    """Why there are no probabilities to show; None for a search that has just begun."""
    if facts.policy is None:
        return "The record of the controller's probabilities is damaged."
    if not facts.steps_done:
        return None
    # A search notes them from its first step on, so that an empty record says that there are none.
    if facts.policy_kept and not facts.policy:
        name = getattr(facts.config.search.controller, "name", "of this run")
        return (
            f"The controller {name} has no policy: it keeps no probabilities of choices, so there is no convergence "
            "to show."
        )
    return "This run has no record of the controller's probabilities."


def _policy_table(moments: Sequence[Moment], open_decisions: Sequence[OpenDecision]) -> Table:
    """Probabilities over the steps, as the plots need them."""
    stride = max(1, math.ceil(len(moments) / POLICY_MOMENTS))
    seen = [moments[i] for i in range(len(moments) - 1, -1, -stride)][::-1]
    rows: list[tuple[Cell, ...]] = []
    for step, probabilities in seen:
        for i, decision in open_decisions:
            row = probabilities[i]
            ranks = sorted(range(len(row)), key=lambda index, row=row: (-row[index], index))  # type: ignore[misc]
            for index, choice in enumerate(decision.choices):
                rows.append((step, decision.path, index, str(choice), ranks.index(index), row[index]))
    columns: list[ColumnSpec] = [
        ("step", "step", "d"),
        ("decision", "decision", ""),
        ("index", "index", "d"),
        ("choice", "choice", ""),
        ("rank", "rank", "d"),
        ("probability", "probability", ".1%"),
    ]
    return make_table("policy", "", columns, rows, shown=False)


def _decisions_table(
    facts: RunFacts, space: SearchSpace, moment: Moment, open_decisions: Sequence[OpenDecision]
) -> Table:
    """Every decision at one moment, next to the winner's choice."""
    chosen = _winning_choices(facts, space)
    rows = []
    for (i, decision), probability in zip(open_decisions, _likeliest(moment, open_decisions), strict=True):
        row = moment[1][i]
        choice = str(decision.choices[row.index(probability)])
        openness = _entropy(row) / math.log(len(row))
        rows.append((decision.path, choice, probability, openness, chosen.get(decision.path)))
    columns: list[ColumnSpec] = [
        ("decision", "decision", ""),
        ("choice", "most likely", ""),
        ("probability", "probability", ".1%"),
        ("openness", "normalised entropy (1: uniform)", ".2f"),
        ("winner", "winner's choice", ""),
    ]
    title = "Every decision at the end" if facts.result else "Every decision now"
    return make_table("decisions", title, columns, rows, brief=False)


def _likeliest(moment: Moment, open_decisions: Sequence[OpenDecision]) -> list[float]:
    """The probability of the most likely choice of each decision."""
    return [max(moment[1][i]) for i, _ in open_decisions]


def _winning_choices(facts: RunFacts, space: SearchSpace) -> Mapping[str, str]:
    """The winner's choice for each of its active decisions."""
    if facts.result is None:
        return {}
    described = space.describe(space.parse(facts.result.winner.architecture))
    return {path: str(value) for path, value in described.items()}


def _entropy(row: Sequence[float]) -> float:
    return -sum(p * math.log(p) for p in row if p > 0)
