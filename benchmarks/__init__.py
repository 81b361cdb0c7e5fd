"""Benchmarks of the ops: one file an op, rows with their provenance in results/."""
