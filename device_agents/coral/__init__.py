"""Coral's Edge TPU, plugged in at this machine."""
