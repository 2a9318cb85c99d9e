"""Claim: ten measurements bring a model of one phone to another, and order its networks better than they alone do.

A model of a Pixel 3 is brought to a Pixel 2 by `nas_edge.latency.models.adapted`, on the 15,625 architectures of
NAS-Bench-201 in `NAS_EDGE_DATA`. In each draw ten architectures are measured on the Pixel 2, and the rank correlation
(Spearman) is taken over all others. Beside it, on the same draws: the latencies of the Pixel 3 as they are, and ridge
regression on how often each operator occurs (four features), which knows the ten measurements only. The ceiling is the
same regression on thousands of measurements of the Pixel 2 itself.

    python -m benchmarks.latency_transfer [--quick]

`--quick` makes 20 draws instead of 100.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr, ttest_rel
from threadpoolctl import threadpool_limits

from nas_edge.latency.models.adapted import adapt
from nas_edge.latency.models.decisions import DecisionModel
from nas_edge.latency.models.predictor import FloatArray
from nas_edge.latency.models.subject import Observation, Subject, chosen_values
from nas_edge.seeds import generator
from nas_edge.spaces.table import TableSpace, TableSpaceSettings, table_space

DRAWS, QUICK_DRAWS, POINTS = 100, 20, 10
# What the model of the first phone is fitted to, and on what the ceiling is.
OF_SOURCE, OF_CEILING = 1_000, 8_000
TARGET = 0.84
_COUNTED = ("avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3", "skip_connect")
# Of a latency on these phones, which were measured once.
_ERROR = 0.05
# Networks that a runtime folded to nothing say nothing of their operators.
_FOLDED_MS = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures, the last line as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    draws = QUICK_DRAWS if parser.parse_args(arguments).quick else DRAWS
    folder = Path(os.environ.get("NAS_EDGE_DATA", "../shared/data")) / "nasbench201"
    file = folder / "nasbench201.csv"
    if not file.is_file():
        print(json.dumps({"benchmark": "latency_transfer", "pass": None, "reason": f"{file} is not there"}))
        return 0
    with threadpool_limits(1):
        found = _figures(file, draws)
    print(json.dumps(found))
    return 0 if found["pass"] else 1


def _figures(file: Path, draws: int) -> dict[str, Any]:
    space = table_space(TableSpaceSettings(file=str(file), decisions=tuple(f"op_{place}" for place in range(6))))
    subjects, first_ms, second_ms = _read(space)
    rng = generator(0, "latency transfer")
    source = _fitted(subjects, first_ms, rng.choice(len(subjects), OF_SOURCE, replace=False).tolist())
    population = [subjects[place] for place in rng.choice(len(subjects), OF_SOURCE, replace=False)]
    counts = np.array([[list((one.choices or {}).values()).count(op) for op in _COUNTED] for one in subjects], float)
    rows: list[tuple[float, float, float]] = []
    for draw in range(draws):
        places = generator(draw, "ten measurements").choice(len(subjects), POINTS, replace=False)
        others = np.setdiff1d(np.arange(len(subjects)), places)
        observations = [Observation(subjects[place], float(second_ms[place]), _ERROR) for place in places]
        predicted = adapt(source, observations, population).predict(subjects).latency_ms
        ridged = _ridge(counts, second_ms, places)
        orders = (predicted, ridged, first_ms)
        rows.append(tuple(_rank_correlation(order[others], second_ms[others]) for order in orders))  # type: ignore[arg-type]
        print(f"draw {draw}: adapted {rows[-1][0]:.3f}, ridge {rows[-1][1]:.3f}, reused {rows[-1][2]:.3f}", flush=True)
    adapted, ridge, reused = (list(column) for column in zip(*rows, strict=True))
    p_value = float(ttest_rel(adapted, ridge, alternative="greater").pvalue)
    picked = rng.choice(len(subjects), OF_CEILING, replace=False)
    rest = np.setdiff1d(np.arange(len(subjects)), picked)
    ceiling = _ridge(counts, second_ms, picked)
    mean = statistics.fmean(adapted)
    return {
        "benchmark": "latency_transfer",
        "draws": draws,
        "points": POINTS,
        "spearman": round(mean, 4),
        "spearman_worst": round(min(adapted), 4),
        "ridge": round(statistics.fmean(ridge), 4),
        "reused": round(statistics.fmean(reused), 4),
        "ceiling": round(_rank_correlation(ceiling[rest], second_ms[rest]), 4),
        "p_above_ridge": p_value,
        "target": TARGET,
        "pass": mean >= TARGET and p_value < 0.05,
    }


def _read(space: TableSpace) -> tuple[list[Subject], FloatArray, FloatArray]:
    first, second = space.table.column("pixel3_ms"), space.table.column("pixel2_ms")
    rows = [row for row in space.table.rows if row in first and row in second]
    subjects = [Subject(None, chosen_values(space, row)) for row in rows]
    return subjects, np.array([first[row] for row in rows]), np.array([second[row] for row in rows])


def _fitted(subjects: Sequence[Subject], latencies_ms: FloatArray, places: Sequence[int]) -> DecisionModel:
    kept = [place for place in places if latencies_ms[place] >= _FOLDED_MS]
    model = DecisionModel.fit([Observation(subjects[place], float(latencies_ms[place]), _ERROR) for place in kept])
    assert model is not None
    return model


def _ridge(features: FloatArray, latencies_ms: FloatArray, places: Any) -> FloatArray:
    """Ridge regression with a penalty of 1, fitted to some architectures, for all."""
    centre, base = features[places].mean(axis=0), latencies_ms[places].mean()
    at = features[places] - centre
    weights = np.linalg.solve(at.T @ at + np.eye(at.shape[1]), at.T @ (latencies_ms[places] - base))
    predicted: FloatArray = base + (features - centre) @ weights
    return predicted


def _rank_correlation(first: FloatArray, second: FloatArray) -> float:
    return float(spearmanr(first, second).statistic)


if __name__ == "__main__":
    raise SystemExit(main())
