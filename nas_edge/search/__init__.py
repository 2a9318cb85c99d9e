"""Searching: the loop that joins controller, shared weights and latency, and the choice of the winner."""
