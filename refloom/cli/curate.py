"""What `refloom curate` and `report` do, between the command line and the library."""

import argparse

import yaml

from refloom.cli.ingest import pool, print_counts
from refloom.curation.config import Curation
from refloom.curation.job import curate as run
from refloom.ingest.engine.progress import Progress
from refloom.schemas import copies, strict
from refloom.schemas.dataset import Dataset
from refloom.schemas.settings import load, to_dict
from refloom.schemas.storage import absolute_url

_MOST_SHOWN = 20


def curate(options: argparse.Namespace) -> int:
    """`refloom curate DATASET`: 0, or 1 if some items failed."""
    config = load(Curation, options.config, options.overrides)
    if options.print_config:
        print(yaml.safe_dump(to_dict(config), sort_keys=False), end="")
        return 0
    url, show = absolute_url(options.dataset), _Lines()
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
    show.close()
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
    return max(codes, default=0)


class _Lines:
    """A progress line a stage; waves of one stage, most of them short, share a line."""

    def __init__(self) -> None:
        self._shown: list[Progress] = []
        self._stage = ""

    def __call__(self, title: str, item: str) -> Progress:
        stage = title.split()[0]
        if self._shown and self._stage == stage:
            self._shown[-1].turn(title, item)
            return self._shown[-1]
        self.close()
        self._stage = stage
        self._shown.append(Progress(title, item))
        return self._shown[-1]

    def close(self) -> None:
        for last in self._shown[-1:]:
            last.close()
        self._shown.clear()


def mend(options: argparse.Namespace) -> int:
    """`refloom mend DATASET`: 0 if everything holds now, 1 otherwise."""
    from refloom.curation.mend import mend as run_mend

    show = _Lines()
    before, after = run_mend(absolute_url(options.dataset), pool(options), show)
    show.close()
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
    from refloom.viewing.report import figures, write_page

    dataset = Dataset(absolute_url(options.dataset))
    if options.json:
        print(strict.dumps(figures(dataset), indent=1))
        return 0
    page = write_page(dataset, absolute_url(options.out) if options.out else None)
    if options.out:
        copies.note(dataset.folder, "page", page)
    print(page)
    return 0
