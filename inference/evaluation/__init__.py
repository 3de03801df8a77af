"""Adapters measured on the benchmarks of their papers, beside the numbers that were published."""
