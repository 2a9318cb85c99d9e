"""The files of models: golden numbers through import and export, and what is wrong with a file said with its place."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from device_agents.api import BenchmarkSpec
from nas_edge.errors import ConfigError
from nas_edge.latency.formats import FORMATS
from nas_edge.latency.model_file import ModelFile, Provenance, SpaceRecord, measuring_of, read_model
from nas_edge.latency.models.blocks import BlockTable
from nas_edge.latency.models.decisions import DecisionModel
from nas_edge.latency.models.operators import OperatorTable
from nas_edge.latency.models.subject import subject_of_architecture
from nas_edge.latency.table import Term, open_table
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import Architecture, NetworkSpace, SearchSpace
from nas_edge.spaces.reference import point
from tests.support.agents import fake_info
from tests.support.data import DATA
from tests.support.devices import observations
from tests.support.spaces import tiny_space

needs_data = pytest.mark.needs("data")
PIXEL1 = DATA / "tunas_pixel1" / "proxylessnas_search_pixel1_cost_model.csv"
INFO, SPEC = fake_info(), BenchmarkSpec(cores=(4, 5))
SPACE = tiny_space(8, 1, 3)


@pytest.fixture(scope="module")
def proxylessnas() -> NetworkSpace:
    return find_space("proxylessnas")(224, 1.0, 1001, 3)


def provenance(space: SearchSpace = SPACE) -> Provenance:
    return Provenance(
        source="fit",
        device="phone",
        fingerprint=INFO.fingerprint,
        runtime="litert 1",
        precision="int8",
        measuring=measuring_of(SPEC),
        space=SpaceRecord.of(space),
    )


def decision_file() -> ModelFile:
    model = DecisionModel(bias_ms=1.0, terms=(Term({"stem.kernel": "k5"}, 0.5),), error=0.01)
    return ModelFile(provenance=provenance(), model=model, half_width=2.0)


def latency_ms(file: ModelFile, space: NetworkSpace, architecture: Architecture) -> float:
    return float(file.model.predict([subject_of_architecture(space, architecture)]).latency_ms[0])


@needs_data
def test_the_published_pixel_1_table_gives_its_golden_latencies_through_import_and_export(
    tmp_path: Path, proxylessnas: NetworkSpace
) -> None:
    golden = json.loads((PIXEL1.parent / "golden.json").read_text())
    imported = tmp_path / "pixel1.latency.json"
    imported.write_text(FORMATS["tunas"].read(PIXEL1).to_text())
    file = read_model(imported)
    file.check_use("pixel1", proxylessnas, "int8")
    for name, text in (FORMATS["tunas"].write or pytest.fail)(file, None).items():
        (tmp_path / (name or "table.csv")).write_text(text)
    again = FORMATS["tunas"].read(tmp_path / "table.csv")
    for one in (file, again):
        unit_test = Architecture(tuple(golden["golden_73_indices"]))
        assert latency_ms(one, proxylessnas, unit_test) == pytest.approx(84.0167, abs=5e-5)
        mobile = point(proxylessnas, "proxylessnas-mobile")
        assert latency_ms(one, proxylessnas, mobile) == pytest.approx(84.4162, abs=5e-5)
        smallest = proxylessnas.encode({d.path: "skip" for d in proxylessnas.decisions if "skip" in d.choices})
        assert latency_ms(one, proxylessnas, smallest) == pytest.approx(30.936, abs=5e-4)
        largest = {d.path: {"k3": "k7", 3: 6}.get(d.choices[0], d.choices[0]) for d in proxylessnas.decisions}
        assert latency_ms(one, proxylessnas, proxylessnas.encode(largest)) == pytest.approx(219.091, abs=5e-4)
    narrow = find_space("proxylessnas")(224, 0.5, 1001, 3)
    with pytest.raises(ConfigError, match=r"names stem\.filters=32, which proxylessnas does not offer"):
        file.check_use("pixel1", narrow, "int8")
    with pytest.raises(ConfigError, match="goes by the decisions of another space: input_shape differ"):
        file.check_use("pixel1", find_space("proxylessnas")(96, 1.0, 1001, 3), "int8")


@needs_data
def test_a_linear_table_is_the_same_through_a_model(tmp_path: Path, proxylessnas: NetworkSpace) -> None:
    file = FORMATS["tunas"].read(PIXEL1)
    (text,) = (FORMATS["linear"].write or pytest.fail)(file, proxylessnas).values()
    (tmp_path / "table.json").write_text(text)
    mobile = point(proxylessnas, "proxylessnas-mobile")
    again = FORMATS["linear"].read(tmp_path / "table.json")
    assert latency_ms(again, proxylessnas, mobile) == pytest.approx(84.4162, abs=5e-5)
    assert open_table(str(tmp_path / "table.json"), proxylessnas).name.startswith("table table.json")


@needs_data
def test_tables_of_blocks_are_imported() -> None:
    single = FORMATS["single-path"].read(DATA / "singlepath_pixel1" / "pixel1_runtime_model.json")
    assert isinstance(single.model, BlockTable)
    raw = json.loads((DATA / "singlepath_pixel1" / "pixel1_runtime_model.json").read_text())
    first = "expanded_conv-input:112x112x16-output:56x56x24-expand:6-kernel:5-stride:2-idskip:0"
    assert single.model.entries[first] == raw["1"]["3"]
    repeated = "expanded_conv-input:56x56x24-output:56x56x24-expand:3-kernel:5-stride:1-idskip:1"
    assert single.model.entries[repeated] == pytest.approx(sum(raw[layer]["2"] for layer in "234") / 3)
    (text,) = (FORMATS["single-path"].write or pytest.fail)(single, None).values()
    assert json.loads(text)["21"] == raw["21"]
    fbnet = FORMATS["fbnet"].read(DATA / "fbnet_ops" / "fbnet_op_latency_delta_pixel3.csv")
    assert isinstance(fbnet.model, BlockTable)
    block = "expanded_conv-input:32x32x16-output:32x32x24-expand:3-kernel:3-stride:1-idskip:0"
    assert fbnet.model.entries[block] == 0.6414929
    assert fbnet.provenance.device == "pixel3"
    assert not any("g2" in key for key in fbnet.model.entries)


@needs_data
def test_a_table_that_has_blocks_alone_adds_a_fixed_time_and_knows_its_own_blocks_only() -> None:
    single = FORMATS["single-path"].read(DATA / "singlepath_pixel1" / "pixel1_runtime_model.json").model
    space = find_space("proxylessnas-enlarged")(224, 1.0, 1001, 3)
    widths = {
        f"block{number}.filters": width
        for number, width in zip(range(1, 8), (16, 24, 40, 80, 96, 192, 320), strict=True)
    }
    inside = subject_of_architecture(space, space.encode({**widths, "stem.filters": 32}))
    outside = subject_of_architecture(space, space.encode({**widths, "stem.filters": 24}))
    assert isinstance(single, BlockTable)
    shifted = single.model_copy(update={"fixed_ms": 10.0})
    found = single.predict([inside, outside]).latency_ms
    raw = json.loads((DATA / "singlepath_pixel1" / "pixel1_runtime_model.json").read_text())
    first = [raw["0"]["0"], raw["0"]["1"]]
    assert found[0] == pytest.approx(sum(first) / 2 + sum(raw[str(layer)]["0"] for layer in range(1, 22)))
    assert shifted.predict([inside]).latency_ms[0] == pytest.approx(found[0] + 10.0)
    assert math.isnan(found[1])


def test_a_table_of_operators_is_written_as_one_of_blocks_which_says_the_same(tmp_path: Path) -> None:
    space = find_space("proxylessnas")(64, 0.25, 10, 3)
    table = OperatorTable.fit(observations(space, 40))
    assert table is not None
    file = ModelFile(provenance=provenance(space), model=table)
    (text,) = (FORMATS["proxylessnas"].write or pytest.fail)(file, space).values()
    (tmp_path / "table.yaml").write_text(text)
    blocks = FORMATS["proxylessnas"].read(tmp_path / "table.yaml").model
    subjects = [one.subject for one in observations(space, 5, seed=3)]
    assert blocks.predict(subjects).latency_ms == pytest.approx(table.predict(subjects).latency_ms)


@pytest.mark.parametrize(
    ("form", "text", "problem"),
    [
        (
            "tunas",
            "layer,type,choice,coef_ms\nx,y,z,1\n",
            "is not the published Pixel-1 table of TuNAS: invalid literal",
        ),
        ("tunas", "layer,type,choice,coef_ms\n", "it has no rows"),
        ("proxylessnas", "a: [", "is not a table of blocks"),
        ("proxylessnas", "Conv-output:1: {mean: 1}", "not a block such as"),
        ("proxylessnas", "Conv-input:1x1x1-output:1x1x1: {median: 1}", "'mean' is missing"),
        ("single-path", '{"0": {', "line 1, column 8"),
        ("single-path", '{"0": {"0": 1}}', "'1' is missing"),
        ("fbnet", "layer,op\n", "expected the columns layer,stage,H,Cin,Cout,stride,op,MS"),
        ("fbnet", "layer,stage,H,Cin,Cout,stride,op,a_ms\n0,0,32,16,16,1,pool,1\n", "line 2: unknown operator 'pool'"),
        ("linear", "{", "is neither a linear table"),
    ],
)
def test_a_damaged_table_says_what_is_wrong(tmp_path: Path, form: str, text: str, problem: str) -> None:
    (tmp_path / "table").write_text(text)
    (tmp_path / "golden.json").write_text('{"bias_ms": 1.0}')
    with pytest.raises(ConfigError, match=problem.replace("(", r"\(")):
        FORMATS[form].read(tmp_path / "table")


def test_a_file_reads_back_and_its_digest_tells_predictions_apart(tmp_path: Path) -> None:
    file = decision_file()
    path = tmp_path / "a.latency.json"
    path.write_text(file.to_text())
    assert read_model(path) == file
    assert read_model(path).digest == file.digest
    other = file.model_copy(update={"half_width": 3.0})
    assert other.digest != file.digest


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text[:40], r"is damaged at line 3, column [0-9]+: "),
        (lambda text: text.replace('"k5"', '"k5"}'), r"is damaged at line [0-9]+, column [0-9]+: "),
        (lambda text: text.replace('"bias_ms": 1.0', '"bias_ms": "much"'), r"is damaged at model.decisions.bias_ms: "),
        (lambda text: text.replace('"ms": 0.5', '"ms": null'), r"is damaged at model.decisions.terms.0.ms: "),
        (
            lambda text: text.replace('"half_width": 2.0', '"half_width": -2'),
            r"is damaged at half_width: .* received -2",
        ),
        (lambda text: text.replace('"kind": "decisions"', '"kind": "guess"'), r"is damaged at model: "),
        (lambda text: text.replace("nas_edge latency model", "something"), "is not a latency model"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 7'), "expected schema 1, received 7"),
        (lambda text: "[]", "is not a latency model"),
    ],
)
def test_a_damaged_file_says_where(tmp_path: Path, change, problem: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.latency.json"
    text = change(decision_file().to_text())
    assert text != decision_file().to_text()
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_model(path)


def test_what_is_no_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the latency model .*: No such file"):
        read_model(tmp_path / "none")
    with pytest.raises(ConfigError, match="not a regular file but a directory"):
        read_model(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not JSON"):
        read_model(tmp_path / "bytes")


@pytest.mark.parametrize(
    ("info", "spec", "problem"),
    [
        (
            replace(INFO, model="another phone"),
            SPEC,
            "is of another device; expected device another phone, received device phone",
        ),
        (
            replace(INFO, runtime_version="2"),
            SPEC,
            "is of another runtime; expected runtime litert 2, received runtime litert 1",
        ),
        (INFO, SPEC.replace(threads=4), "is of another threads; expected threads 4, received threads 1"),
        (INFO, SPEC.replace(cores=(0,)), "is of another cores; expected cores 0, received cores 4,5"),
    ],
)
def test_a_model_of_another_device_or_way_of_measuring_is_refused_with_what_differs(info, spec, problem: str) -> None:  # type: ignore[no-untyped-def]
    file = decision_file()
    file.check_device("a", INFO, SPEC)
    with pytest.raises(ConfigError, match=problem):
        file.check_device("a", info, spec)


def test_a_model_of_another_precision_or_space_is_refused() -> None:
    file = decision_file()
    file.check_use("a", SPACE, "int8")
    with pytest.raises(ConfigError, match="another precision; expected float32, received int8; --precision int8"):
        file.check_use("a", SPACE, "float32")
    with pytest.raises(ConfigError, match="another space: outputs differ; expected tiny of 8x8x1 inputs and 9 outputs"):
        file.check_use("a", tiny_space(8, 1, 9), "int8")


def test_a_model_that_a_format_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="tunas tables have a term per layer of proxylessnas"):
        (FORMATS["tunas"].write or pytest.fail)(decision_file(), None)
    with pytest.raises(ConfigError, match="are written of operator tables, and this model is of the kind decisions"):
        (FORMATS["proxylessnas"].write or pytest.fail)(decision_file(), SPACE)
