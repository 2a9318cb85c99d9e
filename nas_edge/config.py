"""Every setting of a run, in one place.

A `RunConfig` is composed of frozen parts. It is built from, each overriding the one before: defaults, a preset, a
YAML or JSON file, command-line flags, and `--set path=value`. All of it is validated here, before anything heavy is
imported. The defaults are those of TuNAS (reference code, `mobile_architecture_search.py`) where it has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from device_agents.api import PRESETS as MEASURING_PRESETS
from device_agents.api import BenchmarkSpec, Delegate, parse_cores
from device_agents.errors import SpecError, in_one_line
from device_agents.schemes import SCHEMES
from nas_edge.controllers import CONTROLLERS
from nas_edge.data.settings import PHOTOGRAPHS, DataSettings
from nas_edge.errors import ConfigError, NasEdgeError
from nas_edge.hardware import HARDWARE, Hardware
from nas_edge.hardware.gate import listed
from nas_edge.hardware.npu import VENDORS, check_target
from nas_edge.joint import JOINTS, JointSettings
from nas_edge.latency import LATENCY_SOURCES, LatencySettings
from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.quality import QUALITY_SOURCES
from nas_edge.registry import Registry, setting_path
from nas_edge.resources import LATENCY, RESOURCES, check_resource
from nas_edge.rewards import Objective
from nas_edge.search.finalists import FinalistsSettings
from nas_edge.search.methods import METHODS
from nas_edge.search.settings import SearchSettings
from nas_edge.settings import Settings, one_of
from nas_edge.spaces import SPACES, NetworkSpaceSettings, SpaceSettings
from nas_edge.tasks import TASKS, TaskSettings
from nas_edge.training.methods import TRAINING_METHODS, TrainingSettings


class DeviceConfig(Settings):
    """Where networks are timed."""

    addresses: tuple[str, ...] = Field(
        ("host:",), min_length=1, description="interchangeable devices, or with targets devices of several models"
    )
    targets: tuple[str, ...] = Field(
        (), description="ADDRESS=MS: the latency to meet on each device, in place of target.latency_ms"
    )
    threads: int = Field(1, description="threads of the TFLite runtime")
    cores: str | None = Field(None, description="big, little, ids (4-7) or a mask ('0xf0'); by default it chooses")
    delegate: str = Field("cpu", description="cpu, none; on phones also gpu, nnapi, external:LIBRARY[,KEY=VALUE...]")
    energy: bool = Field(
        False, description="also measure the energy per inference; an objective or limit of energy_mj turns it on"
    )
    timing_inputs: int = Field(
        8,
        ge=0,
        le=64,
        description="validation examples that networks are timed on, in turns; 0 for random values, as on phones",
    )
    require_delegate: bool = Field(False, description="fail candidates of which the delegate takes no operator")
    require_cool: bool = Field(False, description="refuse a phone that does not say that it is cool")
    require_charged: bool = Field(False, description="refuse a phone that is not plugged in and well charged")

    @field_validator("addresses", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return tuple(map(_address, given)) if isinstance(given, (list, tuple)) else (_address(given),)

    @field_validator("targets", mode="before")
    @classmethod
    def _one_or_several_targets(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _targets_fit(self) -> DeviceConfig:
        if not self.targets:
            return self
        named: set[str] = set()
        for text in self.targets:
            address, _ = _device_target(text)
            if address not in self.addresses:
                raise ValueError(
                    f"a target is given for {address}, which is none of the devices; name it with --device"
                )
            if address in named:
                raise ValueError(f"two targets are given for {address}; give one")
            named.add(address)
        if missing := [address for address in self.addresses if address not in named]:
            raise ValueError(f"there is no target for {missing[0]}; add --device-target {missing[0]}=MS")
        return self

    @property
    def targets_ms(self) -> dict[str, float]:
        """The latency to meet by address, in the order of the devices; empty where all have the same."""
        known = dict(map(_device_target, self.targets))
        return {address: known[address] for address in self.addresses if known}

    @field_validator("threads", "cores", "delegate")
    @classmethod
    def _fits(cls, given: Any, info: ValidationInfo) -> Any:
        checks: dict[str | None, Callable[[Any], object]] = {
            "threads": lambda count: BenchmarkSpec(threads=count),
            "cores": parse_cores,
            "delegate": Delegate.parse,
        }
        try:
            if given is not None:
                checks[info.field_name](given)
        except SpecError as error:
            raise ValueError(in_one_line(error.what, error.expected)) from None  # what was received follows
        return given


def _device_target(text: str) -> tuple[str, float]:
    """Address and latency of `ADDRESS=MS`; an address may itself contain equals signs.

    Raises:
        ValueError: when it is something else.
    """
    address, separator, number = text.rpartition("=")
    try:
        target_ms = float(number)
    except ValueError:
        target_ms = math.nan
    if not separator or not address or not 0 < target_ms < math.inf:
        raise ValueError(f"expected ADDRESS=MS, for example ssh://pi=5, received {text!r}")
    return str(_address(address)), target_ms


def _address(given: Any) -> Any:
    """An address as it was meant: YAML takes `host:` for a mapping without a value; a scheme alone is short for it."""
    if isinstance(given, Mapping) and list(given.values()) == [None]:
        return f"{next(iter(given))}:"
    return f"{given}:" if given in SCHEMES else given


# So that settings of runs from before there were visits are read.
_IN_ONE_GO = "of models measured in one go, as earlier versions did; of no effect on visits"


class MeasuringConfig(Settings):
    """How one model is timed: a preset and what differs from it."""

    preset: Annotated[str, one_of(MEASURING_PRESETS)] = Field(
        "search", description=f"{', '.join(MEASURING_PRESETS)}: for those below that are null"
    )
    min_runs: int | None = Field(None, description="fewest timed runs")
    max_runs: int | None = Field(None, description="most timed runs")
    min_duration_s: float | None = Field(None, description="shortest time spent in timed runs, seconds")
    max_duration_s: float | None = Field(None, description="time in timed runs, seconds, after which no more follow")
    max_relative_half_width: float | None = Field(
        None, description="relative difference within which the least disturbed visits have to agree"
    )
    max_risk: float | None = Field(
        None, description="accepted probability that all visits were disturbed, as far as probes tell; 1 asks no probe"
    )
    target_relative_half_width: float | None = Field(None, description=_IN_ONE_GO)
    max_wait_share: float | None = Field(None, description=_IN_ONE_GO)
    max_shift: float | None = Field(None, description=_IN_ONE_GO)
    min_clock_ratio: float | None = Field(None, description="clock after timing, over before, below which: throttled")
    max_attempts: int | None = Field(None, description=_IN_ONE_GO)
    patience_s: float | None = Field(
        None, description="how long to wait for a device that other programs keep busy to be quiet again, seconds"
    )
    timeout_s: float | None = Field(None, description="limit of one attempt, loading included, seconds")
    memory_limit_bytes: int | None = Field(None, description="memory a model may take, bytes")

    @model_validator(mode="after")
    def _fits(self) -> MeasuringConfig:
        try:
            self.spec(DeviceConfig())
        except SpecError as error:
            raise ValueError(str(error)) from None
        return self

    def spec(self, device: DeviceConfig) -> BenchmarkSpec:
        """The settings the device agent takes; which cores `device.cores` means, it has to be asked."""
        changes = {name: value for name, value in self.model_dump(exclude={"preset"}).items() if value is not None}
        return MEASURING_PRESETS[self.preset].replace(
            **device.model_dump(exclude={"addresses", "targets", "cores", "timing_inputs"}), **changes
        )


def _of_a_resource(objective: Objective) -> Objective:
    check_resource(objective.resource)
    return objective


class TargetConfig(Settings):
    """What is asked of the winner."""

    latency_ms: float | None = Field(
        None, gt=0, description="latency to aim at; None takes the reference network's, measured on the device"
    )
    reference_share: float = Field(1.0, gt=0, le=10, description="the share of that latency, when latency_ms is None")
    beta: float = Field(-0.1, lt=0, description="what missing the target costs, in quality per 100%")
    in_reward: bool = Field(
        True, description="whether missing the target costs reward; if not, latency counts in the selection alone"
    )
    limit: Literal["hard", "none"] = Field("hard", description="whether the winner may not exceed the target")
    margin: float | None = Field(
        None,
        ge=0,
        lt=0.5,
        description="share of a hard limit that a candidate must stay below; None: as its interval calls for",
    )
    objectives: tuple[Annotated[Objective, AfterValidator(_of_a_resource)], ...] = Field(
        (), description=f"targets for other resources: {', '.join(RESOURCES)}"
    )
    limits: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="largest allowed values of other resources, by name; hard, and in the reward with target.beta"
    )

    @field_validator("limits")
    @classmethod
    def _of_resources(cls, given: dict[str, float]) -> dict[str, float]:
        for name in given:
            check_resource(name)
            if RESOURCES[name] is LATENCY:
                raise ValueError(f"{name} is limited by target.latency_ms (--target-ms) and target.limit")
        return given

    @property
    def of_resources(self) -> tuple[Objective, ...]:
        """The objectives beside the latency, limits included."""
        limits = (Objective(name, most, self.beta, limit=True) for name, most in self.limits.items())
        return (*self.objectives, *limits)

    @property
    def resource_limits(self) -> tuple[Objective, ...]:
        """The limits of other resources."""
        return tuple(objective for objective in self.of_resources if objective.limit)


class ExportConfig(Settings):
    """What is delivered."""

    precision: Annotated[Precision, one_of(PRECISIONS)] = Field(
        "int8", description=f"what is measured in the search and delivered: {', '.join(PRECISIONS)}"
    )
    representative_images: int = Field(
        256, ge=1, description="training images, of every class alike, that ranges of activations are taken from"
    )
    quantization: Literal["post-training", "aware", "auto"] = Field(
        "post-training",
        description="int8 from the weights as trained, from weights tuned with its roundings, or the latter only where "
        "the former loses more than accuracy_budget",
    )
    accuracy_budget: float = Field(
        0.01, ge=0, description="what quantisation may cost, in the task's metric, on validation images"
    )
    aware_share: float = Field(
        0.2, gt=0, le=1, description="epochs of the tuning of quantization=aware, as a share of training.epochs"
    )
    mixed_layers: int = Field(
        0,
        ge=0,
        le=1000,
        description="layers with the most quantisation noise that stay float32 in a further file, to say what that "
        "gains and costs; 0: none",
    )
    aware_rate: float = Field(0.1, gt=0, description="its learning rate, as a share of training.learning_rate")
    weights: Literal["scratch", "shared"] = Field("scratch", description="where the winner's training starts")
    device_test_s: float = Field(
        30.0,
        ge=0,
        description="seconds for which each delivered file is tested on another device than this machine, on a random "
        "sample of the test images, or all if there is time; 0: not",
    )
    license: str = Field("", description="SPDX identifier of the licence you deliver the model under, for its card")
    compare: bool = Field(True, description="also train the reference network and the best random architecture")
    hardware: Annotated[str | None, one_of(HARDWARE)] = Field(
        None, description=f"what has to run it, {', '.join(HARDWARE)}: the space is searched without what it cannot run"
    )

    npu: tuple[str, ...] = Field(
        (),
        description=f"VENDOR:SOC of NPUs that the delivered file is also compiled for, by vendors' packages; vendors: "
        f"{', '.join(VENDORS)}",
    )

    @property
    def profile(self) -> Hardware | None:
        """Of that hardware, if any is named."""
        return None if self.hardware is None else HARDWARE[self.hardware]

    @model_validator(mode="after")
    def _runs_there(self) -> ExportConfig:
        if self.hardware and self.precision not in HARDWARE[self.hardware].precisions:
            raise ValueError(
                f"{self.hardware} runs {listed(HARDWARE[self.hardware].precisions)} files only; leave out "
                f"export.precision={self.precision}"
            )
        if self.mixed_layers and (self.precision, self.quantization) != ("int8", "post-training"):
            raise ValueError(
                "mixed_layers leaves layers of an int8 file that is quantised after training in float32; "
                f"export.precision is {self.precision}, export.quantization {self.quantization}"
            )
        for target in self.npu:
            check_target(target)
        if self.quantization == "aware" and PRECISIONS[self.precision].activations != "int8":
            raise ValueError(f"quantization=aware trains for int8 activations; export.precision is {self.precision}")
        return self


class RunsConfig(Settings):
    """The run folder."""

    checkpoint_steps: int = Field(
        100, ge=1, description="search steps between checkpoints; what a power cut or kill may cost, in training time"
    )
    deterministic: bool = Field(
        True, description="same bits each time, so that a resumed run is exact; on GPUs false may be faster"
    )
    tensorboard: bool = Field(True, description="write what TensorBoard shows of the search")


class RunConfig(Settings):
    """A run."""

    seed: int = Field(0, ge=0, lt=2**31)
    task: Annotated[TaskSettings, TASKS] = Field(default_factory=TASKS.default)
    space: Annotated[SpaceSettings, SPACES] = Field(default_factory=SPACES.default)
    joint: Annotated[JointSettings, JOINTS] = Field(default_factory=JOINTS.default)
    data: DataSettings = DataSettings()
    device: DeviceConfig = DeviceConfig()
    latency: Annotated[LatencySettings, LATENCY_SOURCES] = Field(default_factory=LATENCY_SOURCES.default)
    measure: MeasuringConfig = MeasuringConfig()
    final_measure: MeasuringConfig = MeasuringConfig(preset="rapid")
    target: TargetConfig = TargetConfig()
    search: Annotated[SearchSettings, METHODS] = Field(default_factory=METHODS.default)
    finalists: FinalistsSettings = FinalistsSettings()
    training: Annotated[TrainingSettings, TRAINING_METHODS] = Field(default_factory=TRAINING_METHODS.default)
    export: ExportConfig = ExportConfig()
    runs: RunsConfig = RunsConfig()
    init: str | None = Field(
        None, min_length=1, description="a run, or a file of weights, that shared weights and trainings start from"
    )

    @model_validator(mode="after")
    def _has_weights(self) -> RunConfig:
        if self.training.epochs == 0 and self.export.weights != "shared":
            raise ValueError(
                "training.epochs=0 trains nothing, which requires export.weights=shared (--weights shared)"
            )
        return self

    @model_validator(mode="after")
    def _trains_finalists(self) -> RunConfig:
        if self.finalists.trained > 1 and self.training.epochs == 0:
            raise ValueError(
                "finalists.trained trains networks; leave it out, or give training.epochs a number above 0"
            )
        return self

    @property
    def reference_name(self) -> str | None:
        """The published network that results are compared with; None where there is none."""
        return None if self.reference is None else self.reference.reference_name

    @property
    def reference(self) -> NetworkSpaceSettings | None:
        """The space's settings, where results are compared with a published network."""
        return self.space if isinstance(self.space, NetworkSpaceSettings) else None


