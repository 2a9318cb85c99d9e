"""Benchmark-only mode: times any TFLite files on any devices, and compares them.

    files --measure.run_benchmark--> report.Report --comparison--> ratios with intervals
                                                 `--render-->     table, CSV, JSON

Independent of networks, search and training, and without TensorFlow.
"""

from nas_edge.benchmarking.comparison import Comparison, compare_models, compare_with_baseline
from nas_edge.benchmarking.measure import Request, read_models, run_benchmark, unique_addresses
from nas_edge.benchmarking.render import to_csv, to_json, to_ops_csv, to_table
from nas_edge.benchmarking.report import BenchmarkStoppedError, Report, read_report

__all__ = [
    "BenchmarkStoppedError",
    "Comparison",
    "Report",
    "Request",
    "compare_models",
    "compare_with_baseline",
    "read_models",
    "read_report",
    "run_benchmark",
    "to_csv",
    "to_json",
    "to_ops_csv",
    "to_table",
    "unique_addresses",
]
