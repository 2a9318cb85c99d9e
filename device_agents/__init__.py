"""Reach devices and measure TFLite models on them.

Start reading at `api` (the vocabulary), then `devices.open_device` (an address
becomes an agent), `host` (an agent), `worker` (what runs on the device),
`session` (anchor model) and `pool` (several devices).

This package imports nothing of `nas_edge` and never TensorFlow. It re-exports
nothing here, so that starting a worker loads only the worker.
"""
