"""A made-up device whose latencies follow from the operators of a network, for what fits models of devices."""

from __future__ import annotations

from functools import cache

import numpy as np

from device_agents.api import BenchmarkSpec, Measurement, Verdict
from nas_edge.latency.models.subject import Observation, OperatorShape, Subject, subject_of_architecture
from nas_edge.networks.tflite_model import operators
from nas_edge.spaces.decisions import Architecture, NetworkSpace
from nas_edge.spaces.points import Points

OVERHEAD_MS = 0.5


def operator_ms(operator: OperatorShape) -> float:
    """What an operator takes there: overhead, and the slower of computing and moving values."""
    rate = {"CONV_2D": 20e3, "DEPTHWISE_CONV_2D": 5e3}.get(operator.kind, 1e9)
    values = operator.activation_values + operator.parameter_values
    return 0.01 + max(operator.macs / rate, values / 4e4)


def network_ms(subject: Subject) -> float:
    """What a network takes there."""
    return OVERHEAD_MS + sum(operator_ms(operator) for operator in subject.sequence or ())


def observations(space: NetworkSpace, count: int, seed: int = 0, noise: float = 0.0) -> list[Observation]:
    """Networks of a space, as that device would measure them."""
    rng = np.random.default_rng(seed)
    rows = Points(space).sample(4 * count, rng).tolist()
    architectures = list(dict.fromkeys(Architecture(tuple(row)) for row in rows))[:count]
    subjects = [subject_of_architecture(space, architecture) for architecture in architectures]
    return [Observation(one, network_ms(one) * float(np.exp(noise * rng.standard_normal())), noise) for one in subjects]


def measure_file(model: bytes, spec: BenchmarkSpec) -> Measurement:
    """Measures a TFLite file there, by the sizes of what its operators write."""
    return Measurement(Verdict.OK, samples_ms=(_file_ms(model),) * 20)


@cache
def _file_ms(model: bytes) -> float:
    return 0.2 + sum(0.01 + float(np.prod(operator.output_shape)) / 4e4 for operator in operators(model))
