"""The account of attempts: which unit comes next, how often each was tried, and what is given up.

Nothing here runs anything: the driver tells what happened and asks what to do.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from refloom.schemas.errors import JobStopped
from refloom.schemas.wording import some

ATTEMPTS = 3
PATIENCE_S = 600.0
"""How long a store may refuse everything before the job stops."""
_MAX_CRASHES = 60
"""Of one unit: twenty items that kill their process. More is a broken machine or a broken model."""
_LONGEST_PAUSE_S = 30.0


@dataclass(slots=True)
class Attempts:
    """The history of one unit: the item under work at each crash (None if unknown), and what is given up."""

    crashes: list[str | None] = field(default_factory=list)
    skip: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def next(self) -> int:
        """The number of the next attempt, from 1."""
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


class Account:
    """Units that wait, in order, and the history of all.

    Attributes:
        broken: unit to why it is given up.
    """

    def __init__(self, units: Iterable[str]) -> None:
        self._waiting = deque(units)
        self._attempts = {unit: Attempts() for unit in self._waiting}
        self._refused_since: float | None = None
        self._pause_until = 0.0
        self._pause_s = 0.5
        self.broken: dict[str, str] = {}

    def __getitem__(self, unit: str) -> Attempts:
        return self._attempts[unit]

    def __len__(self) -> int:
        """Units that wait."""
        return len(self._waiting)

    def take(self, now: float) -> str | None:
        """The unit to do next; None if none waits, or while a store that has refused is left alone."""
        return self._waiting.popleft() if self._waiting and not self.is_paused(now) else None

    def back(self, unit: str) -> None:
        """A unit was handed out and not begun."""
        self._waiting.appendleft(unit)

    def done(self) -> None:
        """A unit was done, so the store answers."""
        self._refused_since, self._pause_s = None, 0.5

    def crashed(self, unit: str, item: str | None, timed_out: bool) -> None:
        """The process that worked on a unit has died."""
        attempts = self._attempts[unit]
        helps = attempts.crashed(item, timed_out)
        why = f"its worker died {len(attempts.crashes)} times, last at {item or 'no item'}"
        self._again(unit, helps, why)

    def raised(self, unit: str, why: str) -> None:
        """A unit ended in an error that is not an item's."""
        self._attempts[unit].errors.append(why)
        self._again(unit, len(self._attempts[unit].errors) < ATTEMPTS, why)

    def is_paused(self, now: float) -> bool:
        """Whether a store that has refused is left alone just now."""
        return now < self._pause_until

    def refused(self, unit: str, now: float) -> bool:
        """The store has refused a unit: no attempt is counted, and all wait; see `wait`."""
        self.back(unit)
        return self.wait(now)

    def wait(self, now: float) -> bool:
        """The store has refused: nothing is handed out for a while, longer each time.

        Returns:
            False if the store has refused for so long that the job had better stop.
        """
        if self._refused_since is None:
            self._refused_since = now
        if not self.is_paused(now):  # several workers meet the same refusal
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._pause_until = now + self._pause_s
        return now - self._refused_since < PATIENCE_S

    def stop_if_broken(self, units: int, notes_url: str) -> None:
        """Where some units were given up, stop the job, whose others are done.

        Args:
            units: of the job.
            notes_url: of the folder that says more.

        Raises:
            JobStopped: names units, and why.
        """
        if self.broken:
            told = some((f"{unit}: {why}" for unit, why in sorted(self.broken.items())), between="; ")
            raise JobStopped(f"{len(self.broken)} of {units} units could not be done ({told}); details in {notes_url}")

    def _again(self, unit: str, helps: bool, why: str) -> None:
        if helps:
            self._waiting.appendleft(unit)
        else:
            self.broken[unit] = why
