"""Measurements: ratios taken in one run against a floor, because machines are noisy and floors are not.

`make bench`, or `python -m benchmarks [NAME ...]`. The numbers are kept in benchmarks/README.md.
"""
