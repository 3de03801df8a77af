"""What one sees of a run: held-out loss, validation images, the page, previews."""
