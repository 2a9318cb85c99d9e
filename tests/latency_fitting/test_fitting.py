"""Fitting a model to a (made-up) device: the design, resuming, what fails, and the files; also by commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from device_agents.api import BenchmarkSpec, Measurement, Verdict
from nas_edge import cli
from nas_edge.config import load_config
from nas_edge.errors import ConfigError, NasEdgeError, RunError
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.model_file import read_model
from nas_edge.latency.models.operators import OperatorTable
from nas_edge.latency.models.subject import parse_operator
from nas_edge.latency_fitting import fitting, text
from nas_edge.latency_fitting.fitting import FitRequest, adapt_device, fit_device, journal_of
from nas_edge.latency_fitting.isolated import isolated_network
from nas_edge.latency_fitting.page import model_report
from nas_edge.latency_fitting.sampling import Role, Sampler
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.progress import Reporter
from nas_edge.spaces import SPACES, network_space
from nas_edge.spaces.decisions import NetworkSpace
from tests.support.agents import FunctionAgent, fake_info
from tests.support.devices import measure_file, observations
from tests.support.spaces import small_space

SPACE = small_space(12, 3, 5)
ENTRY = network_space(lambda size, width, classes, channels: small_space(size, channels, classes))
Measure = Callable[[bytes, BenchmarkSpec], Measurement]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPACES.entries, "small", ENTRY)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Stands in for the devices that settings name."""

    def use(measure: Measure = measure_file, model: str = "phone") -> None:
        def opened(*_: object) -> DeviceSource:
            return DeviceSource([FunctionAgent(measure, fake_info(model=model))], "int8", BenchmarkSpec())

        monkeypatch.setattr(fitting, "open_devices", opened)

    use()
    return use


def request(networks: int, seed: int = 0) -> FitRequest:
    settings = {"space.name": "small", "space.input_size": 12, "seed": seed}
    return FitRequest(load_config(None, None, settings), 5, None, networks, pool=48)


def nas_edge(*arguments: object) -> tuple[int, str]:
    ended = CliRunner().invoke(cli.nas_edge, [str(one) for one in arguments])
    if ended.exception is not None and not isinstance(ended.exception, (SystemExit, NasEdgeError)):
        raise ended.exception
    return ended.exit_code, f"{ended.output}{ended.exception or ''}"


def test_a_model_is_fitted_and_tested_on_networks_that_it_was_not_fitted_to(tmp_path: Path, device: object) -> None:
    out = tmp_path / "phone.latency.json"
    file = fit_device(request(56), out, Reporter())
    assert read_model(out) == file
    assert not journal_of(out).exists()
    assert len(file.measurements) == 56
    fitted = {one.architecture for one in file.measurements if not one.held_out}
    held_out = {one.architecture for one in file.measurements if one.held_out}
    assert not fitted & held_out
    assert {"macs", file.model.kind} < set(file.accuracy)
    found = file.accuracy[file.model.kind]
    assert found.networks == len(held_out) >= 10
    assert found.mape < min(0.02, file.accuracy["macs"].mape)
    assert file.noise_floor is not None
    assert file.noise_floor.mape == 0.0, "this device repeats itself"
    alone = [one.operator for one in file.isolated]
    assert len(set(alone)) == len(alone) >= 8, "two with each batch, but for the first ones"
    for one in file.isolated:
        assert one.latency_ms == pytest.approx(0.21 + np.prod(parse_operator(one.operator).output) / 4e4)
    # Either is judged by the same networks.
    other = next(name for name in file.accuracy if name.startswith("operators w") or name == "operators and isolated")
    assert file.accuracy[other].networks == found.networks
    summary = dict(text.summary_rows(file))
    assert summary["operators alone"].startswith(f"{len(alone)} measured, {len(alone)} reliably; ")
    assert {row[2] for row in text.isolated_rows(file)[1:]} <= set(alone)
    assert "isolated" in {section.key for section in model_report("phone", file, None).sections}
    told = file.provenance
    assert (told.device, told.runtime, told.precision) == ("phone", "litert 1", "int8")
    assert told.space is not None
    assert (told.space.name, told.space.input_shape, told.space.outputs) == ("small", (12, 12, 3), 5)
    with pytest.raises(RunError, match="exists already"):
        fit_device(request(8), out, Reporter())


