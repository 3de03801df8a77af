"""What is on disk: tables, masks, boxes, pictures, the dataset folder, manifests, card.

Imports nothing else of refloom.
"""
