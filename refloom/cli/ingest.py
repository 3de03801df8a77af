"""What `refloom ingest`, `status`, `verify` and `sample-data` do, between the command line and the library."""

import argparse
import os
import shutil
import sys

import pyarrow.compute as pc

from refloom.ingest import losses, sources
from refloom.ingest.api import ingest as take
from refloom.ingest.job import IngestPlan
from refloom.schemas import card, commands, roots, strict
from refloom.schemas.dataset import Dataset
from refloom.schemas.lease import Lease
from refloom.schemas.notes import NOTES
from refloom.schemas.status import status as status_of
from refloom.schemas.storage import Folder, absolute_url
from refloom.schemas.verify import verify as check

_NAMED = 3
"""Failed items that are shown after a run."""


def ingest(options: argparse.Namespace) -> int:
    """`refloom ingest SOURCE`: 0, or 1 if some rows failed or no picture was kept."""
    found = take(
        sources.from_options(options),
        options.out,
        link=options.link,
        dry_run=options.dry_run,
        retry_failed=options.retry_failed,
        replace=options.replace,
        workers=options.workers,
        address=options.address,
        item_timeout=options.item_timeout,
        show=True,
    )
    plan = found.plan
    arguments = getattr(options, "arguments", None)  # None where this is not called by the command line
    if plan.todo and arguments and not options.dry_run:
        commands.record(Folder(found.url), [plan.key for plan in plan.plans], arguments, os.getcwd())
    for note in found.notes:
        print(f"note: {note}")
    if options.dry_run:
        return _dry_run(plan, found.url, link=options.link)
    print(f"{len(plan.todo)} units done now, {len(plan.done)} were there already; dataset: {found.url}")
    units = {unit.name for unit in plan.todo} | set(plan.done)
    dataset = Dataset(found.url, lenient=True)
    code = print_counts(dataset, "ingest", units)
    if nothing := losses.nothing_kept(dataset.counts("ingest", units)):
        print(f"refloom: {nothing}", file=sys.stderr)
        return 1
    return code


def print_counts(dataset: Dataset, stage: str, units: set[str] | None = None) -> int:
    """Print what became of each kind of item, and of which nearly all went for one reason; 1 if any failed."""
    failed = 0
    every = dataset.counts(stage, units)
    for kind, counts in sorted(every.items()):
        reasons = [f"{name} {number:,}" for name, number in (counts.rejected + counts.failed).most_common()]
        failed += counts.failed.total()
        print(
            f"  {stage:8} {kind:10} {counts.input:>9,} in {counts.kept:>9,} kept "
            f"{counts.rejected.total():>8,} rejected "
            f"{counts.failed.total():>6,} failed   {', '.join(reasons)}"
        )
    for word, count in sorted(dataset.notes(stage, units).items()):
        print(f"  {stage:8} note       {count:>9,} {NOTES.get(word, word)}")
    if failed:
        _name_failed(dataset, stage, units)
        is_missed = stage != "ingest" and any("missing_file" in counts.failed for counts in every.values())
        for line in roots.tried(dataset) if is_missed else roots.moved(dataset):
            print(f"    {line}")
    for line in losses.lines(dataset, stage, every, units):
        print(f"    {line}")
    return 1 if failed else 0


def _name_failed(dataset: Dataset, stage: str, units: set[str] | None) -> None:
    """Print the first failed items, so that nobody has to open the ledger to see what went wrong."""
    ledger = dataset.ledger(stage) if units is None else None
    parts = [ledger] if ledger is not None else (dataset.ledger(stage, unit=unit) for unit in sorted(units or ()))
    shown = 0
    for part in parts:
        for row in part.filter(pc.equal(part["verdict"], "failed")).slice(0, _NAMED - shown).to_pylist():
            told = ": ".join(filter(None, [row["item_id"], row["reason"], row["detail"]]))
            print(f"    failed {row['kind']} {told}")
            shown += 1
        if shown == _NAMED:
            print("    ... what follows from them is failed too; all are in the ledger, `--retry-failed` tries again")
            return


def _dry_run(plan: IngestPlan, url: str, *, link: bool) -> int:
    size = sum(unit.size for unit in plan.todo)
    annotations = sum(len(unit.payload) for unit in plan.todo)
    needed = annotations if link else size + annotations
    print(f"{len(plan.todo)} units to do, {len(plan.done)} are there already, {len(plan.dropped)} would go")
    items: dict[str, int] = {}
    for unit in plan.todo:
        for kind, count in unit.items.items():
            items[kind] = items.get(kind, 0) + count
    print("  " + ", ".join(f"{count:,} {kind}s" for kind, count in items.items()))
    print(f"  {size / 1e9:,.2f} GB to read, about {needed / 1e9:,.2f} GB of disk needed")
    if "://" not in url:
        place = url
        while not os.path.exists(place):
            place = os.path.dirname(place)
        free = shutil.disk_usage(place).free
        print(f"  {free / 1e9:,.2f} GB free" + (": NOT ENOUGH" if free < needed else ""))
    return 0


def status(options: argparse.Namespace) -> int:
    """`refloom status`: what the dataset holds."""
    dataset = Dataset(absolute_url(options.dataset))
    found = status_of(dataset)
    if options.json:
        print(strict.dumps(found, indent=1))
    else:
        for name, entry in found["tables"].items():
            print(f"{name:14} {entry['rows']:>12,} rows {entry['units']:>6} units  {entry['fingerprint'][:16]}")
        print()
        for stage, now in found["stages"].items():
            if now["state"] != "absent":
                print(f"{stage}: {now['state']}")
                print_counts(dataset, stage)
    return 0


def verify(options: argparse.Namespace) -> int:
    """`refloom verify`: 0 if everything holds, 1 otherwise; of a dataset, or of a publication."""
    findings = check(options.dataset, decode_per_unit=options.sample, derived=True)
    if options.json:
        print(strict.dumps(findings.to_json(), indent=1))
    else:
        for line in findings.lines():
            print(line)
    return 0 if findings.sound else 1


def relink(options: argparse.Namespace) -> int:
    """`refloom relink DATASET FOLDER`: 0 once some links of the root lead to the very pictures that were ingested."""
    dataset = Dataset(absolute_url(options.dataset))
    with Lease(dataset.folder):
        name = options.root or roots.only(dataset)
        url = absolute_url(options.folder)
        tried = roots.give(dataset, name, url)
        card.write(dataset)
    print(f"{name} is now {url}; {len(tried)} of its pictures were looked at and are those that were ingested")
    print(f"`refloom curate {dataset.url} --retry-failed` does again what had failed")
    return 0


def sample_data(options: argparse.Namespace) -> int:
    """`refloom sample-data`."""
    from refloom.ingest.engine.tasks import Pool
    from refloom.ingest.sampledata import write

    written = write(
        absolute_url(options.out),
        images=options.images,
        videos=options.videos,
        seed=options.seed,
        scenes=options.scenes,
        side_px=options.side,
        pool=Pool(workers=options.workers, address=options.address, item_timeout_s=options.item_timeout),
        show=True,
    )
    for line in written:
        print(line)
    return 0
