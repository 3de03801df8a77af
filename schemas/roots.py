"""Roots of linked pictures: which folders `--link` points into, whether they are still there, and a root given anew.

A dataset keeps a root as the place it was ingested from. When the source moves, dataset.json takes the new place; the
manifests keep the old one, as they keep everything that was said at ingest.
"""

import hashlib
from typing import Any

from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder
from refloom.schemas.wording import some

_TRIED = 8
_COLUMNS = ["image_id", "sha256", "link"]


def moved(dataset: Dataset) -> list[str]:
    """A line for each root whose folder is not there: where it was looked for, and the command that mends it."""
    lines = []
    for name, url in sorted(_roots(dataset).items()):
        if not _is_there(url):
            lines.append(
                f"linked pictures of {name} were looked for below {url}, which is not there: bring it back, or say "
                f"where it is now by `refloom relink {dataset.url} NEW_FOLDER --root {name}`, "
                "then run the same command with --retry-failed"
            )
    return lines


def tried(dataset: Dataset) -> list[str]:
    """A line for each root: where its pictures are looked for, and the command that says where else."""
    return moved(dataset) or [
        f"linked pictures of {name} are looked for below {url}: if they lie elsewhere now, "
        f"`refloom relink {dataset.url} NEW_FOLDER --root {name}` says where"
        for name, url in sorted(_roots(dataset).items())
    ]


def give(dataset: Dataset, name: str, url: str) -> list[str]:
    """Point a root at another folder, of the tags of the dataset too; for the holder of the lease.

    Args:
        dataset: is changed in dataset.json alone.
        name: of the root.
        url: the folder that the links are relative to now.

    Returns:
        The links that were tried, all of them good.

    Raises:
        Refused: no such root, no pictures of it, or another picture lies where a link points.
    """
    roots = _roots(dataset)
    if name not in roots:
        raise Refused(
            f"{dataset.url} has no root {name}: "
            + (f"its roots are {some(sorted(roots))}" if roots else "no pictures of it are linked")
        )
    rows = _linked(dataset, name)
    if not rows:
        raise Refused(f"{dataset.url} has no linked pictures below the root {name}: there is nothing to give anew")
    source = Folder(url)
    for row in rows:
        link = row["link"]
        path = f"{url.rstrip('/')}/{link['file']}"
        wanted = (
            f"where {row['image_id']} should lie: give the folder that takes the place of {roots[name]}, "
            "as it was given to `refloom ingest`"
        )
        try:
            (data,) = source.read_ranges(link["file"], [(link["offset"], link["offset"] + link["length"])])
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Refused(f"{path} is not there, {wanted}") from error
        except (OSError, EOFError) as error:
            raise Refused(f"{path} cannot be read ({type(error).__name__}), {wanted}") from error
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise Refused(f"{path} holds another picture, {wanted}")
    for held in (dataset, *(Dataset(dataset.url, tag=tag) for tag in dataset.tags())):
        if name in _roots(held):
            held.set_roots({name: url})
            held.write_index()
    return [row["link"]["file"] for row in rows]


def place(dataset: Dataset, name: str) -> str | None:
    """The folder of a root; None if dataset.json has none of that name."""
    return _roots(dataset).get(name)


def only(dataset: Dataset) -> str:
    """The name of the only root.

    Raises:
        Refused: there are none or several.
    """
    roots = _roots(dataset)
    if len(roots) != 1:
        raise Refused(
            f"{dataset.url} has {len(roots)} roots of linked pictures"
            + (f" ({some(sorted(roots))}): say which by --root" if roots else ": nothing in it is linked")
        )
    return next(iter(roots))


def _roots(dataset: Dataset) -> dict[str, str]:
    roots = dataset.index.get("roots", {})
    return {name: url for name, url in roots.items() if isinstance(url, str)} if isinstance(roots, dict) else {}


def _is_there(url: str) -> bool:
    try:
        return Folder(url).exists()
    except (OSError, Refused):
        return False


def _linked(dataset: Dataset, name: str) -> list[dict[str, Any]]:
    """Some linked pictures below a root, from every unit a few."""
    units = [unit for unit, manifest in dataset.manifests("ingest").items() if name in manifest.roots]
    found = []
    for unit in units[:: max(1, len(units) // _TRIED)]:
        rows = [row for row in dataset.read("images", _COLUMNS, unit=unit).to_pylist() if row["link"]]
        rows = [row for row in rows if row["link"]["root"] == name]
        found += rows[:: max(1, len(rows) // 2)][:2]
    return found
