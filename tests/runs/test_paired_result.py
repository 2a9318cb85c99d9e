"""What a paired test said, in words and in files."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_edge.runs.paired_result import PairedResult, compare_scores
from nas_edge.tasks.classification import ACCURACY


@pytest.mark.parametrize(
    ("p_value", "says"),
    [
        (1.0, "McNemar p = 1, 1,359 test examples"),
        (0.25, "McNemar p = 0.25, 1,359 test examples"),
        (0.03125, "McNemar p = 0.031, 1,359 test examples"),
        (0.0499, "McNemar p = 0.0499, 1,359 test examples"),
        (0.0002, "McNemar p < 0.001, 1,359 test examples"),
        (0.0, "McNemar p < 0.001, 1,359 test examples"),
    ],
)
def test_it_says_test_p_value_and_number_of_images(p_value: float, says: str) -> None:
    assert str(PairedResult("McNemar", 1359, p_value)) == says


@given(st.floats(0, 1))
def test_what_it_says_agrees_with_what_it_concludes(p_value: float) -> None:
    result = PairedResult("McNemar", 10, p_value)
    shown = float(str(result).partition(",")[0].split()[-1])
    assert result.significant == (shown < 0.05)
    assert PairedResult.from_json(json.loads(json.dumps(asdict(result)))) == result


@pytest.mark.parametrize(
    "changes",
    [
        {"p_value": 1.1},
        {"p_value": float("nan")},
        {"p_value": "0"},
        {"examples": -1},
        {"examples": 1.5},
        {"test": ""},
        {"test": "\x1b[31m"},
    ],
)
def test_what_is_damaged_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        PairedResult.from_json({"test": "McNemar", "examples": 10, "p_value": 0.5, **changes})


def test_networks_are_compared_where_there_is_a_test_and_both_were_scored() -> None:
    first, second = np.array([True] * 8), np.array([True] * 2 + [False] * 6)
    assert compare_scores(ACCURACY.paired_test, first, second) == PairedResult("McNemar", 8, 2 / 64)
    assert compare_scores(None, first, second) is None
    assert compare_scores(ACCURACY.paired_test, None, second) is None
    assert compare_scores(ACCURACY.paired_test, first, None) is None
