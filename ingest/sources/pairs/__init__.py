"""Directed records: some reference images and a text that asks for one image, in the layouts of today's public sets."""
