"""What `refloom curate` and `report` do, between the command line and the library."""

import argparse

import yaml

from refloom.cli.ingest import print_counts
from refloom.curation.api import curate as run
from refloom.curation.config import Curation
from refloom.schemas import strict
from refloom.schemas.dataset import Dataset
from refloom.schemas.settings import load, to_dict
from refloom.schemas.storage import absolute_url


def curate(options: argparse.Namespace) -> int:
    """`refloom curate DATASET`: 0, or 1 if some items failed."""
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
    return max(codes, default=0)


def report(options: argparse.Namespace) -> int:
    """`refloom report DATASET`: writes the page, or prints its figures as json."""
    from refloom.viewing.report import figures
    from refloom.viewing.report import report as write

    if options.json:
        print(strict.dumps(figures(Dataset(absolute_url(options.dataset))), indent=1))
        return 0
    print(write(options.dataset, options.out or None))
    return 0
