"""The waves of split.

gather   per part: its pictures, and which pictures must stay together
join     one task: clusters of pictures over the whole dataset, and the side of each
write    per unit: its rows
"""

from typing import Any

import pyarrow as pa

from refloom.curation.passes.passes import Desk, Order, Wave
from refloom.curation.passes.scratch import Receipt, part_name
from refloom.curation.select.split import draw, read_links, read_pictures, write_splits
from refloom.ingest.engine.watch import Watch


def _gather(desk: Desk, args: dict[str, Any], watch: Watch) -> Receipt:
    name, units = part_name(args["part"]), args["units"]
    pictures = read_pictures(desk.dataset, units)
    desk.scratch.write_table(f"pictures/{name}.arrow", pictures)
    desk.scratch.write_table(f"links/{name}.arrow", read_links(desk.dataset, units))
    watch.advance(pictures.num_rows)
    return {"pictures": pictures.num_rows}


def _plan_join(desk: Desk) -> list[Order]:
    return [Order("all", {"parts": len(desk.parts)})]


def _join(desk: Desk, args: dict[str, Any], watch: Watch) -> Receipt:
    """Holds the ids of all pictures: 0.4 kB each."""
    names = [part_name(part) for part in range(args["parts"])]
    pictures = pa.concat_tables([desk.scratch.read_table(f"pictures/{name}.arrow") for name in names])
    links = (desk.scratch.read_table(f"links/{name}.arrow") for name in names)
    splits = draw(pictures, links, desk.config.split)
    start = 0
    for name in names:
        count = desk.scratch.read_table(f"pictures/{name}.arrow").num_rows
        desk.scratch.write_table(f"splits/{name}.arrow", splits.slice(start, count))
        start += count
    watch.advance(pictures.num_rows)
    return {"pictures": pictures.num_rows}


def _write(desk: Desk, args: dict[str, Any], watch: Watch) -> None:
    unit = args["unit"]
    images = desk.dataset.read("images", ["image_id"], unit=unit)["image_id"]
    splits = desk.scratch.read_table(f"splits/{part_name(args['part'])}.arrow")
    rows = splits.filter(pa.compute.is_in(splits["image_id"], value_set=images.combine_chunks()))
    with desk.unit(unit, watch) as out:
        write_splits(rows, out)
    watch.advance(len(images))


WAVES = (
    Wave("gather", "picture", Desk.orders, _gather),
    Wave("join", "picture", _plan_join, _join),
    Wave("write", "picture", Desk.orders_of_units, _write),
)