def check_data_named(config: RunConfig) -> None:
    """Refuses a new run on data that nobody named.

    The digits are for the presets that name them: an hour-long search on them is hardly what was meant.

    Raises:
        ConfigError: when `data.source` is missing.
    """
    if TASKS.make(config.task).delivers and "source" not in config.data.model_fields_set:
        raise ConfigError(
            "--data (data.source) is missing: only the presets smoke and demo bring their own data",
            fix="name them, for example --data photos/, or try --data digits",
        )


# Where the settings hold an entry of a table: choosing another entry there drops the settings of the one before.
CHOICES: dict[tuple[str, ...], Registry[Any]] = {
    ("task",): TASKS,
    ("space",): SPACES,
    ("joint",): JOINTS,
    ("latency",): LATENCY_SOURCES,
    ("search",): METHODS,
    ("search", "controller"): CONTROLLERS,
    ("search", "quality"): QUALITY_SOURCES,
    ("training",): TRAINING_METHODS,
}
# Tables whose entries may change defaults of other settings; later tables take precedence.
CHANGE_DEFAULTS = (("task",), ("joint",), ("space",))


Overrides: TypeAlias = dict[str, Any]

MAX_SETTINGS_CHARACTERS = 1_000_000

# For small networks on about a thousand small images. Measured on scikit-learn's digits at 32 x 32: three random points
# of `proxylessnas` at width 0.25 reach 98.1 to 99.2% test accuracy, in float and int8 alike.
_SMALL_DATA: Overrides = {"learning_rate": 0.4, "epochs": 25, "batch_size": 64, "warmup_fraction": 0.1}

