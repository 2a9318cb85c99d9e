"""The settings that a design decides beside its network, in place of the run's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nas_edge.config import RunConfig, load_config
from nas_edge.joint.deployment import deployment_settings
from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.spaces.design import Design

if TYPE_CHECKING:
    from nas_edge.spaces.decisions import Architecture
    from nas_edge.stages.context import RunContext


def deployed(config: RunConfig, design: Design) -> RunConfig:
    """The settings for measuring and delivering a design; the run's own for a network alone.

    Raises:
        ConfigError: when they conflict with other settings.
    """
    given = dict(deployment_settings(design))
    if not given:
        return config
    precision = given.pop("export.precision", config.export.precision)
    return load_config(flags=given, base=with_precision(config, str(precision)))


def with_precision(config: RunConfig, precision: Precision) -> RunConfig:
    """Settings that deliver another precision, from weights as trained where those that were tuned are of no use."""
    if precision == config.export.precision:
        return config
    given: dict[str, object] = {"export.precision": precision}
    if PRECISIONS[precision].activations != "int8":
        given["export.quantization"] = "post-training"
    if precision != "int8":  # whose noisiest layers stay float
        given["export.mixed_layers"] = 0
    return load_config(flags=given, base=config)


def as_deployed(context: RunContext, architecture: Architecture) -> RunContext:
    """The context in which an architecture is delivered."""
    return replace(context, config=deployed(context.config, context.space.build(architecture)))
