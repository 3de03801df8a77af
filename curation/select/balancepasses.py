"""The waves of balance.

choose   one task, where there is any limit: the candidates of the whole dataset, and the verdict on each
write    per unit: its rows
"""

from typing import Any

from refloom.curation.passes.passes import Desk, Order, Wave
from refloom.curation.passes.scratch import Receipt
from refloom.curation.select.choices import choose_dataset, write_choices
from refloom.ingest.engine.watch import Watch


def _is_limited(desk: Desk) -> bool:
    return desk.config.balance.is_set or desk.config.pairs.is_set


def _plan_choose(desk: Desk) -> list[Order]:
    return [Order("all")] if _is_limited(desk) else []


def _choose(desk: Desk, args: dict[str, Any], watch: Watch) -> Receipt:
    """Holds a few words of every candidate: some hundred bytes each."""
    choices = choose_dataset(desk.dataset, desk.config)
    for unit, rows in choices.items():
        desk.scratch.write_json(f"choices/{unit}.json", rows)
    chosen = sum(map(len, choices.values()))
    watch.advance(chosen)
    return {"candidates": chosen}


def _write(desk: Desk, args: dict[str, Any], watch: Watch) -> None:
    unit = args["unit"]
    rows = desk.scratch.read_json(f"choices/{unit}.json") if _is_limited(desk) else []
    with desk.unit(unit, watch) as out:
        write_choices(rows, out)
    watch.advance(len(rows))


WAVES = (
    Wave("choose", "candidate", _plan_choose, _choose),
    Wave("write", "candidate", Desk.orders_of_units, _write),
)