def test_a_fit_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path, device: Callable[..., None]) -> None:
    whole = fit_device(request(32), tmp_path / "whole.latency.json", Reporter())
    out = tmp_path / "killed.latency.json"
    with pytest.raises(ConfigError, match="too few networks"):
        fit_device(request(8), out, Reporter())
    journal = journal_of(out)
    content = journal.read_bytes()
    journal.write_bytes(content[:-25])  # as a kill leaves it, in the midst of a record
    known = json.loads(content.splitlines()[2])["record"]
    asked: list[bytes] = []

    def counted(model: bytes, spec: BenchmarkSpec) -> Measurement:
        asked.append(model)
        return measure_file(model, spec)

    device(counted)
    file = fit_device(request(32), out, Reporter())
    assert [one.architecture for one in file.measurements] == [one.architecture for one in whole.measurements]
    assert file.model == whole.model
    assert file.isolated == whole.isolated != ()
    assert tflite_model(SPACE.decode(SPACE.parse(known["architecture"])), "int8") not in asked, "it was measured before"


def test_measurements_of_something_else_are_not_continued(tmp_path: Path, device: Callable[..., None]) -> None:
    out = tmp_path / "a.latency.json"
    with pytest.raises(ConfigError, match="too few networks"):
        fit_device(request(8), out, Reporter())
    assert journal_of(out).exists(), "more of them may be measured"
    device(model="another phone")
    with pytest.raises(RunError, match="other settings, or on another device"):
        fit_device(request(8), out, Reporter())


def test_a_network_that_fails_is_recorded_and_does_not_end_the_fit(tmp_path: Path, device: Callable[..., None]) -> None:
    def sometimes(model: bytes, spec: BenchmarkSpec) -> Measurement:
        if len(model) % 3 == 0:
            return Measurement(Verdict.OUT_OF_MEMORY, "injected by the test")
        return measure_file(model, spec)

    device(sometimes)
    file = fit_device(request(56), tmp_path / "a.latency.json", Reporter())
    failed = [one for one in file.measurements if one.verdict == "out_of_memory"]
    assert 0 < len(failed) < 56
    assert all(one.latency_ms is None for one in failed)
    assert file.accuracy[file.model.kind].networks < sum(one.held_out for one in file.measurements)


def test_the_design_follows_from_the_seed_and_picks_what_is_least_known() -> None:
    def picked(seed: int, space: NetworkSpace = SPACE) -> list[list[str]]:
        sampler, seen = Sampler(space, seed, pool=64), observations(space, 30)
        return [[f"{pick.role} {pick.architecture}" for pick in sampler.batch(seen)] for _ in range(6)]

    assert picked(0) == picked(0) != picked(1)
    sampler = Sampler(SPACE, 0, pool=64)
    first = [pick for pick in sampler.batch(()) if pick.role is Role.FITTED]
    macs = [subject.macs for subject in sampler.population]
    extremes = {min(macs), max(macs)}
    assert extremes <= {sampler.subject(pick.architecture).macs for pick in first}
    seen = observations(SPACE, 30)
    for _ in range(3):
        sampler.batch(seen)
    table = OperatorTable.fit(seen)
    assert table is not None

    def rarity(architecture) -> float:  # type: ignore[no-untyped-def]
        """Share of operators that none of the networks chosen before has."""
        chosen = [sampler._pool[place] for place in before]
        known = {one for each in chosen for one in sampler.subject(each).sequence or ()}
        sequence = sampler.subject(architecture).sequence or ()
        return sum(one not in known for one in sequence) / len(sequence)

    before = list(sampler._chosen)
    least_known = [sampler._pool[place] for place in sampler._least_known(3, seen)]
    others = [one for place, one in enumerate(sampler._pool) if place not in before]
    assert np.mean([rarity(one) for one in least_known]) > np.mean([rarity(one) for one in others])


def test_operators_are_measured_on_their_own_where_that_tells_most() -> None:
    sampler, seen = Sampler(SPACE, 0, pool=32), observations(SPACE, 30)
    assert sampler.isolated(2, seen[:5]) == [], "nothing is known to go by"
    sampler.fitted(5, seen)
    before = sampler._known(seen)
    picked = sampler.isolated(3, seen)
    assert len(set(picked)) == 3
    assert all(isolated_network(operator) is not None for operator in picked)
    after = sampler._known(seen)
    assert np.trace(after.covariance) < np.trace(before.covariance)
    able = [gain for operator, gain in zip(before.operators, before.gains, strict=True) if isolated_network(operator)]
    assert before.gains[before.operators.index(picked[0])] == max(able)
    assert not set(picked) & set(sampler.isolated(3, seen))


