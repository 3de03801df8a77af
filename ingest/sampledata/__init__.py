"""Sample data: COCO, YouTube-VIS 2019 and SA-1B trees of any size in the true formats, and scenes to learn from.

Made from the photographs inside installed wheels: cut-outs of real subjects and made subjects with identities of their
own, set into real places. The same arguments give the same bytes, and more pictures only add to fewer.
"""

import shlex
from typing import Any

import orjson

from refloom.ingest.engine.showing import Show, showing
from refloom.ingest.engine.tasks import Pool
from refloom.ingest.sampledata import albums, albumtrees, coco, folders, photos, sa1b, ytvis
from refloom.ingest.sampledata.identities import Identities
from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.ranges import Whole, check
from refloom.schemas.storage import Folder

VERSION = 1
"""Of the pictures: other pictures for the same arguments are another version."""

MARKER = "sample-data.json"
_LICENSE = "mixed: see README.txt of refloom sample-data"
_UNFINISHED = "sample-data.unfinished.json"
_SCENES_TOLD = (
    "scenes/ is a YouTube-VIS tree, too: a video is an album of one cast in four places, a track is a toy, and",
    "captions stand beside the file names. Toys of val are nowhere in train.",
)
_ALBUMS_IN_UNIT = 512
_HERE = Pool(workers=0)
SIDE = Whole(albums.SIDES_PX[0], albums.SIDES_PX[-1], step=albums.SIDES_PX[0])
"""Of scenes, pixels."""


def write(
    out: str,
    *,
    images: int,
    videos: int,
    seed: int,
    scenes: int = 0,
    side_px: int = albums.SIDES_PX[0],
    pool: Pool = _HERE,
    show: bool | Show = False,
) -> list[str]:
    """Write the trees.

    Args:
        out: new or empty folder or fsspec URL, or one that the same arguments wrote, wholly or in part.
        images: COCO pictures (train and val together), and as many in the SA-1B tars.
        videos: of the YouTube-VIS tree.
        seed: another one gives other subjects in other scenes.
        scenes: small pictures of one toy or two, in albums of one cast; see `albums`.
        side_px: of the scenes.
        pool: workers that draw the scenes.
        show: progress of these.

    Returns:
        Lines for people: what was written, and how to ingest it.

    Raises:
        Refused: an argument makes no sense, or the folder holds something else.
    """
    for name, value in (("images", images), ("videos", videos), ("seed", seed), ("scenes", scenes)):
        if value < 0:
            raise Refused(f"--{name} must be 0 or more, not {value}")
    check("--side", side_px, SIDE)
    if not images and not videos and not scenes:
        raise Refused("nothing to write: give --images, --videos or --scenes")
    arguments = {"version": VERSION, "images": images, "videos": videos, "seed": seed}
    arguments |= {"scenes": scenes, "side": side_px} if scenes else {}
    folder = Folder(out)
    if _written(folder, arguments):
        return [f"{out} holds this sample data already", *_told(out, images, videos, scenes)]
    folder.write(_UNFINISHED, orjson.dumps(arguments))

    identities = Identities()
    lines = []
    if images:
        splits = coco.write(folder, seed, images, identities)
        tars = sa1b.write(folder, seed, images, identities)
        kept = folders.write(folder, seed, identities)
        lines.append(f"{images} COCO pictures ({', '.join(splits)}), {images} SA-1B pictures (tars: {tars})")
        lines.append(f"{kept} subject folders with subjects that are nowhere in train")
    if videos:
        frames = ytvis.write(folder, seed, videos, identities)
        lines.append(f"{videos} YouTube-VIS videos with {frames} frames")
    if scenes:
        with showing(show) as shown:
            on_status = shown("scenes", "album") if shown else None
            counts = albumtrees.write(folder, seed, scenes, side_px, identities, pool, on_status)
        lines.append("scenes: " + ", ".join(f"{number:,} of {split}" for split, number in counts.items()))
    folder.write("identities.json", identities.to_json())
    folder.write("README.txt", _readme(arguments, _told(".", images, videos, scenes)).encode())
    folder.write(MARKER, orjson.dumps(arguments, option=orjson.OPT_INDENT_2))
    folder.remove(_UNFINISHED)
    return [f"wrote {out}", *lines, "", *_told(out, images, videos, scenes)]