# Steps by which rewards are late: eight candidates then share rounds of visits. On a simulated device, quiet or
# disturbed for 40% to 60% of the time, that takes 16% to 26% off the time of a candidate; sixteen take no more off.
_SHARED_BY_EIGHT = 7

# One's own images on a machine without accelerator: an evening rather than a week.
_LAPTOP: Overrides = {
    "space": {"name": "mobilenet-v3-like", "input_size": 96, "width_multiplier": 0.5},
    "data": PHOTOGRAPHS,
    "search": {
        "steps": 3000,
        "delay_fraction": 0.75,
        "reward_delay_steps": _SHARED_BY_EIGHT,
        "validation_batch_size": 128,
        "weights": {"learning_rate": 0.4, "batch_size": 32, "warmup_fraction": 0.1},
    },
    "training": {"learning_rate": 0.4, "epochs": 60, "batch_size": 32, "warmup_fraction": 0.1},
}
# Of a few thousand images the last steps of a training differ much, so an average over about fifty is delivered.
_AVERAGED = {"ema_decay": 0.98}

PRESETS: dict[str, Overrides] = {
    "smoke": {
        "space": {"name": "proxylessnas", "input_size": 16, "width_multiplier": 0.25},
        "data": {"source": "digits"},
        "search": {
            "steps": 24,
            "rematerialize": False,
            "samples_per_step": 2,
            "reward_delay_steps": 3,  # of two candidates each
            "validation_batch_size": 256,
            "weights": _SMALL_DATA,
            "random_baseline": False,
        },
        # It shows that everything works; how long its candidates take is not the point.
        "measure": {"max_risk": 1.0, "patience_s": 0.0},
        "final_measure": {"preset": "search", "patience_s": 5.0},
        "training": {**_SMALL_DATA, "epochs": 8},
        "export": {"compare": False},
    },
    "demo": {
        "space": {"name": "proxylessnas", "input_size": 32, "width_multiplier": 0.35},
        "data": {"source": "digits"},
        "target": {"reference_share": 0.75},
        "search": {
            # Most steps go to the shared weights, which are cheap; the rest are measured on the device.
            "steps": 900,
            "rematerialize": False,
            "delay_fraction": 0.9,
            "op_warmup_fraction": 0.3,
            "filter_warmup_fraction": 0.3,
            "reward_delay_steps": _SHARED_BY_EIGHT,
            "validation_batch_size": 256,
            "weights": _SMALL_DATA,
        },
        "measure": {"max_duration_s": 1.2, "max_risk": 0.1},
        "final_measure": {"preset": "search", "max_duration_s": 3.0},
        "training": {**_SMALL_DATA, "epochs": 16},
    },
    "laptop": _LAPTOP,
    # A few thousand images: twice as long, and with images changed more.
    "few-images": {
        **_LAPTOP,
        "data": {**PHOTOGRAPHS, "augmentation": {**PHOTOGRAPHS["augmentation"], "randaugment": 2, "erasing": 0.25}},
        "training": {**_LAPTOP["training"], **_AVERAGED, "epochs": 120},
    },
    # The same from weights that know images (`--init`): a quarter of the rate, so that they are not unlearned at first.
    "fine-tuning": {
        **_LAPTOP,
        "search": {**_LAPTOP["search"], "weights": {**_LAPTOP["search"]["weights"], "learning_rate": 0.1}},
        "training": {**_LAPTOP["training"], **_AVERAGED, "learning_rate": 0.1, "epochs": 30},
    },
    # Photographs on one GPU, in a day: a step at a time, and no more candidates than one device times in some hours.
    "single-gpu": {
        "space": {"name": "mobilenet-v3-like"},
        "data": PHOTOGRAPHS,
        "search": {
            "steps": 50_000,
            "delay_fraction": 0.6,
            "reward_delay_steps": _SHARED_BY_EIGHT,
            "validation_batch_size": 256,
            "random_baseline": False,
            "weights": {"batch_size": 128},
        },
        "training": {"epochs": 30, "batch_size": 256, "dropout_from_epochs": 150},
    },
    # The published search: 27,050 steps of 32 architectures, each with 128 images to train and 512 to be scored on, are
    # 90 epochs of the 1,231,121 images of ImageNet that 50,046 for validation leave.
    "full": {
        "space": {"name": "proxylessnas"},
        "data": {"validation_images": 50_046, **PHOTOGRAPHS},
        "search": {
            "steps": 27_050,
            "samples_per_step": 32,
            "weight_updates": "averaged",
            "validation_batch_size": 512,
            "evaluation_batch_size": 512,
            "random_baseline": False,
            "controller": {"name": "reinforce", "learning_rate": 0.0048, "baseline": "before"},
            "weights": {"batch_size": 128},
        },
        "training": {"method": "published-a"},
    },
}


