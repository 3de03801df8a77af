"""What is said of one image at a time: scores, masks, faces, embeddings, phrases, quality. One pass over the pixels."""
