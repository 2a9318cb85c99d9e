"""What follows from a network's graph, see `networks.analysis`; the same on every device."""

from __future__ import annotations

from nas_edge.resources.base import computed

MACS = computed("multiply-accumulates of one inference", "", lambda analysis: analysis.macs)
PARAMETERS = computed("trainable parameters", "", lambda analysis: analysis.parameters)
PEAK_MEMORY = computed(
    "peak memory of activations, as the precision stores them", "bytes", lambda a: a.peak_memory_bytes
)
