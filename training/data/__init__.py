"""From samples on disk to batches of examples, in an order that is a function of the seed alone.

What decides what a training step sees, in the order in which it is decided:

1. `index`: the files, row groups and fingerprint of the samples of one dataset.
2. `catalogue`: which rows of them a view accepts, and which of their pictures it may take as a target.
3. `mixture`: which dataset the n-th sample of the stream comes from; `order`: which of its rows that is.
4. `draws`: the generator of the n-th sample, for its target, its references, crop, flip, drops, noise and timestep.
5. `buckets` and `plan`: samples of one aspect become a global batch; the ones that wait for more are part of the state.
6. `loader`: a rank's share of each global batch, read and decoded on threads.

Steps 1 to 5 do not know how many ranks or threads there are, so neither do batches, draws, noise and timesteps.
"""
