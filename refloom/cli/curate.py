"""What `refloom curate` and `report` do, between the command line and the library."""

import argparse
import sys

import yaml

from refloom.cli.ingest import pool, print_counts
from refloom.curation.config import Curation
from refloom.curation.job import curate as run
from refloom.ingest.engine.progress import Progress
from refloom.schemas import strict
from refloom.schemas.dataset import Dataset
from refloom.schemas.settings import load, to_dict
from refloom.schemas.storage import absolute_url


def curate(options: argparse.Namespace) -> int:
    """`refloom curate DATASET`: 0, or 1 if some items failed, or no sample was made."""
    config = load(Curation, options.config, options.overrides)
    if options.print_config:
        print(yaml.safe_dump(to_dict(config), sort_keys=False), end="")
        return 0
    url = absolute_url(options.dataset)
    shown: list[Progress] = []
    stages: list[str] = []

    def show(title: str, item: str) -> Progress:
        stage = title.split()[0]
        if shown and stages[-1] == stage:  # waves of one stage, most of them short, share a line
            shown[-1].turn(title, item)
            return shown[-1]
        for earlier in shown[-1:]:
            earlier.close()
        stages.append(stage)
        shown.append(Progress(title, item))
        return shown[-1]

    plan = run(
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
    for last in shown[-1:]:
        last.close()
    for role, model in sorted(plan.models.items()):
        print(f"{role}: {model}")
    for stage in plan.without_model:
        print(f"{stage}: left out, its model is not there; `refloom models` says how to get one")
    if options.dry_run:
        for stage, units in plan.due.items():
            print(f"{stage}: due for {len(units)} units")
        return 0
    dataset = Dataset(url)
    codes = [print_counts(dataset, stage) for stage in plan.due]
    is_composed = (options.only or options.until or "compose") == "compose" and bool(dataset.manifests("compose"))
    if is_composed and not any(counts.kept for counts in dataset.counts("compose").values()):
        print("refloom: nothing was kept: no sample was made; `refloom status` shows where it went", file=sys.stderr)
        return 1
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
