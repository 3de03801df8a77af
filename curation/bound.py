"""One bound on one score; selection and the bounds on groups are lists of them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rule:
    """One bound: which column, which side, and the word for what lies outside.

    Attributes:
        column: of the table that holds the score, or derived from it.
        bound: the threshold.
        keeps_above: whether values at or above the bound are kept, or those at or below.
        reason: for the ledger.
    """

    column: str
    bound: float
    keeps_above: bool
    reason: str

    def breaks(self, values: Floats) -> Bools:
        """True for values outside; a missing value breaks nothing here."""
        bound = float(np.float32(self.bound))  # as a table would hold it, so that an equal score is not outside
        outside: Bools = values < bound if self.keeps_above else values > bound
        return outside
