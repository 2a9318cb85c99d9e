"""Claim: ten minutes of measuring make a model of this machine's latencies that is off by 3%, and orders networks.

For each of `mobilenet-v3-like` and `proxylessnas` at 224 pixels, in float and int8, as `nas-edge latency fit` does:
networks of a design are measured for ten minutes, and in between, in the same session, 200 others, which are held out,
and some of these once more. On the held-out ones, each figure over those with a latency to rely on:

    mape        at most 3%
    within_10   at least 95%
    spearman    at least 0.99, or within 0.005 of that between two measurements of the same network

Beside it: a straight line over multiply-adds; the plain sum of operators, each measured alone on this machine (of those
that were not, by the rates of their group); how many held-out networks lie within their 95% interval; and the noise
floor, which is how far two measurements of the same network are apart. On a machine that is not quiet most of the error
is that: where the floor itself is above 3%, or less than 75% of the held-out networks have a latency to rely on,
nothing is concluded. Nor is it of a part alone, or of less than the above.

    python -m benchmarks.latency_model [--quick] [--space NAME] [--precision int8|float32] [--budget-s S]
        [--held-out N] [--journal FOLDER]

`--quick` fits to a few small networks, on which nothing is concluded. With `--journal`, the same command goes on with
what was measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agents.api import PRESETS
from device_agents.host import HostAgent, pick_cores
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.models.accuracy import Accuracy, accuracy_of
from nas_edge.latency.models.choosing import accuracy_of_macs, accuracy_on, choose_model
from nas_edge.latency.models.operators import OperatorTable
from nas_edge.latency.models.rates import fit_rates
from nas_edge.latency.models.subject import Observation, OperatorShape, Subject
from nas_edge.latency.retry import RetryingSource
from nas_edge.latency.source import Candidate
from nas_edge.latency_fitting.isolated import isolated_network
from nas_edge.latency_fitting.sampling import Pick, Role, Sampler
from nas_edge.latency_fitting.session import Measured, measure_design
from nas_edge.networks.precisions import Precision
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import NetworkSpace
from nas_edge.spaces.design import Design

SPACES, PRECISIONS = ("mobilenet-v3-like", "proxylessnas"), ("float32", "int8")
TARGET_MAPE, TARGET_WITHIN_10, TARGET_SPEARMAN, TARGET_FROM_FLOOR = 0.03, 0.95, 0.99, 0.005
FEWEST = 10
# The share of the held-out networks whose latency has to be one to rely on: those that are not may be the hard ones.
USABLE = 0.75


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        input_size: of the networks, pixels.
        width: multiplier of their widths.
        budget_s: device time for networks that the model is fitted to.
        held_out: networks that it is tested on.
        operators: that are measured alone, those with most of the multiply-adds.
        pool: see `Sampler`.
        max_duration_s: of one measurement; None for that of a search.
    """

    input_size: int = 224
    width: float = 1.0
    budget_s: float = 600.0
    held_out: int = 200
    operators: int = 300
    pool: int = 384
    max_duration_s: float | None = None


QUICK = Effort(input_size=64, width=0.5, budget_s=10.0, held_out=FEWEST, operators=6, pool=64, max_duration_s=0.3)


class Interleaved:
    """The batches of `Sampler`, without what there is enough of; those to fit to may run out before the others."""

    def __init__(self, sampler: Sampler, effort: Effort) -> None:
        self._sampler, self._effort = sampler, effort

    def next_batch(self, measured: Measured) -> Sequence[Pick]:
        """Networks to fit to until the time is spent, and held-out ones until there are so many."""
        spent_s = sum(one.seconds for one in measured.outcomes if one.pick.role in (Role.FITTED, Role.ISOLATED))
        held_out = sum(one.pick.role is Role.HELD_OUT for one in measured.outcomes)
        observations = measured.observations(self._sampler)
        test = held_out < self._effort.held_out
        if spent_s < self._effort.budget_s and (batch := self._sampler.batch(observations)):
            return [pick for pick in batch if test or pick.role in (Role.FITTED, Role.ISOLATED)]
        return self._sampler.batch(observations, fit=False) if test else ()


def figures_of(space: NetworkSpace, precision: Precision, effort: Effort, journal: Path) -> dict[str, Any]:
    """The figures of one space in one precision."""
    spec = PRESETS["search"].replace(cores=pick_cores(threads=1))
    if effort.max_duration_s is not None:
        spec = spec.replace(max_duration_s=effort.max_duration_s, max_risk=1.0, patience_s=0.0)
    with DeviceSource([HostAgent()], precision, spec) as device:
        source = RetryingSource(device)
        sampler = Sampler(space, 0, effort.pool)
        design = Interleaved(sampler, effort)
        header = {"space": space.name, "precision": precision, **vars(effort), "device": device.info.fingerprint}
        measured = measure_design(design.next_batch, space, source, journal, header, print, _show)
        roles = (Role.FITTED, Role.HELD_OUT, Role.ISOLATED)
        fitted, held_out, isolated = (measured.observations(sampler, role) for role in roles)
        if len(held_out) < FEWEST // 2 or len(fitted) < FEWEST:
            return {"pass": None, "reason": f"{len(fitted)} and {len(held_out)} networks had a latency to rely on"}
        alone = _alone(source, held_out, effort.operators)
    chosen = choose_model(fitted, isolated=isolated)
    found = accuracy_on(chosen.model, held_out, chosen.half_width)
    floor = _floor(measured)
    assert found is not None
    figures = {
        "fitted": len(fitted),
        "isolated": len(isolated),
        "model": chosen.name,
        **_shown(found),
        "macs": _shown(accuracy_of_macs(fitted, held_out)),
        "sum_of_operators": _shown(None if alone is None else accuracy_on(alone, held_out)),
        "operators_alone": 0 if alone is None else len(alone.entries),
        "noise_floor": _shown(floor),
    }
    return {**figures, **verdict(found, floor, len(held_out), effort)}


