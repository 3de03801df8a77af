"""Copies of images and objects, inside the dataset and of evaluation sets."""
