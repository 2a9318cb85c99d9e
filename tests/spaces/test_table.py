"""The space of a table of results: any CSV file, or one clear line that says why not."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from nas_edge.errors import ConfigError
from nas_edge.spaces.decisions import Architecture
from nas_edge.spaces.table import table_of
from tests.support.spaces import small_space
from tests.support.tables import ROWS, open_space, write_table


def test_choices_are_sorted_as_values_and_not_as_texts(tmp_path: Path) -> None:
    space = open_space(write_table(tmp_path))
    assert [(d.path, d.choices) for d in space.decisions] == [("op", ("conv", "pool", "skip")), ("width", (8, 16))]
    assert space.size == 6
    assert space.describe(Architecture((1, 1))) == {"op": "pool", "width": 16}


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    head, *rows = ROWS.splitlines()
    one = open_space(write_table(tmp_path)).table
    other = open_space(write_table(tmp_path, "\n".join([head, *reversed(rows)]))).table
    assert one.decisions == other.decisions
    assert one.column("accuracy") == other.column("accuracy")


def test_a_point_is_a_design_without_a_network(tmp_path: Path) -> None:
    space = open_space(write_table(tmp_path))
    design = space.build(Architecture((0, 1)))
    assert (design.network, design.extras) == (None, {"op": "conv", "width": 16})
    assert design.fingerprint != space.build(Architecture((0, 0))).fingerprint


def test_a_column_holds_the_finite_values_by_architecture(tmp_path: Path) -> None:
    table = open_space(write_table(tmp_path)).table
    accuracy = table.column("accuracy", 0.01)
    assert accuracy == {
        Architecture((1, 1)): pytest.approx(0.917),
        Architecture((0, 1)): pytest.approx(0.931),
        Architecture((0, 0)): pytest.approx(0.924),
        Architecture((1, 0)): pytest.approx(0.9),
    }
    with pytest.raises(ConfigError, match=r"has no column 'phone'; its columns: op, width, accuracy, phone_ms, note$"):
        table.column("phone")
    with pytest.raises(ConfigError, match=r"column 'note' of table results.csv .* must hold numbers"):
        table.column("note")


def test_a_table_may_be_compressed(tmp_path: Path) -> None:
    plain = open_space(write_table(tmp_path)).table
    packed = tmp_path / "results.csv.gz"
    packed.write_bytes(gzip.compress(ROWS.encode()))
    table = open_space(packed).table
    assert table.decisions == plain.decisions
    assert table.column("phone_ms") == plain.column("phone_ms")


def test_tables_that_differ_have_other_names(tmp_path: Path) -> None:
    one = open_space(write_table(tmp_path)).table.name
    assert one == open_space(write_table(tmp_path)).table.name
    assert one != open_space(write_table(tmp_path, ROWS.replace("4.2", "4.3"))).table.name


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("op,accuracy\nconv,1\n", "has no column 'width'; its columns: op, accuracy"),
        ("op,width\n", "has no rows"),
        ("", "is not a CSV file"),
        ('op,width\n"conv,8\n', "is not a CSV file"),
        ("op,width\nconv,8\npool,8,9,9\n", "is not a CSV file"),
        ("op,width\nconv,8\n,8\n", "row 2 has no value in 'op'"),
        ("op,width\nconv,8\npool,nan\n", "row 2 has no value in 'width'"),
        ("op,width\nconv,8\npool,8\nconv,8\n", "rows 1 and 3 have the same decisions"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_one_line(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refusal:
        open_space(write_table(tmp_path, content))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00table", b"\x1f\x8b damaged", gzip.compress(ROWS.encode())[:-9]])
def test_bytes_that_are_no_table_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "results.csv"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"results\.csv") as refusal:
        open_space(file)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["", "missing.csv"])
def test_a_directory_or_nothing_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="does not exist, or is not a regular file"):
        open_space(tmp_path / name)


def test_a_column_can_be_a_decision_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--decisions names a column twice; received op,op"):
        open_space(write_table(tmp_path), "op", "op")


def test_other_spaces_have_no_table(tmp_path: Path) -> None:
    space = open_space(write_table(tmp_path))
    assert table_of(space, "a quality") is space.table
    with pytest.raises(ConfigError, match=r"a quality from a column requires a table of results .* the space small"):
        table_of(small_space(), "a quality")
