"""A latency model as text for the terminal, and two of them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from nas_edge.errors import ConfigError
from nas_edge.formatting import ms_text
from nas_edge.latency.model_file import ModelFile
from nas_edge.latency.models.accuracy import Accuracy, accuracy_of
from nas_edge.latency.models.blocks import BlockTable
from nas_edge.latency.models.operators import OperatorTable
from nas_edge.latency.models.subject import Subject, parse_operator, subject_of_architecture
from nas_edge.seeds import generator
from nas_edge.spaces.decisions import Architecture, SearchSpace

Rows = list[tuple[str, ...]]

# Architectures in which each choice is tried, and from which means are taken.
_BASES, _MEANS = 4, 64


def summary_rows(file: ModelFile) -> Rows:
    """What the model is of."""
    told = file.provenance
    space = "-"
    if told.space is not None:
        shape = "" if told.space.input_shape is None else f", inputs {'x'.join(map(str, told.space.input_shape))}"
        outputs = "" if told.space.outputs is None else f", {told.space.outputs} outputs"
        space = f"{told.space.name}{shape}{outputs}"
    usable = [one for one in file.measurements if one.verdict in ("ok", "corrected")]
    fitted = sum(not one.held_out for one in usable)
    measured = f"{len(file.measurements)} networks, {fitted} fitted to, {len(usable) - fitted} held out"
    failed = len(file.measurements) - len(usable)
    return [
        ("device", told.device or "-"),
        ("runtime", told.runtime or "-"),
        ("measured with", ", ".join(f"{name} {value}" for name, value in told.measuring.items()) or "-"),
        ("precision", told.precision or "-"),
        ("space", space),
        ("model", file.model.kind),
        ("measured", f"{measured}, {failed} without a latency to rely on" if failed else measured),
        *([("operators alone", _isolated_text(file))] if file.isolated else []),
        ("made", f"{told.created_utc} by {told.source}{f'; {told.note}' if told.note else ''}"),
    ]


def _isolated_text(file: ModelFile) -> str:
    known = sum(one.verdict in ("ok", "corrected") for one in file.isolated)
    used = isinstance(file.model, OperatorTable) and file.model.isolated_bias_ms is not None
    bias = f"; overhead of a single operator {ms_text(file.model.isolated_bias_ms)} ms" if used else ""
    fitted = "used in the fit" if used else "not used in the fit, since held-out networks are predicted better without"
    return f"{len(file.isolated)} measured, {known} reliably; {fitted}{bias}"


@dataclass(frozen=True)
class IsolatedCost:
    """An operator that was measured on its own.

    Attributes:
        operator: as `OperatorShape` is written.
        alone_ms: measured.
        entry_ms: its time in a network according to the model; None if the model does not say.
    """

    operator: str
    alone_ms: float
    entry_ms: float | None


def isolated_costs(file: ModelFile) -> list[IsolatedCost]:
    """Operators that were measured on their own, the slowest first."""
    known = [(one.operator, one.latency_ms) for one in file.isolated if one.verdict in ("ok", "corrected")]
    found = [
        IsolatedCost(operator, ms, file.model.operator_ms(parse_operator(operator)))
        for operator, ms in known
        if ms is not None
    ]
    return sorted(found, key=lambda one: -one.alone_ms)


def isolated_rows(file: ModelFile) -> Rows:
    """The slowest of these; empty if none was measured."""
    rows = [
        (ms_text(one.alone_ms), "-" if one.entry_ms is None else ms_text(one.entry_ms), one.operator)
        for one in isolated_costs(file)[:10]
    ]
    return [("ALONE, MS", "IN A NETWORK, MS", "OPERATOR"), *rows] if rows else []


def accuracy_rows(file: ModelFile) -> Rows:
    """How good it is on networks that were held out, beside the kinds it was chosen from; empty where not known."""
    rows = [_accuracy_row(kind, found) for kind, found in file.accuracy.items()]
    if file.noise_floor is not None:
        rows.append(_accuracy_row("measured again", file.noise_floor))
    head = (
        "HELD OUT",
        "NETWORKS",
        "MAPE",
        "P90 ERROR",
        "WITHIN 5%",
        "WITHIN 10%",
        "SPEARMAN",
        "KENDALL",
        "IN 95% INTERVAL",
    )
    return [head, *rows] if rows else []


def _accuracy_row(name: str, found: Accuracy) -> tuple[str, ...]:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    return (
        name,
        str(found.networks),
        share(found.mape),
        share(found.p90_error),
        share(found.within_5),
        share(found.within_10),
        number(found.spearman),
        number(found.kendall),
        share(found.covered),
    )


@dataclass(frozen=True)
class PartCost:
    """What a group of operators costs, in the mean over networks of the space.

    Attributes:
        group: of operators.
        ms: of a network.
        share: of its latency.
        ms_per_mmac: of a million multiply-adds; None without any.
    """

    group: str
    ms: float
    share: float
    ms_per_mmac: float | None


def part_costs(file: ModelFile, space: SearchSpace) -> list[PartCost]:
    """Where the time of the space's networks goes, the most first; empty where the model does not tell."""
    subjects = _sample(space)
    totals: dict[str, float] = {}
    macs: dict[str, float] = {}
    for subject in subjects:
        for group, ms in file.model.parts_ms(subject).items():
            totals[group] = totals.get(group, 0.0) + ms
        for operator in subject.sequence or ():
            macs[operator.group] = macs.get(operator.group, 0.0) + operator.macs
    whole = sum(totals.values())
    return [
        PartCost(group, ms / len(subjects), ms / whole, ms / macs[group] * 1e6 if macs.get(group) else None)
        for group, ms in sorted(totals.items(), key=lambda item: -item[1])
    ]


