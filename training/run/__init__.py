"""One run of training: the loop, the step, its optimiser, checkpoints and processes."""
