"""What `--hardware` changes in a run: the space, the network that is compared, and what may be delivered."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from nas_edge.config import RunConfig, load_config
from nas_edge.errors import ConfigError, ExportError
from nas_edge.hardware import HARDWARE
from nas_edge.hardware.edgetpu import COMPILED_FILE, MAPPING_FILE
from nas_edge.hardware.gate import check_file
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.progress import Reporter
from nas_edge.report import result_text, sections
from nas_edge.runs.result import ResultRow, RunResult
from nas_edge.spaces.decisions import Architecture, NetworkSpace
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import load_data, make_space, open_task, published_network
from nas_edge.stages.delivering import TrainedModel, convert
from nas_edge.tasks.base import NetworkTask, TaskData
from nas_edge.tasks.classification import ACCURACY
from tests.support.edgetpu import install_compiler
from tests.support.spaces import small_space, tiny_space

SPACE = ("space.name=mobilenet-v3-like", "space.width_multiplier=0.25", "space.input_size=16")


def configured(*settings: str) -> RunConfig:
    return load_config("smoke", settings=(*SPACE, *settings))


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return configured("export.hardware=edgetpu")


@pytest.fixture(scope="module")
def data(config: RunConfig) -> TaskData:
    data = load_data(config, open_task(config), Reporter(Console(quiet=True)))
    assert data is not None
    return data


def converted(config: RunConfig, data: TaskData, network: NetworkSpec) -> TrainedModel:
    task = open_task(config)
    assert isinstance(task, NetworkTask)
    contender = Contender("winner", "0", None, network)
    return convert(config, task, data, contender, get_weights(keras_model(network), network))


def first_network(space: NetworkSpace) -> NetworkSpec:
    return space.decode(Architecture((0,) * len(space.decisions)))


# As small as they may be, since each is converted several times.
RUNS_THERE, DOES_NOT = first_network(tiny_space(16, 1, 10)), first_network(small_space(16, 1, 10))


def test_the_space_is_searched_without_what_cannot_run(config: RunConfig, data: TaskData) -> None:
    said: list[str] = []
    space = make_space(config, open_task(config), data, said.append)
    assert said == ["mobilenet-v3-like for edgetpu: without se (20 decisions), relu in place of hard_swish (52 layers)"]
    assert space.decisions[space.index["block1.layer1.se"]].choices == ("none",)


def test_the_network_that_is_compared_is_changed_alike(config: RunConfig, data: TaskData) -> None:
    edgetpu = HARDWARE["edgetpu"]
    for named, passes in ((config, True), (configured(), False)):
        network = published_network(named, open_task(named), data)
        assert network is not None
        assert check_file(tflite_model(network, "int8"), edgetpu).passed == passes


def test_what_is_delivered_was_checked_and_says_so(config: RunConfig, data: TaskData) -> None:
    model = converted(config, data, RUNS_THERE)
    check = model.hardware_check
    assert check is not None
    assert check.passed
    assert replace(check, note="") == check_file(model.files["int8"], HARDWARE["edgetpu"])
    rows = (ResultRow("winner", "0", 0.5, {}, {}),)
    result = RunResult(1.0, "int8", True, rows, "phone", hardware_check=check)
    table = result_text.table(result, Path("run"), ACCURACY)
    assert f"int8 file checked for edgetpu: {check.operators} operators, all within its profile" in table


@pytest.mark.parametrize(("log", "files"), [("whole", {COMPILED_FILE, MAPPING_FILE}), ("large", {MAPPING_FILE})])
def test_a_file_for_the_edge_tpu_is_compiled_too(
    config: RunConfig, data: TaskData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: str, files: set[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    install_compiler(monkeypatch, tmp_path, log)
    model = converted(config, data, RUNS_THERE)
    assert set(model.hardware_files) == files
    mapping = json.loads(model.hardware_files[MAPPING_FILE])
    assert mapping["is_whole"] == (log == "whole")
    says = "all operators run on the Edge TPU" if log == "whole" else "due to large activation tensors in model"
    assert says in str(model.hardware_check)


def test_without_a_compiler_it_is_said_how_to_get_it(
    config: RunConfig, data: TaskData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    model = converted(config, data, RUNS_THERE)
    assert model.hardware_files == {}
    assert "edgetpu_compiler is not on PATH; install the package edgetpu-compiler" in str(model.hardware_check)


def test_a_file_that_cannot_run_there_is_not_delivered(config: RunConfig, data: TaskData) -> None:
    anywhere = configured()
    with pytest.raises(ExportError, match=r"not for edgetpu: .*: HARD_SWISH: the operator is not supported"):
        converted(config, data, DOES_NOT)
    assert converted(anywhere, data, DOES_NOT).hardware_check is None


def test_float_is_refused_where_only_int8_runs() -> None:
    with pytest.raises(ConfigError, match="edgetpu runs int8 files only"):
        configured("export.hardware=edgetpu", "export.precision=float32")
    with pytest.raises(ConfigError, match="expected one of cpu, gpu, edgetpu, nnapi"):
        configured("export.hardware=tpu")


def test_a_report_reads_architectures_as_the_search_wrote_them(config: RunConfig, data: TaskData) -> None:
    """In a fitted space a decision has fewer choices, so the same numbers mean other layers."""
    space = make_space(config, open_task(config), data)
    facts = SimpleNamespace(config=config, ends=(1, 10), trials=())
    read = sections._space(facts)  # type: ignore[arg-type] # all that it looks at
    assert read is not None
    assert [decision.choices for decision in read.decisions] == [decision.choices for decision in space.decisions]
