"""Round numbers for the axes of charts. Pure functions."""

import math


def ticks(low: float, high: float, is_log: bool, most: int = 5) -> list[float]:
    """Round numbers inside a range, for an axis.

    Args:
        low, high: ends of the axis.
        is_log: powers of ten, with 2 and 5 between them where there is room.
        most: about this many.
    """
    if is_log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            found = [factor * 10.0**decade for decade in decades for factor in factors]
            found = [tick for tick in found if low <= tick <= high]
            if len(found) <= most + 1:
                return found
        return found[:: math.ceil(len(found) / most)]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]
