"""Datasets in the formats of others: the original trainers', COCO's and WebDataset's."""
