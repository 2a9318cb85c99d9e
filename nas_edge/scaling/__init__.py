"""Latency-aware compound scaling: one network of a search, made deeper, wider and finer, for a family of latencies."""
