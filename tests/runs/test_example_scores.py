"""How the delivered files did on each test image is kept, and read with care."""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas_edge.data.settings import DataSettings
from nas_edge.errors import RunError
from nas_edge.runs.example_scores import (
    TEST_SCORES,
    ExampleScores,
    id_of_test_set,
    read_example_scores,
    write_example_scores,
)
from nas_edge.runs.run import Run
from tests.support.tasks import CLASSIFICATION

KEPT = ExampleScores(
    "ab12",
    {
        ("winner", "int8"): np.array([True, False, True]),
        ("winner", "float32"): np.array([True, True, True]),
        ("best of random", "int8"): np.array([0.5, 0.25, 1.0]),
    },
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_they_come_back(run: Run) -> None:
    assert read_example_scores(run) is None
    write_example_scores(run, KEPT)
    found = read_example_scores(run)
    assert found is not None
    assert found.test_set == "ab12"
    assert list(found.scores) == list(KEPT.scores)
    for key, array in KEPT.scores.items():
        assert found.of(*key) is not None
        assert np.array_equal(found.scores[key], array)
        assert found.scores[key].dtype == array.dtype
    assert found.of("best of random", "float32") is None


def test_they_take_a_few_bits_per_image(run: Run) -> None:
    rng = np.random.default_rng(0)
    scores = {(name, "int8"): rng.random(50_000) < 0.75 for name in ("winner", "best of random", "reference")}
    write_example_scores(run, ExampleScores("ab12", scores))
    assert 8 * run.path(TEST_SCORES).stat().st_size < 2 * 3 * 50_000


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{"schema_version": 1, "test_set": "ab12", **arrays})
    return buffer.getvalue()


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("winner/int8.npy", bytes(65 << 20))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is damaged"),
        (b"not a zip file", "is damaged"),
        (npz(schema_version=2), "expected schema 1, received 2"),
        (npz(schema_version=[1, 2]), "is damaged"),
        (npz(winner=[True]), "expected NETWORK/PRECISION"),
        (npz(**{"winner/int8": [[True]]}), "one score per test image"),
        (npz(**{"winner/int8": [True], "winner/float32": [True, False]}), "one score per test image"),
        (npz(**{"winner/int8": [float("nan")]}), "scores that are numbers"),
        (npz(**{"winner/int8": ["a"]}), "scores that are numbers"),
        (npz(**{"winner/int8": np.array([{}], object)}), "is damaged"),
        (bomb(), "larger than 64 MiB"),
    ],
)
def test_what_is_damaged_is_one_error(run: Run, content: bytes, problem: str) -> None:
    run.path(TEST_SCORES).write_bytes(content)
    with pytest.raises(RunError, match=problem):
        read_example_scores(run)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_damage_is_a_run_error_or_goes_unnoticed(run: Run, data: st.DataObject) -> None:
    write_example_scores(run, KEPT)
    content = bytearray(run.path(TEST_SCORES).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    run.path(TEST_SCORES).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = read_example_scores(run)
    except RunError:
        return
    assert found is not None


def test_a_file_that_never_ends_is_refused(run: Run) -> None:
    os.mkfifo(run.path(TEST_SCORES))
    with pytest.raises(RunError, match="not a regular file"):
        read_example_scores(run)


def test_runs_on_the_same_images_share_a_test_set() -> None:
    def loaded(seed: int, input_size: int = 8) -> Any:
        return CLASSIFICATION.load(DataSettings(source="digits"), input_size, seed)

    data = loaded(0)
    assert id_of_test_set(data) == id_of_test_set(loaded(0, 16))
    assert id_of_test_set(data) != id_of_test_set(loaded(1))
    fewer = replace(data, split=replace(data.split, test=data.split.test[1:]))
    assert id_of_test_set(data) != id_of_test_set(fewer)
    labels = data.dataset.labels.copy()
    labels[data.split.test[0]] += 1
    assert id_of_test_set(data) != id_of_test_set(replace(data, dataset=replace(data.dataset, labels=labels)))
