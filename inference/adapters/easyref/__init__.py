"""EasyRef: a multimodal language model reads a group of references."""
