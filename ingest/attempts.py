"""The account of attempts at one task: what each crash was working on, and what is given up after three."""

from dataclasses import dataclass, field

ATTEMPTS = 3
_MAX_CRASHES = 60
"""Of one unit: twenty items that kill their process. More is a broken machine or a broken model."""


@dataclass(slots=True)
class Attempts:
    """The history of one task: the item under work at each crash (None if unknown), and what is given up."""

    crashes: list[str | None] = field(default_factory=list)
    skip: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def next(self) -> int:
        """Number of the next attempt, from 1."""
        return len(self.crashes) + len(self.errors) + 1

    def crashed(self, item: str | None, timed_out: bool) -> bool:
        """Note a crash; False if the unit is beyond help."""
        self.crashes.append(item)
        last = self.crashes[-ATTEMPTS:]
        named = {name for name in last if name is not None}
        if len(last) == ATTEMPTS and len(named) == 1:
            self.skip[named.pop()] = "timeout" if timed_out else "killed_worker"
            return len(self.crashes) < _MAX_CRASHES
        return not (len(last) == ATTEMPTS and not named) and len(self.crashes) < _MAX_CRASHES
