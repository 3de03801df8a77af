"""The waves of every stage over the whole dataset, and how a worker does one of their tasks."""

from refloom.curation.dedup import passes as dedup
from refloom.curation.group import passes as match
from refloom.curation.passes.passes import Desk, Errand, Wave
from refloom.curation.select import balancepasses as balance
from refloom.curation.select import splitpasses as split
from refloom.ingest.engine.pool import Task
from refloom.ingest.engine.watch import Watch

WAVES: dict[str, tuple[Wave, ...]] = {
    "dedup": dedup.WAVES,
    "match": match.WAVES,
    "split": split.WAVES,
    "balance": balance.WAVES,
}


def tasks(desk: Desk, wave: Wave) -> list[Task]:
    """The tasks of a wave that are still to be done, the heaviest first."""
    done = desk.scratch.done(wave.name)
    orders = sorted((order for order in wave.plan(desk) if order.name not in done), key=lambda order: -order.weight)
    stage, fingerprint = desk.stage.name, desk.scratch.fingerprint
    return [Task(order.name, Errand(stage, wave.name, fingerprint, order.args), order.weight) for order in orders]


def work(desk: Desk, errand: Errand, name: str, watch: Watch) -> None:
    """Do one task of a wave, and sign for it."""
    wave = next(wave for wave in WAVES[errand.stage] if wave.name == errand.wave)
    receipt = wave.work(desk, errand.args, watch)
    if receipt is not None:
        desk.scratch.sign(wave.name, name, receipt)
