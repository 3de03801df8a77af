"""Stages over the whole dataset, as short lists of waves of tasks on the engine's pool.

A wave is done when all of its tasks are; the next one reads what it left in the stage's scratch folder. No task holds
what all units hold together: `stages` lists the waves of dedup, match and split, `search` those of the neighbour search
that dedup and match share. What is decided is decided by pure functions outside (`duplicates`, `identities`, `looks`,
`split`); here is only who reads what, and when.
"""
