"""Latency models of devices: measured for, fitted, adapted, looked at; the models are in `nas_edge.latency.models`."""
