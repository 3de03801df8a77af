"""The readers of each format, and which of them a command line asks for."""

import argparse
from typing import Any

from refloom.ingest.source import Source
from refloom.schemas.errors import Refused
from refloom.schemas.storage import absolute_url


def from_options(options: argparse.Namespace) -> Source:
    """The source that `refloom ingest SOURCE ...` names.

    Raises:
        Refused: a unit or a limit of nothing.
    """
    for option in ("unit_size", "limit"):
        if getattr(options, option, None) is not None and getattr(options, option) < 1:
            raise Refused(f"--{option.replace('_', '-')} must be 1 or more")
    if not options.name.strip():
        raise Refused("--name must not be empty")
    common: dict[str, Any] = {"name": options.name, "limit": options.limit}
    if getattr(options, "unit_size", None) is not None:
        common["unit_size"] = options.unit_size
    path = absolute_url
    match options.source:
        case "coco":
            from refloom.ingest.sources.coco import Coco

            captions = path(options.captions) if options.captions else None
            return Coco(
                images=path(options.images),
                instances=path(options.instances),
                captions=captions,
                crowds=options.crowds,
                **common,
            )
        case "ytvis":
            from refloom.ingest.sources.ytvis import YouTubeVis

            return YouTubeVis(
                frames=path(options.frames),
                annotations=path(options.annotations),
                frame_rate=options.frame_rate,
                crowds=options.crowds,
                **common,
            )
        case "sa1b":
            from refloom.ingest.sources.sa1b import Sa1b

            tars = tuple(path(tar) for tar in options.tars)
            return Sa1b(tars=tars, linked=options.link, license=options.license, **common)
        case "vos":
            from refloom.ingest.sources.vos import Vos

            return Vos(root=path(options.root), frame_rate=options.frame_rate, **common)
        case "subjects":
            from refloom.ingest.sources.subjects import Subjects

            return Subjects(directory=path(options.directory), phrase_from_folder=options.phrase_from_folder, **common)
        case "easyref":
            from refloom.ingest.sources.easyref import EasyRef

            return EasyRef(records=path(options.json), images=path(options.images), **common)
        case "subject10k":
            from refloom.ingest.sources.subject10k import Subject10k

            select = path(options.select) if options.select else None
            return Subject10k(directory=path(options.directory), select=select, **common)
        case "folder":
            from refloom.ingest.sources.folder import PlainPictures

            return PlainPictures(path=path(options.path), **common)
    raise ValueError(options.source)
