"""Benchmarks beside the peers: `python -m tests.benchmarks training|deriving [--short]`. They measure ratios and are no tests."""
