"""Latency-aware compound scaling: depth, width and input size of one network, scaled to several latencies."""

# Candidates to train briefly, over all targets, unless something else is said.
TRAINED = 8
