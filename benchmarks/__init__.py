"""One script per claim: `python -m benchmarks.NAME [--quick]`, JSON in the last line."""