def load_config(
    preset: str | None = None,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    base: RunConfig | None = None,
) -> RunConfig:
    """Builds and validates the configuration of a run.

    Args:
        preset: a name of `PRESETS`.
        file: YAML or JSON with the same shape as `RunConfig`; names may be dotted on any level.
        flags: values by dotted path, for example `{"search.steps": 100}`, or groups; None values are left out.
        settings: `path=value` texts, the values read as YAML.
        base: what stands in for the defaults: the settings of a run that is continued.

    Raises:
        ConfigError: one line naming the setting, what was expected and what was received.
    """
    given: list[Overrides] = [] if file is None else [_undotted(_read(file), str(file))]
    given += [_undotted({path: value}) for path, value in (flags or {}).items() if value is not None]
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator or not path:
            raise ConfigError(f"--set expects path=value, for example search.steps=100; received {setting!r}")
        given.append(_undotted({path.strip(): _parse_yaml(text, f"--set {_short(path)}")}))
    merged: Overrides = {} if base is None else base.model_dump(mode="json")
    if preset is not None:
        if preset not in PRESETS:
            raise ConfigError(f"unknown preset {preset!r}", expected=f"one of {', '.join(PRESETS)}")
        _merge(merged, PRESETS[preset])
    for overrides in given:
        _expand_short_forms(overrides)
    if base is None:
        given = [*_of_chosen(merged, given, preset), *given]
    for overrides in given:
        _drop_of_others(merged, overrides)
        _merge(merged, overrides)
    try:
        config = RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from None
    _check_targets(config)
    _check_delay(config)
    _check_joint(config)
    return _with_resources(config)


