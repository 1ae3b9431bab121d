"""Speed and evidence: each program prints a table and writes JSON; run as `python -m benchmarks.NAME`."""
