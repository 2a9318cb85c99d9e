"""Training a stand-alone network: optimiser, learning-rate schedule, and one plain loop."""