def verdict(found: Accuracy, floor: Accuracy | None, usable: int, effort: Effort) -> dict[str, Any]:
    """Whether one space in one precision is as claimed; null, with a reason, where that cannot be told.

    Args:
        found: accuracy on the held-out networks.
        floor: of two measurements of the same network; None where none was repeated.
        usable: held-out networks with a latency to rely on.
        effort: what was asked for.
    """
    if effort != Effort():
        return {"pass": None, "reason": f"not at full size: {effort}"}
    if usable < USABLE * effort.held_out:
        reason = f"{usable} of {effort.held_out} held-out networks had a latency to rely on; {USABLE:.0%} have to"
        return {"pass": None, "reason": reason}
    if floor is not None and floor.mape > TARGET_MAPE:
        return {"pass": None, "reason": f"two measurements of the same network are {floor.mape:.1%} apart"}
    ordered = found.spearman or 0.0
    as_the_floor = floor is not None and floor.spearman is not None and ordered >= floor.spearman - TARGET_FROM_FLOOR
    passed = (
        found.mape <= TARGET_MAPE
        and found.within_10 >= TARGET_WITHIN_10
        and (ordered >= TARGET_SPEARMAN or as_the_floor)
    )
    return {"pass": passed}


def overall(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of all spaces and precisions together: null, with a reason, unless each was measured and has a verdict."""
    if len(rows) < len(SPACES) * len(PRECISIONS):
        return {"pass": None, "reason": f"only {', '.join(rows)} was measured"}
    passes = [row["pass"] for row in rows.values()]
    if False not in passes and None in passes:
        name, row = next((name, row) for name, row in rows.items() if row["pass"] is None)
        return {"pass": None, "reason": f"{name}: {row['reason']}"}
    return {"pass": False not in passes}


def _alone(source: RetryingSource, held_out: Sequence[Observation], count: int) -> OperatorTable | None:
    """The plain sum: a time for each operator that was measured alone, and rates of these for the others."""
    occurring: Counter[OperatorShape] = Counter()
    for one in held_out:
        occurring.update(one.subject.operators or {})
    most_work = sorted(occurring, key=lambda operator: -occurring[operator] * operator.macs)
    networks = [(operator, isolated_network(operator)) for operator in most_work]
    asked = [(operator, network) for operator, network in networks if network is not None][:count]
    futures = [source.submit(Candidate(Design(network))) for _, network in asked]
    answers = [future.result() for future in futures]
    known = {operator: answer for (operator, _), answer in zip(asked, answers, strict=True) if answer.ok}
    if not known:
        return None
    rates = fit_rates([Observation.of(Subject((operator,)), answer) for operator, answer in known.items()])
    entries = {str(operator): answer.latency_ms or 0.0 for operator, answer in known.items()}
    return OperatorTable(bias_ms=0.0, entries=entries, rates=rates, error=0.0)


def _floor(measured: Measured) -> Accuracy | None:
    """How far two measurements of the same network are apart."""
    first = {one.pick.architecture: one.answer for one in measured.outcomes if one.pick.role is Role.HELD_OUT}
    again = [one for one in measured.outcomes if one.pick.role is Role.REPEATED and one.answer.ok]
    pairs = [(first[one.pick.architecture].latency_ms, one.answer.latency_ms) for one in again]
    known = [(was, now) for was, now in pairs if was is not None and now is not None]
    return accuracy_of([now for _, now in known], [was for was, _ in known]) if known else None


def _shown(found: Accuracy | None) -> dict[str, Any]:
    told = {} if found is None else found.model_dump()
    return {name: round(value, 4) for name, value in told.items() if value is not None}


def _show(seconds: float, count: int) -> None:
    print(f"{count} networks in {seconds:.0f} s", flush=True)


def main() -> int:
    """Prints the figures, the last line as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--space", choices=SPACES, action="append")
    parser.add_argument("--precision", choices=PRECISIONS, action="append")
    parser.add_argument("--budget-s", type=float)
    parser.add_argument("--held-out", type=int)
    parser.add_argument("--journal", type=Path)
    given = parser.parse_args()
    changes = {"budget_s": given.budget_s, "held_out": given.held_out}
    effort = Effort(**{**vars(QUICK if given.quick else Effort()), **{k: v for k, v in changes.items() if v}})
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        journals = given.journal or Path(folder)
        for name in given.space or (SPACES[1:] if given.quick else SPACES):
            for precision in given.precision or (PRECISIONS[1:] if given.quick else PRECISIONS):
                space = find_space(name)(effort.input_size, effort.width, 1001, 3)
                row = figures_of(space, precision, effort, journals / f"{name}-{precision}.journal")
                rows[f"{name} {precision}"] = row
                print(name, precision, json.dumps(row), flush=True)
    target = {"mape": TARGET_MAPE, "within_10": TARGET_WITHIN_10, "spearman": TARGET_SPEARMAN}
    found = overall(rows)
    print(json.dumps({"benchmark": "latency_model", **rows, "target": target, **found}))
    return 1 if found["pass"] is False else 0


if __name__ == "__main__":
    raise SystemExit(main())
