"""Samples out of what was kept: images, windows of videos, groups."""