def _arguments(folder: Folder, name: str) -> dict[str, Any]:
    try:
        return strict.object_in(folder.read(name))
    except ValueError as error:
        raise Refused(f"{folder.url}/{name} is damaged ({error}): give a new or empty folder") from error


def _written(folder: Folder, arguments: dict[str, Any]) -> bool:
    """Whether these arguments wrote the folder to its end; False if it is new, empty, or they were interrupted."""
    if folder.exists(MARKER):
        found = _arguments(folder, MARKER)
        if found == arguments:
            return True
    elif folder.exists(_UNFINISHED):
        found = _arguments(folder, _UNFINISHED)
        if found == arguments:
            return False
    elif folder.names() or folder.folders():
        raise Refused(f"{folder.url} is not empty: give a new or empty folder, so that nothing of yours is overwritten")
    else:
        return False
    told = ", ".join(f"{name} {value}" for name, value in found.items())
    raise Refused(f"{folder.url} holds sample data made with other arguments ({told}): give another folder")


def ingest_commands(
    out: str, images: int, videos: int, dataset: str = "DATASET", *, scenes: int = 0
) -> list[list[str]]:
    """The arguments of `refloom` that take each tree into a dataset.

    Args:
        out, images, videos, scenes: as given to `write`.
        dataset: that they go into.
    """

    def at(path: str) -> str:
        return path if out == "." else f"{out.rstrip('/')}/{path}"

    commands = []
    if images:
        for split in coco.SPLITS[: 1 + (images > 1)]:
            instances, captions = (at(f"coco/annotations/{what}_{split}.json") for what in ("instances", "captions"))
            commands.append(["coco", "--images", at(f"coco/{split}"), "--instances", instances, "--captions", captions])
        commands.append(["sa1b", at("sa1b"), "--license", _LICENSE])
        commands.append(["subjects", at("subjects")])
    if videos:
        frames, instances = at("ytvis/train/JPEGImages"), at("ytvis/train/instances.json")
        commands.append(["ytvis", "--frames", frames, "--annotations", instances])
    for split in albumtrees.SPLITS if scenes else ():
        tree = at(f"{albumtrees.NAME}/{split}")
        names = ["--name", albumtrees.NAME, "--unit-size", str(_ALBUMS_IN_UNIT)]
        commands.append(
            ["ytvis", "--frames", f"{tree}/JPEGImages", "--annotations", f"{tree}/instances_{split}.json", *names]
        )
    return [["ingest", *command, "--out", dataset] for command in commands]


def _told(out: str, images: int, videos: int, scenes: int) -> list[str]:
    """What to run next, as lines for a shell."""
    return [shlex.join(["refloom", *command]) for command in ingest_commands(out, images, videos, scenes=scenes)]


def _readme(arguments: dict[str, Any], commands: list[str]) -> str:
    sources = [f"  {entry['name']}  {entry['url']}".rstrip() for entry in photos.licenses()]
    told = " ".join(f"--{name} {value}" for name, value in arguments.items() if name != "version")
    return "\n".join(
        [
            f"Sample data of refloom, made by: refloom sample-data OUT {told}",
            "",
            "COCO, YouTube-VIS 2019 and SA-1B trees in the true formats, and folders of subjects. The pictures are",
            "composed from the photographs below, cut-outs of them, and made subjects; every mask is exact. Subjects",
            "of val2017 and of subjects/ are nowhere in train. identities.json says who is where; no format knows it.",
            *(_SCENES_TOLD if arguments.get("scenes") else ()),
            "",
            "The pictures are made from photographs that the packages scikit-image and scikit-learn ship, and are",
            "under the licenses of these. SA-1B's format names no license, hence the --license below.",
            *sources,
            "",
            "To ingest, from this folder:",
            *(f"  {command}" for command in commands),
            "",
        ]
    )
