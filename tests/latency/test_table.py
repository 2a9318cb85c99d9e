"""Linear tables, and the published Pixel-1 table's golden numbers (TuNAS reference code, design notes section 5)."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agents.api import Verdict
from nas_edge.errors import ConfigError, RunError
from nas_edge.latency.source import Candidate
from nas_edge.latency.table import LinearTable, Term, open_table, read_tunas_pixel1
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import Architecture, NetworkSpace
from nas_edge.spaces.reference import point
from nas_edge.testing.problems import nested_space
from tests.support.data import DATA

TABLE = DATA / "tunas_pixel1" / "proxylessnas_search_pixel1_cost_model.csv"
needs_data = pytest.mark.needs("data")


@pytest.fixture(scope="module")
def proxylessnas() -> NetworkSpace:
    return find_space("proxylessnas")(224, 1.0, 1001, 3)


def test_latency_is_the_bias_plus_the_terms_that_hold() -> None:
    terms = [Term({"kernel": "k5", "op": "keep"}, 2.0), Term({"width": 12}, 0.5), Term({"op": "skip"}, -1.0)]
    table = LinearTable(nested_space(), terms, bias_ms=10.0)
    assert table.latency_ms(Architecture((1, 0, 1))) == 12.5
    assert table.latency_ms(Architecture((1, 1, 0))) == 9.0
    assert table.latency_ms(Architecture((0, 0, 0))) == 10.0


@pytest.mark.parametrize("when", [{"kernel": "k9"}, {"unknown": 1}])
def test_a_term_the_space_does_not_offer_is_refused(when: dict[str, int | float | str]) -> None:
    with pytest.raises(ConfigError, match="which nested does not offer"):
        LinearTable(nested_space(), [Term(when, 1.0)], 0.0)


def test_a_missing_table_is_one_clear_error(tmp_path: Path, proxylessnas: NetworkSpace) -> None:
    with pytest.raises(ConfigError, match="cannot read the latency table"):
        read_tunas_pixel1(tmp_path / "table.csv", proxylessnas)


LINEAR = {"schema_version": 1, "input_shape": [8, 8, 4], "bias_ms": 10.0, "terms": []}


def ask(table: Path, *choices: int) -> float | None:
    space = nested_space()
    architecture = Architecture(choices)
    with open_table(str(table), space) as source:
        return source.submit(Candidate(space.build(architecture), architecture)).result().latency_ms


def test_a_linear_table_is_read_from_a_file(tmp_path: Path) -> None:
    terms = [{"when": {"kernel": "k5", "op": "keep"}, "ms": 2.0}, {"when": {"width": 12}, "ms": 0.5}]
    file = tmp_path / "table.json"
    file.write_text(json.dumps({**LINEAR, "terms": terms}))
    assert ask(file, 1, 0, 1) == 12.5
    assert ask(file, 0, 0, 0) == 10.0


def test_a_table_of_architectures_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("architecture,latency_ms\r\n1:0:1,12.5\r\n2:1:0,3\r\n")
    assert ask(file, 1, 0, 1) == 12.5
    assert ask(file, 0, 1, 0) == 3.0, "the kernel of a skipped layer does not matter"


def test_an_architecture_without_a_row_is_not_known_and_no_error(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("architecture,latency_ms\n1:0:1,12.5\n")
    space, architecture = nested_space(), Architecture((0, 0, 0))
    with open_table(str(file), space) as source:
        answer = source.submit(Candidate(space.build(architecture), architecture)).result()
    assert (answer.verdict, answer.latency_ms) == (Verdict.NOT_KNOWN, None)
    assert answer.detail.startswith("table table.csv ")
    assert answer.detail.endswith(" has no latency of 0:0:0")


def test_tables_that_differ_have_other_names_so_that_a_run_is_not_continued_with_another(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    names = set()
    for latency_ms in ("1", "2"):
        file.write_text(f"architecture,latency_ms\n0:0:0,{latency_ms}\n")
        names.add(open_table(str(file), nested_space()).name)
    assert len(names) == 2


def test_a_network_from_outside_the_space_is_not_in_a_table(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    file.write_text(json.dumps(LINEAR))
    space = nested_space()
    asked = open_table(str(file), space).submit(Candidate(space.build(Architecture((0, 0, 0)))))
    with pytest.raises(RunError, match="knows the architectures of its space only"):
        asked.result()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("nan", "received nan"),
        ("inf", "received inf"),
        ("0", "received 0"),
        ("-2", "gives 0:0:0 a latency that there cannot be; expected milliseconds above 0, received -2"),
    ],
)
def test_a_row_that_holds_no_latency_is_refused_before_the_search(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "table"
    file.write_text(f"architecture,latency_ms\n1:0:1,12.5\n0:0:0,{content}\n")
    with pytest.raises(ConfigError, match=expected):
        open_table(str(file), nested_space())


def test_a_sum_below_zero_is_an_error_of_the_table(tmp_path: Path) -> None:
    file = tmp_path / "table"
    file.write_text(json.dumps({**LINEAR, "bias_ms": -1.0}))
    with pytest.raises(RunError, match="a latency of -1 ms; correct it, and start a new run"):
        ask(file, 0, 0, 0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "neither a linear table nor a CSV file with the columns architecture,latency_ms"),
        ("my notes", "neither a linear table nor"),
        ("[" * 100_000, "neither a linear table nor"),
        (json.dumps({**LINEAR, "schema_version": 2}), "schema_version"),
        (json.dumps({**LINEAR, "colour": "blue"}), "colour"),
        (json.dumps({**LINEAR, "bias_ms": float("nan")}), "bias_ms"),
        (json.dumps({**LINEAR, "terms": [{"ms": 1.0}]}), r"terms\.0\.when"),
        (json.dumps({**LINEAR, "terms": [{"when": {"kernel": "k9"}, "ms": 1.0}]}), "which nested does not offer"),
        (json.dumps({**LINEAR, "input_shape": [224, 224, 3]}), r"inputs of \(224, 224, 3\), but .* are \(8, 8, 4\)"),
        ("architecture,latency_ms\n0:0:0\n", "line 2"),
        ("architecture,latency_ms\n0:0:0,1\n0:0:9,1\n", "line 3"),
        ("architecture,latency_ms\n0:0:0,soon\n", "line 2"),
        ("architecture,latency_ms\n\n", "line 2"),
        ("layer,type,choice,coef_ms\n", r"inputs of \(224, 224, 3\)"),
    ],
)
def test_a_file_that_is_no_table_of_the_space_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "table"
    file.write_text(content)
    with pytest.raises(ConfigError, match=expected) as error:
        ask(file, 0, 0, 0)
    assert len(str(error.value)) < 400


@settings(deadline=None)
@given(
    st.sampled_from([b"", b"architecture,latency_ms\n", b"layer,type,choice,coef_ms\n", b'{"schema_version": 1, ']),
    st.binary(max_size=60) | st.text('0123456789:,.-einaf\n"\x00', max_size=60).map(str.encode),
)
def test_no_file_causes_anything_but_a_clear_error(start: bytes, rest: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table"
        file.write_bytes(start + rest)
        with suppress(ConfigError, RunError):
            ask(file, 0, 0, 0)


def test_a_damaged_published_table_is_refused(tmp_path: Path, proxylessnas: NetworkSpace) -> None:
    file = tmp_path / "proxylessnas_search_pixel1_cost_model.csv"
    (tmp_path / "golden.json").write_text('{"bias_ms": 92.1}')
    for rows in (
        "1,bneck\n",
        "x,bneck,mb_k3_e3,1\n",
        "1,bneck,mb_k3_e3,soon\n",
        "1,bneck,mb,1\n",
        '1,"' + "x" * 200_000,
    ):
        file.write_text(f"layer,type,choice,coef_ms\n{rows}")
        with pytest.raises(ConfigError, match="does not hold the published Pixel-1 table"):
            open_table(str(file), proxylessnas)
    (tmp_path / "golden.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="does not hold the published Pixel-1 table"):
        open_table(str(file), proxylessnas)


@pytest.mark.parametrize("file", ["", "missing.json", "."])
def test_a_table_that_cannot_be_read_is_one_clear_error(tmp_path: Path, file: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the latency table"):
        open_table(str(tmp_path / file) if file else "", nested_space())


@needs_data
def test_the_published_table_is_recognised_and_refused_for_other_widths(proxylessnas: NetworkSpace) -> None:
    file = str(TABLE)
    mobile = point(proxylessnas, "proxylessnas-mobile")
    asked = open_table(file, proxylessnas).submit(Candidate(proxylessnas.build(mobile), mobile))
    assert asked.result().latency_ms == pytest.approx(84.4162, abs=5e-5)
    with pytest.raises(ConfigError, match=r"names stem\.filters=32, which proxylessnas does not offer"):
        open_table(file, find_space("proxylessnas")(224, 0.5, 1001, 3))


@needs_data
def test_published_table_gives_the_published_latencies(proxylessnas: NetworkSpace) -> None:
    table = read_tunas_pixel1(TABLE, proxylessnas)
    golden = Architecture(tuple(json.loads((DATA / "tunas_pixel1" / "golden.json").read_text())["golden_73_indices"]))
    assert table.latency_ms(golden) == pytest.approx(84.0167, abs=5e-5)
    assert table.latency_ms(point(proxylessnas, "proxylessnas-mobile")) == pytest.approx(84.4162, abs=5e-5)


@needs_data
def test_published_table_spans_the_published_range(proxylessnas: NetworkSpace) -> None:
    table = read_tunas_pixel1(TABLE, proxylessnas)
    smallest = {
        d.path: ("skip" if d.path.endswith(".op") and len(d.choices) > 1 else d.choices[0])
        for d in proxylessnas.decisions
    }
    largest = {d.path: ("keep" if d.path.endswith(".op") else d.choices[-1]) for d in proxylessnas.decisions}
    assert table.latency_ms(proxylessnas.encode(smallest)) == pytest.approx(30.936, abs=5e-4)
    assert table.latency_ms(proxylessnas.encode(largest)) == pytest.approx(219.091, abs=5e-4)


@needs_data
def test_published_table_has_the_published_mean_under_uniform_sampling(proxylessnas: NetworkSpace) -> None:
    table = read_tunas_pixel1(TABLE, proxylessnas)
    rng = np.random.default_rng(0)
    draws = [table.latency_ms(proxylessnas.sample(rng)) for _ in range(2000)]
    assert np.mean(draws) == pytest.approx(92.606, abs=1.5)
    assert np.std(draws) == pytest.approx(16.9, abs=1.0)
