"""Settings: one shape, many sources, one clear line for what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas_edge.config import PRESETS, MeasuringConfig, RunConfig, describe_settings, load_config
from nas_edge.errors import ConfigError
from nas_edge.rewards import Objective
from nas_edge.search.one_shot import OneShotSettings
from nas_edge.training.schedules import cosine_with_warmup


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid(preset: str) -> None:
    assert load_config(preset).space.name


def test_later_sources_override_earlier_ones_setting_by_setting(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("search: {steps: 11, samples_per_step: 4}\nseed: 1\n")
    config = load_config(
        "smoke", file, {"seed": 2, "search.controller.temperature": None}, ["search.samples_per_step=5"]
    )
    assert config.search.steps == 11
    assert config.search.samples_per_step == 5
    assert config.seed == 2
    assert config.search.model_dump()["controller"]["temperature"] == 1.0
    assert config.search.model_dump()["weights"]["batch_size"] == 64, "what the preset alone sets is kept"


@pytest.mark.parametrize(
    "text",
    [
        "search.steps: 7\nsearch.weights.batch_size: 32\nspace.name: mobilenet-v3-like",
        "search: {steps: 7, weights.batch_size: 32}\nspace: mobilenet-v3-like",
        "search.weights: {batch_size: 32}\nsearch: {steps: 7}\nspace: {name: mobilenet-v3-like}",
        '{"search.steps": 7, "search": {"weights.batch_size": 32}, "space": "mobilenet-v3-like"}',
    ],
)
def test_names_in_a_file_may_be_dotted_on_any_level(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    from_python: dict[str, Any] = yaml.safe_load(text)
    for config in (load_config("smoke", file), load_config("smoke", flags=from_python)):
        assert config.search.steps == 7
        assert config.search.model_dump()["weights"]["batch_size"] == 32
        assert config.space.name == "mobilenet-v3-like"


@pytest.mark.parametrize(
    "text", ["search.steps: 7\nsearch: {steps: 8}", "search: {weights.epochs: 1, weights: {epochs: 1}}"]
)
def test_a_setting_given_twice_in_a_file_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(
        ConfigError, match=r"settings.yaml: search\.(steps|weights\.epochs) is given twice; give it once"
    ):
        load_config(file=file)


def test_what_was_given_is_never_suggested() -> None:
    for near in ("search.stepz", "search.controler.temperature", "steps", "search.weights.steps"):
        with pytest.raises(ConfigError, match="unknown setting") as refusal:
            load_config(settings=[f"{near}=2"])
        _, _, suggested = str(refusal.value).partition("did you mean ")
        assert near not in suggested.partition("?")[0].split(" or ")


def test_a_run_configuration_can_be_read_back(tmp_path: Path) -> None:
    config = load_config("demo", settings=["target.objectives=[{resource: macs, target: 1000000}]"])
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    assert load_config(file=file) == config


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("search.steps=many", "search.steps"),
        ("search.steps=0", "greater than or equal to 1; received 0"),
        ("target.latency_ms=.nan", "target.latency_ms"),
        ("target.latency_ms=.inf", "target.latency_ms"),
        ("target.limit=soft", "'hard' or 'none'"),
        ("space.name=x", "proxylessnas"),
        ("space.reference=x", "mobilenet-v2"),
        ("measure.preset=slow", "rapid"),
        ("measure.max_runs=0", "measure: max_runs must be a whole number from 1"),
        ("final_measure.min_runs=2000000", "final_measure: min_runs must not be above max_runs"),
        ("device.addresses=[]", "device.addresses"),
        ("device.addresses=3", "device.addresses.0"),
        ("search.filter_warmup_fraction=0.5", "delay_fraction"),
        (
            "target.objectives=[{resource: joules, target: 1}]",
            "target.objectives.0: expected one of the resources latency_ms, macs",
        ),
        ("colour=blue", "unknown setting 'colour'"),
        ("search={", "search"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_expected(setting: str, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("smoke", settings=[setting])
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["- a\n- list\n", "{", "\x00", "just words"])
def test_a_file_that_is_no_configuration_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"settings\.yaml"):
        load_config(file=file)


@pytest.mark.parametrize(
    ("given", "addresses"),
    [
        ("host:", ("host:",)),
        ("adb:", ("adb:",)),
        ("adb:0123AB", ("adb:0123AB",)),
        ("adb://10.0.0.7:5555", ("adb://10.0.0.7:5555",)),
        ("[adb:A, host:]", ("adb:A", "host:")),
        ("replay:times.json", ("replay:times.json",)),
    ],
)
def test_device_addresses_need_no_quotes(given: str, addresses: tuple[str, ...]) -> None:
    assert load_config(settings=[f"device.addresses={given}"]).device.addresses == addresses


def test_every_setting_of_measuring_has_a_meaning() -> None:
    lines = [line for line in describe_settings(RunConfig()).splitlines() if "measure." in line]
    assert len(lines) == 2 * len(MeasuringConfig.model_fields)  # measure and final_measure
    assert all("  # " in line for line in lines)


def test_settings_are_listed_so_that_they_can_be_given_back() -> None:
    objectives = "[{resource: macs, target: 1000000}, {resource: parameters, target: 10000}]"
    config = load_config("demo", settings=[f"target.objectives={objectives}"])
    lines = [line.partition("  #")[0] for line in describe_settings(config).splitlines()]
    assert load_config(settings=lines) == config


def test_the_preset_full_has_the_published_numbers() -> None:
    config = load_config("full")
    search, data = config.search, config.data
    assert isinstance(search, OneShotSettings)
    assert search.weight_updates == "averaged"
    assert (search.steps, search.samples_per_step, search.delay_steps) == (27_050, 32, 6_762)
    assert search.evaluated == 649_216
    assert search.steps * search.updates_per_step == 27_050
    assert search.peak_learning_rate == pytest.approx(2.64)
    images = 1_281_167 - (data.validation_images or 0)
    assert images == 1_231_121
    per_step = search.samples_per_step * search.weights.batch_size
    assert int(90 * images / per_step) == search.steps
    assert search.samples_per_step * search.validation_batch_size == 16_384
    controller = search.controller.model_dump()
    assert (controller["learning_rate"], controller["baseline"]) == (0.0048, "before")
    assert config.training.method == "published-a"


def test_presets_for_few_images_average_the_weights_and_fine_tuning_has_lower_rates() -> None:
    names = ("laptop", "few-images", "fine-tuning")
    laptop, few, tuned = (load_config(name, flags={"data.source": "photos/"}) for name in names)
    assert (laptop.training.ema_decay, few.training.ema_decay, tuned.training.ema_decay) == (None, 0.98, 0.98)
    assert tuned.training.learning_rate < few.training.learning_rate == laptop.training.learning_rate
    assert tuned.search.weights.learning_rate < few.search.weights.learning_rate
    assert few.data.augmentation.randaugment > laptop.data.augmentation.randaugment
    assert few.data.augmentation.crop_area == laptop.data.augmentation.crop_area < 1
    assert few.search == laptop.search


@pytest.mark.parametrize("method", ["standard", "published-a", "published-b"])
def test_trainings_of_other_defaults_are_held_to_the_same_limits(method: str) -> None:
    for setting in ("epochs=-1", "batches_per_step=0", "images=test", "dropout_from_epochs=-1"):
        with pytest.raises(ConfigError, match=setting.partition("=")[0]):
            load_config("smoke", settings=[f"training.method={method}", f"training.{setting}"])
    listed = describe_settings(load_config("smoke", settings=[f"training.method={method}"]))
    assert "training.epochs=8.0  # passes over" in listed


def test_training_for_no_epochs_is_for_shared_weights() -> None:
    with pytest.raises(ConfigError, match=r"export\.weights=shared"):
        load_config("smoke", settings=["training.epochs=0"])
    assert load_config("smoke", settings=["training.epochs=0", "export.weights=shared"]).training.steps(1000) == 0


def test_defaults_are_the_published_ones() -> None:
    search = RunConfig().search
    assert (search.steps, search.delay_steps) == (27_050, 6_762)
    assert cosine_with_warmup(676, 2.64, 27_050, 676) == pytest.approx(2.64)
    assert RunConfig().training.weight_decay == 4e-5


def test_limits_of_resources_are_settings_and_energy_asks_the_device_for_itself() -> None:
    config = load_config("demo", settings=["target.limits={file_size_bytes: 90000}", "target.beta=-0.3"])
    assert config.target.resource_limits == (Objective("file_size_bytes", 90000, -0.3, limit=True),)
    assert not config.device.energy
    asked = load_config("demo", settings=["target.objectives=[{resource: energy_mj, target: 2}]"])
    assert asked.device.energy
    assert asked.measure.spec(asked.device).energy
    assert load_config(settings=["seed=1"], base=asked).device.energy


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["target.limits={joules: 1}"], "target.limits: expected one of the resources latency_ms, macs"),
        (["target.limits={latency_ms: 5}"], "target.limits: latency_ms is limited by target.latency_ms"),
        (["target.limits={macs: 0}"], "target.limits.macs: input should be greater than 0"),
        (
            ["target.limits={energy_mj: 1}", "latency=model:x.json", "target.latency_ms=1"],
            "energy_mj is measured together with the latency, but --latency model:x.json does not",
        ),
        (["target.limits={resident_memory_bytes: 1}", "latency=hybrid"], "but --latency hybrid does not"),
        (
            ["target.objectives=[{resource: relative_area, target: 1}]"],
            "relative_area is not reported by --latency device",
        ),
    ],
)
def test_a_resource_that_cannot_be_had_is_refused(settings: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        load_config("demo", settings=settings)
