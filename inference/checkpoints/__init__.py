"""Files of weights, ours and others': where they lie, whether they are what they say, and the tensors in them."""
