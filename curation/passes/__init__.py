"""Stages over the whole dataset, as short lists of passes of tasks on the engine's pool.

A pass is done when all of its tasks are; the next one reads what it left in the stage's scratch folder. `stages` lists
the passes of dedup, match, split and balance, `search` those of the neighbour search that dedup and match share. No task
holds what all units hold together, but ids where it says so. What is decided is decided by pure functions outside
(`duplicates`, `identities`, `looks`, `split`, `choices`); here is only who reads what, and when.
"""
