"""Latency-aware compound scaling: depth, width and input size of one network, scaled to several latencies."""
