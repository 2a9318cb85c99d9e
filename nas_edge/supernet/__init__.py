"""Shared weights: one Keras layer per template layer, running any architecture of a space."""