def test_networks_are_held_out_without_any_to_fit_to() -> None:
    sampler = Sampler(SPACE, 0, pool=8)
    while sampler.batch(()):
        pass
    picks = sampler.batch((), fit=False) + sampler.batch((), fit=False)
    assert [pick.role for pick in picks].count(Role.HELD_OUT) == 4
    assert Role.FITTED not in {pick.role for pick in picks}
    assert not {pick.architecture for pick in picks} & set(sampler._pool)


def test_a_model_is_brought_to_a_slower_device_by_ten_measurements(tmp_path: Path, device: Callable[..., None]) -> None:
    first, second = tmp_path / "first.latency.json", tmp_path / "second.latency.json"
    fit_device(request(56), first, Reporter())

    def slower(model: bytes, spec: BenchmarkSpec) -> Measurement:
        (latency_ms, *_) = measure_file(model, spec).samples_ms
        return Measurement(Verdict.OK, samples_ms=(2.0 * latency_ms + 0.3,) * 20)

    device(slower, "slow phone")
    file = adapt_device(first, request(10), second, Reporter())
    assert read_model(second) == file
    assert len(file.measurements) == 10
    assert file.provenance.device == "slow phone"
    assert file.provenance.note.startswith("adapted from first.latency.json (sha256 ")
    assert file.accuracy["source as it was"].mape > 0.4
    asked = [one.subject for one in observations(SPACE, 20, seed=9)]
    truth = 2.0 * read_model(first).model.predict(asked).latency_ms + 0.3
    np.testing.assert_allclose(file.model.predict(asked).latency_ms, truth, rtol=0.1)
    with pytest.raises(ConfigError, match="is an adapted model itself"):
        adapt_device(second, request(10), tmp_path / "third.latency.json", Reporter())


def test_the_commands(tmp_path: Path, device: Callable[..., None]) -> None:
    first, second = tmp_path / "first.latency.json", tmp_path / "second.latency.json"
    of_small = ("--space", "small", "--input-size", 12, "--classes", 5)
    code, out = nas_edge("latency", "fit", *of_small, "--networks", 40, "--out", first)
    assert code == 0, out
    assert "small, inputs 12x12x3, 5 outputs" in out
    assert "MAPE" in out
    assert f"nas-edge search --latency model:{first}" in out
    page = tmp_path / "first.html"
    code, out = nas_edge("latency", "show", first, "--out", page)
    assert code == 0, out
    shown = model_report("first", read_model(first), SPACE)
    assert {"prediction", "parts", "layers", "choices"} < {section.key for section in shown.sections}
    assert {plot.name for section in shown.sections for plot in section.plots} == {"prediction", "parts", "layers"}
    assert "default-src 'none'" in page.read_text()
    assert nas_edge("latency", "show", first, "--out", page)[0] == 2
    assert "PREDICTED, MS" in out
    assert "block2.layer1.kernel" in out
    device(model="another phone")
    code, out = nas_edge("latency", "adapt", first, "--out", second)
    assert code == 0, out
    code, out = nas_edge("latency", "compare", first, second)
    assert code == 0, out
    assert "rank correlation" in out
    assert "device differs" in out
    assert "phone / another phone" in out
    for arguments, problem in (
        (("fit", "--space", "small", "--budget", "soon", "--out", tmp_path / "x"), "--budget expects a time"),
        (("fit", "--out", tmp_path / "x"), "--space is missing"),
        (("fit", "--run", "runs/a", "--space", "small", "--out", tmp_path / "x"), "leave out --space"),
        (("show", tmp_path / "none"), "cannot read the latency model"),
        (("import", first, "--format", "guess", "--out", tmp_path / "x"), "unknown format of latency tables 'guess'"),
        (("export", first, "--format", "fbnet", "--out", tmp_path / "x"), "are read, and not written"),
        (("fit", *of_small, "--out", first), "exists already"),
    ):
        code, out = nas_edge("latency", *arguments)
        assert code != 0
        assert problem in out
    assert not (tmp_path / "x").exists()
