"""Timed comparisons: each is run with ``python -m tests.benchmarks.NAME`` and writes a CSV to figures/."""
