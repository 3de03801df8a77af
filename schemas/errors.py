"""The errors that refloom raises on purpose. Each says what is wrong, where, and the remedy."""


class RefloomError(Exception):
    """Base of all errors a user can act on; the command line prints the text and exits with 2."""

    exit_code = 2


class Refused(RefloomError):
    """The request contradicts what is on disk or cannot be understood; nothing was changed."""


class Damaged(Refused):
    """A file of a dataset is not what was committed: cut, changed or gone; `refloom mend` mends it."""


class DamagedFile(Damaged, OSError):
    """As `Damaged`, of a file of rows; an OSError too, as what reads such files raises."""


class StoreDenied(Refused):
    """A store does not let this user in: waiting changes nothing, other credentials do."""


class JobStopped(RefloomError):
    """The job could not finish (full disk, lost lease, a unit that cannot run); it can be resumed."""

    exit_code = 3


class StoreUnavailable(JobStopped):
    """A store refuses, throttles or does not answer just now: the same request may do later."""


class Rejected(Exception):
    """One item is unusable because of its content; becomes a ledger row and is never retried.

    Args:
        reason: a key of `refloom.schemas.reasons.REJECTED`.
        detail: short, deterministic text: no host, absolute path, clock or traceback.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Failed(Exception):
    """One item could not be processed in this run; a ledger row that `--retry-failed` tries again.

    Args:
        reason: a key of `refloom.schemas.reasons.FAILED`.
        detail: as for `Rejected`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