def _with_resources(config: RunConfig) -> RunConfig:
    """The settings with those that measuring the requested resources takes.

    Raises:
        ConfigError: when not every candidate is measured but a resource has to be, or the latency source does not
            report it.
    """
    asked = {objective.resource: RESOURCES[objective.resource] for objective in config.target.of_resources}
    measures_all = config.latency.asks_device and not config.latency.measures_some
    for name, resource in asked.items():
        if not resource.of_networks and name not in config.latency.tells:
            raise ConfigError(
                f"{name} is not reported by --latency {config.latency.text}",
                fix="use a latency source that reports it, or leave it out of the objectives and limits",
            )
        if resource.measured and not measures_all and name not in config.latency.tells:
            raise ConfigError(
                f"{name} is measured together with the latency, but --latency {config.latency.text} does not measure "
                "every candidate",
                fix="measure all (--latency device), or leave it out of the objectives and limits",
            )
    needed = {setting: value for resource in asked.values() for setting, value in resource.device_settings.items()}
    if not needed:
        return config
    return config.model_copy(update={"device": config.device.model_copy(update=needed)})


def _of_chosen(merged: Overrides, given: Sequence[Overrides], preset: str | None) -> list[Overrides]:
    """What the chosen entries of tables change in the defaults and in a preset."""
    changes: list[Overrides] = []
    for place in CHANGE_DEFAULTS:
        registry = CHOICES[place]
        names = [_at(overrides, (*place, registry.key)) for overrides in (merged, *given)]
        chosen = [name for name in names if isinstance(name, str)]
        if not chosen:
            continue
        try:
            settings = registry.find(chosen[-1].partition(":")[0]).settings
        except NasEdgeError:
            continue  # validation will say so
        changes += [_undotted(settings.defaults), _undotted(settings.presets.get(preset or "", {}))]
    return changes


