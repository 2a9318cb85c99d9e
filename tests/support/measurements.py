"""A measurement with everything in it."""

from __future__ import annotations

from device_agents.api import Conditions, Measurement, OpTime, Verdict

CONDITIONS = Conditions(
    device_fingerprint="f",
    device_model="CPU",
    runtime="ai_edge_litert",
    runtime_version="2.3.0",
    delegate="cpu",
    threads=1,
    started_utc="2026-01-01T00:00:00+00:00",
    cores=(0, 1),
    temperature_c_before=40.0,
    wait_share=0.01,
)
MEASUREMENT = Measurement(
    Verdict.OK,
    samples_ms=(1.0, 2.0, 3.0),
    init_ms=0.5,
    first_inference_ms=4.0,
    warmup_runs=3,
    busy_s=0.5,
    peak_memory_bytes=1000,
    profile=(OpTime("CONV_2D", "out", 1.0, 1.0),),
    conditions=CONDITIONS,
)
