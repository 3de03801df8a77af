"""What is said of a takedown: what every entry of a list came to, and where copies lie. Text out of plain facts."""

import shlex
from collections.abc import Iterator
from typing import Any

from refloom.schemas.wording import several, shown, some
from refloom.sharing.publish.removal import Removed
from refloom.sharing.publish.takedown import Reached, Takedown

_MOST_TOLD = 1000
"""Entries that are told of one by one; `--json` tells of all."""


def told(taken: Takedown) -> Iterator[str]:
    """What every entry of a list came to, a line each."""
    for one in taken.reached[:_MOST_TOLD]:
        yield f"  {shown(one.entry)}: {_reached(one)}"
    if len(taken.reached) > _MOST_TOLD:
        yield f"  ... and {len(taken.reached) - _MOST_TOLD:,} more entries"
    if taken.twins:
        yield f"  of the very same bytes, and gone too: {some(taken.twins)}"
    if taken.near:
        yield f"note: near copies that stay (list them too, if they show the same): {some(taken.near)}"


def _reached(one: Reached) -> str:
    if not one.known:
        return "names nothing here"
    if not one.kinds:
        return "was taken down before"
    what = " and ".join(one.kinds)
    parts = [several(len(one.images), "picture")] if one.images or not one.samples else []
    parts += [several(len(names), noun) for names, noun in ((one.groups, "group"), (one.samples, "sample")) if names]
    named = f" ({some(sorted(one.images), 3)})" if one.images and one.images != {one.entry} else ""
    return f"{what}: {', '.join(parts)}{named}"


def lines(url: str, done: Removed, *, dry_run: bool) -> Iterator[str]:
    """What a removal did, for people."""
    yield from told(done.takedown)
    for name, count in sorted(done.rows.items()):
        table, word = name.split(" ")
        yield f"  {table:14} {count:>9,} rows {'go' if word == 'dropped' else 'lose what was taken down'}"
    if dry_run:
        yield f"nothing was changed: {several(sum(done.units.values()), 'unit')} would be written anew"
    else:
        yield f"{url}: {several(sum(done.units.values()), 'unit')} written anew; the list stays in takedown.json"
    if done.linked:
        yield (
            f"note: the bytes of {several(done.linked, 'picture')} are links: they lie in the source, which refloom "
            "does not change; remove them there"
        )
    for place in done.features:
        yield f"features: {place} lost what was made of these pictures; the `refloom cache` that made it does the rest"
    for name in done.tags:
        yield f"tag {name}: {'would lose' if dry_run else 'lost'} what was taken down, too"
    for name in done.files:
        if name.endswith(".html"):
            yield f"removed: {name}; `refloom report {shlex.quote(url)}` writes it anew"
    for one in done.copies:
        yield f"copy: {_remedy(url, one)}"


def _remedy(url: str, one: dict[str, Any]) -> str:
    """Where a copy lies and how the removal gets there."""
    place = one["place"]
    if one["kind"] == "publication":
        command = f"refloom publish {shlex.quote(url)} {shlex.quote(place)}{_flags(one.get('options') or {})} --replace"
        if one.get("pushed"):
            command += f" --push {shlex.quote(one['pushed'])}"
            command += f" --endpoint {shlex.quote(one['endpoint'])}" if one.get("endpoint") else ""
            return f"published in {place} and at {one['pushed']}: push the removal with `{command} --forget-history`"
        return f"published in {place}: `{command}` takes it out there; what was copied from there is yours to tell"
    if one["kind"] in ("subset", "merge"):
        return f"{one['kind']} in {place}: take it out there too with `refloom takedown {shlex.quote(place)} LIST`"
    if one["kind"] == "export":
        return f"exported to {place}: remove it, then export again"
    if one["kind"] == "training run":
        return f"trained on: {place}; its pages and weights have seen what was taken down"
    return f"{one['kind']} in {place}: remove it, then make it again"


def _flags(options: dict[str, Any]) -> str:
    """The options that a publication was made with."""
    words: list[str] = []
    if options.get("tables", ["samples"]) != ["samples"]:
        words += ["--tables", *options["tables"]]
    for name, flag in (
        ("face_embeddings", "--include-face-embeddings"),
        ("keep_metadata", "--keep-metadata"),
    ):
        words += [flag] if options.get(name) else []
    words += [] if options.get("images", True) else ["--no-images"]
    if options.get("only_sources"):
        words += ["--only-sources", *options["only_sources"]]
    for text in options.get("accept_licenses", ()):
        words += ["--accept-license", text]
    if options.get("shard_bytes", 400e6) != 400e6:
        words += ["--shard-mb", f"{options['shard_bytes'] / 1e6:.12g}"]
    return "".join(f" {shlex.quote(str(word))}" for word in words)


def as_json(done: Removed) -> dict[str, Any]:
    """The same for programs."""
    return {
        "entries": [
            {
                "entry": one.entry,
                "kinds": one.kinds,
                "images": sorted(one.images),
                "groups": sorted(one.groups),
                "samples": sorted(one.samples),
                "gone": one.gone,
            }
            for one in done.takedown.reached
        ],
        "images": sorted(done.takedown.images),
        "twins": list(done.takedown.twins),
        "near": list(done.takedown.near),
        "unknown": list(done.takedown.unknown),
        "rows": dict(sorted(done.rows.items())),
        "units": dict(sorted(done.units.items())),
        "linked": done.linked,
        "features": done.features,
        "files": done.files,
        "tags": done.tags,
        "copies": done.copies,
    }
