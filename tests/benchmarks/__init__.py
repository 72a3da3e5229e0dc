"""Benchmarks beside the peers: `python -m tests.benchmarks training|deriving|memory [--short]`. They measure ratios and are no tests."""
