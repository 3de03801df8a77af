"""What `refloom curate` and `report` do, between the command line and the library."""

import argparse
import sys

import yaml

from refloom.cli.ingest import print_counts
from refloom.curation.api import curate as run
from refloom.curation.config import Curation
from refloom.ingest.engine.pool import Pool
from refloom.ingest.engine.showing import showing
from refloom.schemas import strict
from refloom.schemas.dataset import Dataset
from refloom.schemas.settings import load, to_dict
from refloom.schemas.storage import absolute_url

_MOST_SHOWN = 20


def curate(options: argparse.Namespace) -> int:
    """`refloom curate DATASET`: 0, or 1 if some items failed, or no sample was made."""
    config = load(Curation, options.config, options.overrides)
    if options.print_config:
        print(yaml.safe_dump(to_dict(config), sort_keys=False), end="")
        return 0
    found = run(
        options.dataset,
        config=config,
        only=options.only,
        until=options.until,
        replace=options.replace,
        retry_failed=options.retry_failed,
        dry_run=options.dry_run,
        workers=options.workers,
        address=options.address,
        item_timeout=options.item_timeout,
        show=True,
    )
    for role, model in sorted(found.models.items()):
        print(f"{role}: {model}")
    for stage in found.without_model:
        print(f"{stage}: left out, its model is not there; `refloom models` says how to get one")
    if options.dry_run:
        for stage, units in found.due.items():
            print(f"{stage}: due for {len(units)} units")
        return 0
    dataset = Dataset(found.url)
    codes = [print_counts(dataset, stage) for stage in found.due]
    is_composed = (options.only or options.until or "compose") == "compose" and bool(dataset.manifests("compose"))
    if is_composed and not any(counts.kept for counts in dataset.counts("compose").values()):
        print("refloom: nothing was kept: no sample was made; `refloom status` shows where it went", file=sys.stderr)
        return 1
    return max(codes, default=0)


def mend(options: argparse.Namespace) -> int:
    """`refloom mend DATASET`: 0 if everything holds now, 1 otherwise."""
    from refloom.curation.mend import mend as run_mend

    pool = Pool(workers=options.workers, address=options.address, item_timeout_s=options.item_timeout)
    with showing(True) as show:
        before, after = run_mend(absolute_url(options.dataset), pool, show)
    if before.sound:
        print("everything holds: there is nothing to mend")
        return 0
    for problem in before.problems[:_MOST_SHOWN]:
        print(f"  found {problem}")
    if len(before.problems) > _MOST_SHOWN:
        print(f"  ... and {len(before.problems) - _MOST_SHOWN:,} more")
    for problem in after.problems[:_MOST_SHOWN]:
        print(f"  LEFT {problem}")
    print("mended: everything holds" if after.sound else f"{len(after.problems)} problems are left")
    return 0 if after.sound else 1


def report(options: argparse.Namespace) -> int:
    """`refloom report DATASET`: writes the page, or prints its figures as json."""
    from refloom.viewing.report import figures
    from refloom.viewing.report import report as write

    if options.json:
        print(strict.dumps(figures(Dataset(absolute_url(options.dataset))), indent=1))
        return 0
    print(write(options.dataset, options.out or None))
    return 0
