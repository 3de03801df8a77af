"""`refloom.export(...)`: what `refloom export` does, as a function."""

import os
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from refloom.ingest.engine.showing import Show, showing
from refloom.ingest.engine.tasks import Pool
from refloom.schemas import copies
from refloom.schemas.dataset import Dataset, Place, opened
from refloom.schemas.errors import Refused
from refloom.schemas.metadata.stripping import VERSION
from refloom.schemas.ranges import COUNT
from refloom.schemas.storage import Folder, absolute_url
from refloom.schemas.storeerrors import store_errors_stop
from refloom.schemas.takedownlist import refuse_listed
from refloom.schemas.wording import quoted
from refloom.sharing.export.edit.settings import LAYOUTS, Edit
from refloom.sharing.export.folder import Place as OutFolder
from refloom.sharing.export.folder import Written
from refloom.sharing.export.formats import FORMATS, Format
from refloom.sharing.export.reading import Choice

_SPLITS = ("train", "validation")
_EDIT_DEFAULTS = {field.name: None if field.default is MISSING else field.default for field in fields(Edit)}


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        url: of its folder.
        written: what, by the word for it; words that begin with `failed` are failures.
        was_there: it was whole before.
    """

    url: str
    written: Written
    was_there: bool

    @property
    def failed(self) -> int:
        """What could not be written, such as pictures whose bytes were not there."""
        return sum(count for word, count in self.written.items() if word.startswith("failed"))


@store_errors_stop()
def export(
    dataset: Place,
    out: str | os.PathLike[str],
    format: str,  # noqa: A002  the option's name
    *,
    split: str | None = None,
    limit: int | None = None,
    kept: bool = False,
    per_shard: int = 1000,
    keep_metadata: bool = False,
    layout: str | None = None,
    reference: str = "cutout",
    per_subject: int = 1,
    seed: int = 0,
    same_image: bool = False,
    instructions: str = "own",
    prefix: str | None = None,
    redistributable: bool = False,
    workers: int | None = None,
    address: str | None = None,
    item_timeout: float | None = 300.0,
    show: bool | Show = False,
) -> Exported:
    """Write a dataset in another format. Resumes.

        refloom.export("DATASET", "OUT", "webdataset", split="train")
        refloom.export("DATASET", "OUT", "edit", layout="omnigen2", reference="cutout", per_subject=2)

    Args:
        dataset: a folder, an fsspec URL, or a dataset.
        out: new or empty folder, or an unfinished export of the same.
        format: a key of `FORMATS`: coco, easyref, subject10k, webdataset, edit, bbox.
        split: `train` or `validation`; None for all.
        limit: the first so many samples, or pictures for coco and bbox.
        kept: of coco and bbox: only objects that the selection kept.
        per_shard: of webdataset: samples in a tar.
        keep_metadata: pictures keep what their files say beside the pixels: places, names, thumbnails.
        layout, reference, per_subject, seed, same_image, instructions, prefix, redistributable: of edit, see
            `refloom.sharing.export.edit.settings.Edit`.
        workers: of edit and bbox: processes; None for all cores, 0 for one child process, without Ray.
        address: of edit and bbox: of a Ray cluster; None starts Ray on this machine.
        item_timeout: of edit and bbox: longest time for one item, seconds.
        show: True prints progress to stderr as the command does; or a function, see `refloom.ingest.engine.showing`.

    Raises:
        Refused: no such format or split, a number below 1, the dataset is not ready, or `out` holds something else.
    """
    declared = FORMATS.find(str(format))
    _check(format, split, limit, kept, per_shard)
    asked = {
        "layout": layout,
        "reference": reference,
        "per_subject": per_subject,
        "seed": seed,
        "same_image": same_image,
        "instructions": instructions,
        "prefix": prefix,
        "redistributable": redistributable,
    }
    choice = Choice(
        split=split,
        limit=limit,
        kept=kept,
        per_shard=per_shard,
        keep_metadata=keep_metadata,
        edit=_edit(format, asked),
        pool=Pool(workers=workers, address=address, item_timeout_s=item_timeout) if declared.pooled else None,
    )
    if not declared.pooled and (workers is not None or address is not None):
        raise Refused(f"--workers and --address are for formats that several workers write: {format} is written by one")
    found, url = opened(dataset), absolute_url(out)
    refuse_listed(found)
    if kept and set(found.manifests("select")) != set(found.units()):
        raise Refused(f"{found.url} is not selected yet: run `refloom curate {quoted(found.url)} --until select`")
    if Folder(url).root == found.folder.root:
        raise Refused(f"{url} is the dataset itself: give another folder")
    return _write(found, url, format, choice, show)


def _write(found: Dataset, url: str, format: str, choice: Choice, show: bool | Show) -> Exported:  # noqa: A002
    """Claim the folder, write what is asked for, and say that it is whole."""
    declared = FORMATS.find(format)
    place = OutFolder(url, _settings(found, format, declared, choice))
    written = place.claim()
    copies.note(found.folder, "export", url, format=format)
    if written is not None:
        return Exported(url, written, was_there=True)
    with showing(show) as display:
        item = declared.item
        on_status = display("export", item) if display is not None else lambda status: None
        try:
            written = declared.writer(found, place, choice, on_status)
        except Refused:
            place.leave()
            raise
    place.finish(written)
    return Exported(url, written, was_there=False)


def _check(format: str, split: str | None, limit: int | None, kept: bool, per_shard: int) -> None:  # noqa: A002
    """Refuse options that cannot be."""
    if split not in (None, *_SPLITS):
        raise Refused(f"--split {split}: give {' or '.join(_SPLITS)}, or none for all")
    for option, value in (("--limit", 1 if limit is None else limit), ("--per-shard", per_shard)):
        if not COUNT.takes(value):
            raise Refused(f"{option} must be 1 or more")
    if kept and format not in ("coco", "bbox"):
        raise Refused(
            "--kept is for --format coco and bbox: the other formats are made of samples, which hold kept objects only"
        )


def _edit(name: str, asked: dict[str, Any]) -> Edit | None:
    """The settings of `edit`.

    Raises:
        Refused: one is given for another format, or out of its range, or the layout is not given.
    """
    if name != "edit":
        given = [option for option, value in asked.items() if value != _EDIT_DEFAULTS[option]]
        if given:
            raise Refused(f"--{given[0].replace('_', '-')} is for --format edit, not {name}")
        return None
    if asked["layout"] is None:
        raise Refused(f"--format edit needs --layout: give one of {', '.join(LAYOUTS)}")
    return Edit(**asked)


def _settings(dataset: Dataset, name: str, declared: Format, choice: Choice) -> dict[str, Any]:
    """What the output depends on."""
    settings: dict[str, Any] = {"format": name, "split": choice.split, "limit": choice.limit}
    settings["metadata"] = "kept" if choice.keep_metadata else f"stripped by {VERSION}"
    if name in ("coco", "bbox"):
        settings["kept"] = choice.kept
    if choice.edit is not None:
        settings |= {f"edit.{field}": value for field, value in asdict(choice.edit).items()}
    if name == "webdataset":
        settings["per_shard"] = choice.per_shard
    settings |= FORMATS.record([name])
    return settings | {"dataset": {table: dataset.fingerprint(table) for table in declared.tables}}
