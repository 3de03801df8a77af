"""What `refloom curate` and `report` do, between the command line and the library."""

import argparse

import yaml

from refloom.cli.ingest import pool, print_counts
from refloom.curation.config import Curation
from refloom.curation.job import curate as run
from refloom.ingest.engine.progress import Stages
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
    url = absolute_url(options.dataset)
    with Stages() as show:
        outlook = run(
            url,
            config,
            pool(options),
            only=options.only,
            until=options.until,
            replace=options.replace,
            retry_failed=options.retry_failed,
            dry_run=options.dry_run,
            show=show,
        )
    for role, model in sorted(outlook.models.items()):
        print(f"{role}: {model}")
    for stage in outlook.without_model:
        print(f"{stage}: left out, its model is not there; `refloom models` says how to get one")
    if options.dry_run:
        for stage, units in outlook.due.items():
            print(f"{stage}: due for {len(units)} units")
        return 0
    dataset = Dataset(url)
    codes = [print_counts(dataset, stage) for stage in outlook.due]
    return max(codes, default=0)


def report(options: argparse.Namespace) -> int:
    """`refloom report DATASET`: writes the page, or prints its figures as json."""
    from refloom.viewing.report import figures, write_page

    dataset = Dataset(absolute_url(options.dataset))
    if options.json:
        print(strict.dumps(figures(dataset), indent=1))
        return 0
    print(write_page(dataset, absolute_url(options.out) if options.out else None))
    return 0
