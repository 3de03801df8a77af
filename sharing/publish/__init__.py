"""Sharing a dataset: publications, takedowns, rehydration, and pushing to a Hub."""