def _check_targets(config: RunConfig) -> None:
    """Refuses a run without a target, or with two kinds of them."""
    if config.device.targets:
        if config.target.latency_ms is not None:
            raise ConfigError("device.targets and target.latency_ms exclude each other; leave one out")
        if not config.latency.asks_all_devices:
            raise ConfigError(
                f"device.targets are met by measuring, but the search takes its latencies from {config.latency.text}",
                fix="leave out --latency, or give one target (--target-ms)",
            )
        return
    if config.target.latency_ms is None and (not config.latency.asks_device or config.reference is None):
        raise ConfigError(
            "target.latency_ms is missing: by default it is the reference network's, measured on the device, but the "
            f"search takes its latencies from {config.latency.text}",
            fix="name a target (--target-ms)",
        )


def _check_delay(config: RunConfig) -> None:
    """Refuses to measure only some where networks of the delay are evaluated: no trial or model tells of those."""
    setting: str = getattr(config.search.controller, "evaluates_delay", "")
    if setting and config.search.delay_steps > 0 and config.latency.measures_some:
        raise ConfigError(
            f"search.controller.{setting} has every network of the delay measured, which latencies from "
            f"{config.latency.text} are to save",
            fix=f"leave {setting.partition('=')[0]} out, or measure all (--latency device)",
        )


