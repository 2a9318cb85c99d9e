"""Labelled images: where they come from, how they are split, how they become a network's input."""
