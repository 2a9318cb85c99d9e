"""Random generators derived from the run's one seed.

Each purpose has its own stream, so that drawing more of one does not change another.
"""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str) -> np.random.Generator:
    """The generator of one purpose, for example `generator(seed, "controller")`."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def integer(seed: int, purpose: str) -> int:
    """A seed for code that takes an integer."""
    return int(generator(seed, purpose).integers(2**31))
