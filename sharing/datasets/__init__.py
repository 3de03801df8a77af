"""Datasets out of datasets: a part of one, several as one, states that are kept, and what changed between two."""
