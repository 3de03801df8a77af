"""The passes of balance.

choose   one task, where there is any limit: the candidates of the whole dataset, and the verdict on each
write    per unit: its rows
"""

from typing import Any

from refloom.curation.passes.passes import Pass, PlannedTask, StageContext
from refloom.curation.passes.scratch import TaskResult
from refloom.curation.select.choices import choose_dataset, write_choices
from refloom.ingest.engine.watch import Watch


def _is_limited(context: StageContext) -> bool:
    return context.config.balance.is_set or context.config.pairs.is_set


def _plan_choose(context: StageContext) -> list[PlannedTask]:
    return [PlannedTask("all")] if _is_limited(context) else []


def _choose(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    """Holds a few words of every candidate: some hundred bytes each."""
    choices = choose_dataset(context.dataset, context.config)
    for unit, rows in choices.items():
        context.scratch.write_json(f"choices/{unit}.json", rows)
    chosen = sum(map(len, choices.values()))
    watch.advance(chosen)
    return {"candidates": chosen}


def _write(context: StageContext, args: dict[str, Any], watch: Watch) -> None:
    unit = args["unit"]
    rows = context.scratch.read_json(f"choices/{unit}.json") if _is_limited(context) else []
    with context.unit(unit, watch) as out:
        write_choices(rows, out)
    watch.advance(len(rows))


PASSES = (
    Pass("choose", "candidate", _plan_choose, _choose),
    Pass("write", "candidate", StageContext.planned_tasks_of_units, _write),
)
