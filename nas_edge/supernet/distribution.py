"""On what the shared weights are trained: which `tf.distribute` strategy.

    none           one device
    mirrored       all GPUs of this machine, or its logical CPUs where it has none
    multi-worker   the processes that the environment variable TF_CONFIG lists, each with all its GPUs

Strategies of other kinds need a loop of another kind: a parameter server has no step in which all replicas take part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import tensorflow as tf

from nas_edge.errors import ConfigError


def _mirrored() -> Any:
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


DISTRIBUTIONS: Mapping[str, Callable[[], Any]] = {
    "none": tf.distribute.get_strategy,
    "mirrored": _mirrored,
    "multi-worker": tf.distribute.MultiWorkerMirroredStrategy,
}


@cache
def make_strategy(name: str) -> Any:
    """The strategy of that name, one per process. That of several processes comes before all else TensorFlow does.

    Raises:
        ConfigError: when it cannot be made here.
    """
    try:
        return DISTRIBUTIONS[name]()
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"search.distribution={name} cannot be started: {error}",
            fix="check the environment variable TF_CONFIG, which must list the addresses of all processes",
        ) from None
