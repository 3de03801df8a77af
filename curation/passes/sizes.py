"""How finely the work over the whole dataset is cut."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSizes:
    """Sizes of tasks: memory and speed of dedup, match and split depend on them, their rows do not.

    Attributes:
        part_rows: pictures and objects of the units that one task reads; a unit is never cut.
        slab_mb: vectors that one task puts into cells, 10^6 bytes.
        chunk_mb: vectors of the cells that one task compares, and once more of those that visit them, 10^6 bytes.
        chunk_gflop: 10^9 operations below which a task of comparisons is not cut further.
        batch_pairs: pairs of the groups that one task joins; a connected part is never cut.
    """

    part_rows: int = 50_000
    slab_mb: float = 1000.0
    chunk_mb: float = 500.0
    chunk_gflop: float = 100.0
    batch_pairs: int = 50_000

    def __post_init__(self) -> None:
        if min(self.part_rows, self.slab_mb, self.chunk_mb, self.chunk_gflop, self.batch_pairs) <= 0:
            raise ValueError("part_rows, slab_mb, chunk_mb, chunk_gflop and batch_pairs are more than 0")
