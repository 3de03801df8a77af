"""The passes of split.

gather   per part: its pictures, which pictures must stay together, and which have members of groups of several units
join     one task: clusters of pictures over the whole dataset, and the side of each
write    per unit: its rows
"""

from typing import Any

import pyarrow as pa

from refloom.curation.passes.passes import Pass, PlannedTask, StageContext
from refloom.curation.passes.scratch import TaskResult, part_name
from refloom.curation.select.split import draw, leads_of, read_leads, read_links, read_pictures, write_splits
from refloom.ingest.engine.watch import Watch


def _gather(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    name, units = part_name(args["part"]), args["units"]
    pictures = read_pictures(context.dataset, units)
    context.scratch.write_table(f"pictures/{name}.arrow", pictures)
    context.scratch.write_table(f"links/{name}.arrow", read_links(context.dataset, units))
    context.scratch.write_table(f"leads/{name}.arrow", read_leads(context.dataset, units))
    watch.advance(pictures.num_rows)
    return {"pictures": pictures.num_rows}


def _plan_join(context: StageContext) -> list[PlannedTask]:
    return [PlannedTask("all", {"parts": len(context.parts)})]


def _join(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    """Holds the ids of all pictures: 0.4 kB each."""
    names = [part_name(part) for part in range(args["parts"])]
    pictures = pa.concat_tables([context.scratch.read_table(f"pictures/{name}.arrow") for name in names])
    links = (context.scratch.read_table(f"links/{name}.arrow") for name in names)
    splits = draw(pictures, links, context.config.split)
    leads = leads_of(pictures, (context.scratch.read_table(f"leads/{name}.arrow") for name in names))
    splits = splits.append_column("group_units", leads)
    start = 0
    for name in names:
        count = context.scratch.read_table(f"pictures/{name}.arrow").num_rows
        context.scratch.write_table(f"splits/{name}.arrow", splits.slice(start, count))
        start += count
    watch.advance(pictures.num_rows)
    return {"pictures": pictures.num_rows}


def _write(context: StageContext, args: dict[str, Any], watch: Watch) -> None:
    unit = args["unit"]
    images = context.dataset.read("images", ["image_id"], unit=unit)["image_id"]
    splits = context.scratch.read_table(f"splits/{part_name(args['part'])}.arrow")
    rows = splits.filter(pa.compute.is_in(splits["image_id"], value_set=images.combine_chunks()))
    with context.unit(unit, watch) as out:
        write_splits(rows, out, unit)
    watch.advance(len(images))


PASSES = (
    Pass("gather", "picture", StageContext.planned_tasks, _gather),
    Pass("join", "picture", _plan_join, _join),
    Pass("write", "picture", StageContext.planned_tasks_of_units, _write),
)