def _check_joint(config: RunConfig) -> None:
    """Refuses latencies that do not depend on what is decided beside the network."""
    joint, latency = config.joint, config.latency
    if not joint.widens or (latency.asks_device if joint.measured else not (latency.asks_device or latency.predicts)):
        return
    fix = "leave out --latency" if joint.measured else f"--latency {joint.defaults.get('latency.source', 'NAME')}"
    raise ConfigError(
        f"latencies from {latency.text} do not depend on what joint.kind={joint.kind} decides",
        expected="the device" if joint.measured else "a simulator of it",
        fix=fix,
    )


def _parse_yaml(text: str, where: str) -> Any:
    """Reads YAML, or JSON; whatever is wrong with it is one line."""
    if len(text) > MAX_SETTINGS_CHARACTERS:
        raise ConfigError(f"{where}: settings have at most {MAX_SETTINGS_CHARACTERS} characters; received {len(text)}")
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where} is neither YAML nor JSON: {_short(' '.join(reason.split()))}") from None


def _short(value: object) -> str:
    """A value as it may stand in a message."""
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _read(file: Path) -> Overrides:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is neither YAML nor JSON: it is not UTF-8 text") from None
    loaded = _parse_yaml(text, str(file))
    if isinstance(loaded, dict):
        loaded.pop("schema_version", None)  # so that a run's config.json can be given back
    if not isinstance(loaded, dict):
        raise ConfigError(f"{file} must hold settings by name", received=f"{type(loaded).__name__}")
    return loaded


def _undotted(given: Mapping[Any, Any], where: str = "settings", prefix: str = "") -> Overrides:
    """Settings as groups in groups, of names that may be dotted on any level.

    Raises:
        ConfigError: when one is given twice, as `search.steps` and within `search`.
    """
    groups: Overrides = {}
    for path, value in given.items():
        part = _undotted(value, where, f"{prefix}{path}.") if isinstance(value, Mapping) else value
        for name in reversed(str(path).split(".")):
            part = {name: part}
        _join(groups, part, where, prefix)
    return groups


def _join(base: Overrides, more: Overrides, where: str, prefix: str) -> None:
    """Adds settings to those of the same source."""
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            _join(base[name], value, where, f"{prefix}{name}.")
        elif name in base:
            raise ConfigError(f"{_short(where)}: {_short(prefix + name)} is given twice; give it once")
        else:
            base[name] = value


def _expand_short_forms(overrides: Overrides) -> None:
    """Writes `table:FILE` and the like as settings by name, so that later settings can be laid over them."""
    for place, registry in CHOICES.items():
        parent = _at(overrides, place[:-1])
        given = _at(overrides, place)
        if isinstance(given, Mapping) and isinstance(given.get(registry.key), str) and ":" in given[registry.key]:
            short = given[registry.key]
        elif isinstance(given, str):
            short = given
        else:
            continue
        try:
            by_name = registry.by_name(short)
        except ValueError as error:
            raise ConfigError(f"{'.'.join(place)}: {error}") from None
        parent[place[-1]] = {**(given if isinstance(given, Mapping) else {}), **by_name}