def parts_rows(file: ModelFile, space: SearchSpace) -> Rows:
    """Where the time of the space's networks goes, by group of operators; empty where the model does not tell."""
    rows = [
        (one.group, ms_text(one.ms), f"{one.share:.1%}", "-" if one.ms_per_mmac is None else f"{one.ms_per_mmac:.4f}")
        for one in part_costs(file, space)
    ]
    return [("OPERATORS", "MS", "SHARE", "MS PER MILLION MACS"), *rows] if rows else []


def choices_rows(file: ModelFile, space: SearchSpace) -> Rows:
    """The cheapest and the dearest choice of each decision, with what the others being equal it makes of a latency."""
    rng = generator(0, "latency choices")
    bases = [space.sample(rng) for _ in range(_BASES)]
    rows: Rows = [("DECISION", "CHEAPEST", "DEAREST", "DIFFERENCE, MS")]
    for position, decision in enumerate(space.decisions):
        if len(decision.choices) < 2:
            continue
        means = []
        for choice in range(len(decision.choices)):
            changed = [_reached(space, base, position, choice) for base in bases]
            found = file.model.predict([subject_of_architecture(space, one) for one in changed]).latency_ms
            means.append(float(np.mean(found)))
        if not np.isfinite(means).all():
            continue
        low, high = int(np.argmin(means)), int(np.argmax(means))
        cheapest, dearest = decision.choices[low], decision.choices[high]
        rows.append((decision.path, str(cheapest), str(dearest), ms_text(means[high] - means[low])))
    return rows if len(rows) > 1 else []


def _reached(space: SearchSpace, base: Architecture, position: int, choice: int) -> Architecture:
    """An architecture with a choice made, and the decisions above so that it matters."""
    choices = list(base.choices)
    for path, above in space.decisions[position].guards[0]:
        choices[space.index[path]] = above
    choices[position] = choice
    return Architecture(tuple(choices))


