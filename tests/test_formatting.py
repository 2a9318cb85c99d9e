"""How latencies and errors are written."""

from __future__ import annotations

import json

import pytest

from nas_edge.formatting import ms_form, ms_text, reason


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [
        (1e-6, "0.000001000"),
        (0.0001, "0.0001000"),
        (0.07823, "0.07823"),
        (0.5, "0.5000"),
        (4.0, "4.000"),
        (25.31, "25.31"),
        (310.0, "310.0"),
        (1234.5678, "1235"),
        (1_000_000.0, "1000000"),
        (0.0, "0.000"),
        (None, "-"),
    ],
)
def test_a_latency_has_four_significant_digits_whatever_its_size(value_ms: float | None, text: str) -> None:
    assert ms_text(value_ms) == text


@pytest.mark.parametrize("scale_ms", [None, 0.0, -1.0, float("nan"), float("inf")])
def test_without_a_scale_there_are_three_decimals(scale_ms: float | None) -> None:
    assert ms_form(scale_ms) == ".3f"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("step"), "'step' is missing"),
        (IndexError("list index out of range"), "a list is too short (list index out of range)"),
        (TypeError("'int' object is not iterable"), "a value has the wrong type ('int' object is not iterable)"),
        (RecursionError(), "nested too deeply"),
        (ValueError("expected a number,\n received \x1b[2J"), "expected a number, received ?[2J"),
        (FileNotFoundError(2, "No such file or directory", "x"), "No such file or directory"),
        (OSError(), "the system gave no reason"),
        (RuntimeError(), "no reason given"),
    ],
)
def test_an_error_of_python_is_told_in_plain_words(error: Exception, text: str) -> None:
    assert reason(error) == text
    assert type(error).__name__ not in reason(error)


def test_a_place_in_a_json_file_is_kept() -> None:
    with pytest.raises(json.JSONDecodeError) as error:
        json.loads('{"a": }')
    assert reason(error.value) == "Expecting value: line 1 column 7 (char 6)"