def _drop_of_others(base: Overrides, more: Mapping[str, Any]) -> None:
    """Makes room in `base`, where `more` chooses another entry of a table, for that entry's settings."""
    for place, registry in CHOICES.items():
        group, chosen = _at(base, place), _at(more, place)
        if isinstance(chosen, Mapping):
            chosen = chosen.get(registry.key)
        if not isinstance(group, dict) or not isinstance(chosen, str):
            continue
        name = chosen.partition(":")[0]
        if name == group.get(registry.key, next(iter(registry.entries))):
            continue
        try:
            known = registry.find(name).settings.model_fields
        except NasEdgeError:
            continue  # validation will say so
        for setting in [setting for setting in group if setting not in known]:
            del group[setting]
        group.pop(registry.key, None)


def _at(settings: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        settings = settings.get(name) if isinstance(settings, Mapping) else None
    return settings


def _merge(base: Overrides, more: Mapping[str, Any]) -> None:
    """Lays `more` over `base`, group by group."""
    for name, value in more.items():
        if isinstance(value, Mapping) and isinstance(base.get(name), dict):
            _merge(base[name], value)
        else:
            base[name] = _copy(value)


def _copy(value: Any) -> Any:
    return {name: _copy(inner) for name, inner in value.items()} if isinstance(value, Mapping) else value


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    path = setting_path(first["loc"])
    if first["type"] == "extra_forbidden":
        if elsewhere := _setting_of_others(path):
            return elsewhere
        near = _near_settings(path)
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"unknown setting {_short(path)!r}{meant or ';'} see `nas-edge search --list-settings`"
    if first["type"] == "string_too_short":
        return f"{path} may not be empty; see its meaning in `nas-edge search --list-settings`"
    if first["type"] == "model_type":
        example = next(name for name in setting_names() if name.startswith(f"{path}."))
        return f"{path} is a group of settings; name one of them, for example {example}"
    message = first["msg"].removeprefix("Value error, ")
    told = isinstance(first["input"], (dict, BaseModel)) or "received" in message or message.startswith("unknown ")
    received = "" if told else f"; received {_short(repr(first['input']))}"
    return f"{path}: {message[:1].lower()}{message[1:]}{received}"


def _setting_of_others(path: str) -> str:
    """What to say of a setting that belongs to another entry of a table than the one that is chosen; else nothing."""
    group, _, name = path.rpartition(".")
    registry = CHOICES.get(tuple(group.split(".")))
    if registry is None:
        return ""
    owners = [entry for entry, made in registry.entries.items() if name in made.settings.model_fields]
    if not owners:
        return ""
    return f"the setting {path} requires {group}.{registry.key}={' or '.join(owners)}; leave it out, or choose that"


def setting_names() -> list[str]:
    """The path of every setting."""
    return [line.partition("=")[0] for line in describe_settings(RunConfig()).splitlines()]


def _group_names() -> list[str]:
    """The path of every group of settings, those in groups included."""
    parts = [name.split(".") for name in setting_names()]
    return sorted({".".join(part[:depth]) for part in parts for depth in range(1, len(part))})


def _near_settings(path: str) -> list[str]:
    """Settings and groups that resemble an unknown one: by its whole path, or by its last name in another group."""
    names = setting_names()
    near = get_close_matches(path, [*names, *_group_names()], n=2, cutoff=0.75)
    last = path.rpartition(".")[2]
    return near or [name for name in names if name.rpartition(".")[2] == last][:3]


def describe_settings(config: RunConfig) -> str:
    """Every setting with its value and meaning, one per line."""
    return "\n".join(_describe(config, ""))


def _describe(part: Settings, prefix: str) -> list[str]:
    lines = []
    plain = part.model_dump(mode="json")
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, Settings):
            lines += _describe(value, f"{prefix}{name}.")
        else:
            shown = plain[name]
            comment = f"  # {field.description}" if field.description else ""
            text = yaml.safe_dump(shown, default_flow_style=True, width=MAX_SETTINGS_CHARACTERS).splitlines()[0]
            lines.append(f"{prefix}{name}={text}{comment}")
    return lines
