"""What stages over the whole dataset share: passes of tasks on the engine's pool, and the scratch folder between them.

A pass is done when all of its tasks are; the next one reads what it left in the stage's scratch folder. The passes of
a stage lie beside its rules (`dedup`, `group`, `select`), those of the neighbour search in `neighbours`;
`datasetstages` lists them. No task holds what all units hold together, but ids where it says so. What is decided is
decided by pure functions; a pass is only who reads what, and when.
"""
