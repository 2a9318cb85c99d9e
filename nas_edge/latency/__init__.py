"""Where latencies come from."""
