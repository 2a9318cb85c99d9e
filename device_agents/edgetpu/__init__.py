"""Coral's Edge TPU, wherever it is plugged in: its delegate in a worker, and its compiler."""
