"""What a check of a dataset or of a publication found."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_MOST_SHOWN = 20


@dataclass(slots=True)
class Findings:
    """What verify found.

    Attributes:
        checked: name of a check to how many things it looked at.
        problems: what is wrong, each naming file, unit or id.
        damaged: stage and unit of what has to be made again.
        files: paths of files that are not what was committed.
        remedies: commands that mend what is wrong, each as a sentence.
    """

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    damaged: set[tuple[str, str]] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    remedies: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        checked = dict(sorted(self.checked.items()))
        return {"sound": self.sound, "checked": checked, "problems": self.problems, "remedies": self.remedies}

    def lines(self) -> list[str]:
        """For people."""
        out = [f"  {name}: {count:,}" for name, count in sorted(self.checked.items())]
        out += [f"PROBLEM {problem}" for problem in self.problems[:_MOST_SHOWN]]
        if len(self.problems) > _MOST_SHOWN:
            out.append(f"... and {len(self.problems) - _MOST_SHOWN} more; --json lists all")
        return [*out, *self.remedies, "everything holds" if self.sound else f"{len(self.problems)} problems"]