@dataclass(frozen=True)
class HeldOut:
    """A network that was held out.

    Attributes:
        architecture: its text form.
        predicted_ms: by the model.
        measured_ms: on the device.
    """

    architecture: str
    predicted_ms: float
    measured_ms: float

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured."""
        return self.predicted_ms / self.measured_ms - 1


def held_out(file: ModelFile, space: SearchSpace) -> list[HeldOut]:
    """What was held out, predicted and measured, the largest errors first."""
    known = [
        (one.architecture, one.latency_ms)
        for one in file.measurements
        if one.held_out and one.latency_ms is not None and one.verdict in ("ok", "corrected")
    ]
    subjects = [subject_of_architecture(space, space.parse(architecture)) for architecture, _ in known]
    predicted_ms = file.model.predict(subjects).latency_ms.tolist() if subjects else []
    found = [HeldOut(text, ms, measured) for (text, measured), ms in zip(known, predicted_ms, strict=True)]
    return sorted((one for one in found if np.isfinite(one.predicted_ms)), key=lambda one: -abs(one.error))


def measured_rows(file: ModelFile, space: SearchSpace) -> Rows:
    """What was held out: predicted against measured, the largest errors first; empty without."""
    rows = [
        (ms_text(one.predicted_ms), ms_text(one.measured_ms), f"{one.error:+.1%}", one.architecture)
        for one in held_out(file, space)[:10]
    ]
    return [("PREDICTED, MS", "MEASURED, MS", "ERROR", "ARCHITECTURE"), *rows] if rows else []


@dataclass(frozen=True)
class LayerCost:
    """An operator of one network.

    Attributes:
        layer: its place in the order of execution, from 1.
        operator: as `OperatorShape` is written.
        ms: what it takes.
        ms_per_mmac: of a million multiply-adds; None without any.
    """

    layer: int
    operator: str
    ms: float
    ms_per_mmac: float | None


def layer_costs(file: ModelFile, space: SearchSpace) -> list[LayerCost]:
    """What each operator costs of a network in the middle of the space; empty where the model does not tell."""
    subject = sorted(_sample(space), key=lambda one: one.macs)[_MEANS // 2]
    found = []
    for layer, operator in enumerate(subject.sequence or (), start=1):
        ms = file.model.operator_ms(operator)
        if ms is None:
            return []
        found.append(LayerCost(layer, str(operator), ms, ms / operator.macs * 1e6 if operator.macs else None))
    return found


def layers_rows(file: ModelFile, space: SearchSpace) -> Rows:
    """The dearest operators of that network."""
    dearest = sorted(layer_costs(file, space), key=lambda one: -one.ms)[:10]
    rows = [
        (str(one.layer), ms_text(one.ms), "-" if one.ms_per_mmac is None else f"{one.ms_per_mmac:.4f}", one.operator)
        for one in dearest
    ]
    return [("LAYER", "MS", "MS PER MILLION MACS", "OPERATOR"), *rows] if rows else []


def comparison_rows(files: Sequence[tuple[str, ModelFile]], space: SearchSpace) -> Rows:
    """Two models over the same networks of a space.

    Raises:
        ConfigError: when one of them knows none of these.
    """
    subjects = _sample(space)
    latencies = [file.model.predict(subjects).latency_ms for _, file in files]
    known = np.isfinite(latencies).all(axis=0)
    if known.sum() < 3:
        raise ConfigError(f"the models do not both know the networks of {space.name}", fix="name their space (--space)")
    first, second = (found[known] for found in latencies)
    ratios = second / first
    found = accuracy_of(second, first)
    names = [name for name, _ in files]
    low, middle, high = np.quantile(ratios, [0.05, 0.5, 0.95])
    rows: Rows = [
        ("networks", str(int(known.sum()))),
        (f"mean of {names[0]}", f"{ms_text(fmean(first))} ms"),
        (f"mean of {names[1]}", f"{ms_text(fmean(second))} ms"),
        ("ratio, median", f"{middle:.3f}"),
        ("ratio of nine in ten networks", f"{low:.3f} to {high:.3f}"),
        ("rank correlation", "-" if found.spearman is None else f"{found.spearman:.3f}"),
    ]
    for what in ("device", "runtime", "precision"):
        values = [getattr(file.provenance, what) for _, file in files]
        if values[0] != values[1]:
            rows.append((f"{what} differs", " / ".join(str(value or "-") for value in values)))
    return rows


def limits_line(file: ModelFile) -> str:
    """What a table does not cover; empty for a whole model."""
    if isinstance(file.model, BlockTable) and {"Conv", "Logits"} - set(file.model.covers):
        return "the table has only some of the blocks of a network: its latencies are those without the others"
    return ""


def _sample(space: SearchSpace) -> list[Subject]:
    rng = generator(0, "latency show")
    return [subject_of_architecture(space, space.sample(rng)) for _ in range(_MEANS)]
