"""The passes of every stage over the whole dataset, and how a worker does one of their tasks."""

from refloom.curation.dedup import passes as dedup
from refloom.curation.group import passes as match
from refloom.curation.passes.passes import Pass, StageContext, TaskSpec
from refloom.curation.select import balancepasses as balance
from refloom.curation.select import splitpasses as split
from refloom.ingest.engine.pool import Task
from refloom.ingest.engine.watch import Watch

PASSES: dict[str, tuple[Pass, ...]] = {
    "dedup": dedup.PASSES,
    "match": match.PASSES,
    "split": split.PASSES,
    "balance": balance.PASSES,
}


def tasks(context: StageContext, one_pass: Pass) -> list[Task]:
    """The tasks of a pass that are still to be done, the heaviest first."""
    done = context.scratch.done(one_pass.name)
    planned_tasks = sorted(
        (order for order in one_pass.plan(context) if order.name not in done), key=lambda order: -order.weight
    )
    stage, fingerprint = context.stage.name, context.scratch.fingerprint
    return [
        Task(order.name, TaskSpec(stage, one_pass.name, fingerprint, order.args), order.weight)
        for order in planned_tasks
    ]


def work(context: StageContext, spec: TaskSpec, name: str, watch: Watch) -> None:
    """Do one task of a pass, and sign for it."""
    one_pass = next(one_pass for one_pass in PASSES[spec.stage] if one_pass.name == spec.pass_name)
    result = one_pass.work(context, spec.args, watch)
    if result is not None:
        context.scratch.sign(one_pass.name, name, result)
