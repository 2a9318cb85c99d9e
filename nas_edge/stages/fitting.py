"""How many examples fit in memory at once, worked out from the largest network of a space.

What is found depends on the space alone, not on the machine: batches of the shared weights have their own statistics,
so another size is another quality, and a run that is continued elsewhere must come to the same.
"""

from __future__ import annotations

from nas_edge.networks.analysis import peak_activation_values
from nas_edge.networks.graph import NetworkSpec
from nas_edge.spaces.decisions import NetworkSpace, SearchSpace
from nas_edge.spaces.extremes import largest

# What one batch may take at inference: less than a training step of the same networks does.
BATCH_BYTES = 2**31
# More examples than this make it no faster, and their statistics no better.
MOST_AT_ONCE = 512

_BYTES_PER_VALUE = 4
# TensorFlow holds more than the tensors that one operator reads and writes: normalisation and activation have results
# of their own. The largest network of `proxylessnas` takes 17.4 MiB per image of 224 pixels, three times as much.
_OVERHEAD = 3.0


def inference_bytes(network: NetworkSpec) -> int:
    """About what one example takes at inference, in float32."""
    return int(_OVERHEAD * _BYTES_PER_VALUE * peak_activation_values(network))


def evaluation_batch_size(space: SearchSpace) -> int:
    """How many examples to score at once, whichever architecture of the space scores them."""
    if not isinstance(space, NetworkSpace):
        return MOST_AT_ONCE
    return max(2, min(MOST_AT_ONCE, BATCH_BYTES // inference_bytes(space.decode(largest(space)))))
