"""What `refloom train`, `refloom cache` and `refloom heldout` do, between the command line and the library."""

import argparse
import re
from pathlib import Path

from refloom.schemas import tags
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder, absolute_url, local_path
from refloom.schemas.storeerrors import full_disk_stops
from refloom.training.recipes import book


def train(options: argparse.Namespace) -> int:
    """`refloom train --config NAME`: 0."""
    recipe = book.load(options.config, options.overrides)
    if options.print_config:
        print(book.dump(recipe), end="")
        return 0
    if options.preview:
        from refloom.training.watch.preview import preview, render

        page = local_path(options.preview, "the page of a preview")
        shown = preview(options.config, recipe.data.sources, recipe.view, recipe.loading)
        with full_disk_stops(str(page)):
            page.write_text(render([shown]), "utf-8")
        print(page)
        return 0
    from refloom.training.api import train as run

    adapter = run(options.config, options.out or None, settings=options.overrides, resume=options.resume, show=True)
    print(f"what was trained is in {adapter}")
    return 0


def heldout(options: argparse.Namespace) -> int:
    """`refloom heldout ADAPTER --config NAME`: 0."""
    from refloom.inference.assembly import check_device
    from refloom.training.watch.heldout import compare

    recipe = book.load(options.config, options.overrides)
    device = check_device(options.device)
    found = compare(recipe, options.adapter, samples=options.samples, device=device)
    print(
        f"{found.samples} samples: loss {found.right:.4f} with the right references, {found.shuffled:.4f} with those "
        f"of other samples: {found.difference:+.4f} ± {found.error:.4f}, {found.margin:+.1%}"
    )
    return 0


def cache(options: argparse.Namespace) -> int:
    """`refloom cache DATASET --recipe NAME`: 0, or 1 if some samples failed."""
    from refloom.cli.evaluate import pool
    from refloom.inference.assembly import check_device
    from refloom.ingest.engine.progress import Progress
    from refloom.training.api import remember
    from refloom.training.data.index import Index
    from refloom.training.features import cache as features
    from refloom.training.features.identity import settings_of
    from refloom.training.methods.known import METHODS

    recipe = book.load(options.recipe, options.overrides)
    if not recipe.models.base:
        raise Refused("there is no base: set models.base to a folder of a diffusers pipeline, or an OWNER/NAME")
    METHODS[recipe.method].check_encoder(recipe)
    dataset, tag = tags.owner(tags.place(absolute_url(options.dataset), options.tag))
    samples = tags.place(dataset, tag)
    own = f"{_slug(options.recipe)}{f'.{tag}' if tag else ''}"
    url = absolute_url(options.out or f"{dataset}/features/{own}")
    device = check_device(options.device)
    asked = features.Options(
        split=options.split, variants=options.variants, batch=options.batch, device=device, replace=options.replace
    )
    if options.dry_run:
        index = Index(samples, options.split)
        left = features.look_ahead(index, Folder(url), settings_of(recipe), asked)
        print(f"{len(left.due):,} units to make, of {sum(left.rows.values()):,} samples, {len(left.there):,} are there")
        print(f"nothing was written to {url}")
        return 0
    if not url.startswith(f"{dataset}/"):
        remember(dataset, "features", url)
    with Progress("features", "sample") as progress:
        summary, counts = features.cache(recipe, samples, url, asked, pool(options, device), progress)
    size = sum(summary.units.values())
    reasons = (counts.rejected + counts.failed).most_common()
    print(
        f"  {counts.input:,} samples in, {counts.kept:,} kept, {counts.rejected.total():,} rejected, "
        f"{counts.failed.total():,} failed" + "".join(f"; {reason} {count:,}" for reason, count in reasons)
    )
    print(f"  {size / 2**20:,.1f} MiB, {size / max(1, counts.kept) / 2**10:,.1f} KiB a sample, in {url}")
    if not summary.whole:
        print("note: references are read by what is trained, so only latents and texts are kept")
    named = f"url: {dataset}{f', tag: {tag}' if tag else ''}"
    print(f"train with it: --set 'data.sources=[{{{named}, features: {url}}}]'")
    if counts.failed:
        print("some failed: the same command tries again")
    return 1 if counts.failed else 0


def _slug(recipe: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(Path(recipe).with_suffix(""))).strip("-.")
