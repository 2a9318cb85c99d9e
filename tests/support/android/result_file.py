"""The tool's result file, written by the real protobuf package."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FLOAT, INT64, INT32, STRING = 2, 3, 5, 9
# tensorflow/lite/tools/benchmark/proto/benchmark_result.proto
MESSAGES = {
    "LatencyMetrics": [
        *(("avg_ms", 1, FLOAT), ("min_ms", 2, FLOAT), ("max_ms", 3, FLOAT), ("stddev_ms", 4, FLOAT)),
        *(("median_ms", 5, FLOAT), ("p5_ms", 6, FLOAT), ("p95_ms", 7, FLOAT), ("init_ms", 8, FLOAT)),
        *(("first_inference_ms", 9, FLOAT), ("average_warm_up_ms", 10, FLOAT)),
    ],
    "MemoryMetrics": [("init_footprint_kb", 1, INT64), ("overall_footprint_kb", 2, INT64), ("peak_mem_mb", 3, FLOAT)],
    "MiscMetrics": [
        *(("model_size_mb", 1, FLOAT), ("num_runs", 2, INT32), ("num_warmup_runs", 3, INT32)),
        ("model_throughput_in_mb_per_sec", 4, FLOAT),
    ],
}


def result_type() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="benchmark_result.proto", package="t", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            message.field.add(name=field, number=number, type=kind, label=1)
    result = file.message_type.add(name="BenchmarkResult")
    result.field.add(name="name", number=1, type=STRING, label=1)
    for number, name in enumerate(MESSAGES, 2):
        field = ("latency_metrics", "memory_metrics", "misc_metrics")[number - 2]
        result.field.add(name=field, number=number, type=11, type_name=f".t.{name}", label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.BenchmarkResult"))


def result() -> bytes:
    message = result_type()(name="a run")
    for name, value in {"avg_ms": 7.5, "min_ms": 7.25, "max_ms": 9.5, "median_ms": 7.375, "init_ms": 10.5}.items():
        setattr(message.latency_metrics, name, value)
    message.latency_metrics.first_inference_ms = 9.0
    message.memory_metrics.init_footprint_kb = 12800
    message.memory_metrics.overall_footprint_kb = 14592
    message.misc_metrics.model_size_mb = 3.5
    message.misc_metrics.num_runs = 40
    data: bytes = message.SerializeToString()
    return data
