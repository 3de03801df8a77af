"""The kinds of sources: what reads each, and its options, of which a command and a function are made.

A source is declared here once; a plugin declares its own. Importing this imports no reader, so that `--help` is quick.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from refloom.schemas.plugins import Registry, imported

_OF_ALL = ("kind", "name", "limit", "unit_size", "linked")
"""Fields of a reader that are no options of its own: it sets the first, and every source has the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a source.

    Attributes:
        field: of the reader's class.
        help: what it is.
        option: on the command line, without dashes, where it is called otherwise.
        metavar: what its value is.
        positional: it is given without a name.
        many: it takes several values.
        required: it must be given.
        place: its value is a file or a folder, or a URL of one.
        number: int or float; None for a text.
        flag: it is on or off.
        choices: the values that it may have.
        default: where it is not given.
    """

    field: str
    help: str
    option: str | None = None
    metavar: str | None = None
    positional: bool = False
    many: bool = False
    required: bool = False
    place: bool = False
    number: type[int] | type[float] | None = None
    flag: bool = False
    choices: tuple[str, ...] | None = None
    default: Any = None

    @property
    def name(self) -> str:
        """On the command line, without dashes."""
        return self.option or self.field


@dataclass(frozen=True, slots=True)
class SourceKind:
    """One kind of source.

    Attributes:
        reader: its class, or `module:Class`: a frozen dataclass that is a `refloom.ingest.source.Source`.
        summary: one line.
        example: of its arguments.
        counts: what `limit` and `unit_size` count.
        has_units: it has `unit_size`.
        options: its own; None for the fields of the class, whose metadata may have `help` and `place`.
    """

    reader: Any
    summary: str
    example: str = ""
    counts: str = "pictures"
    has_units: bool = False
    options: tuple[Option, ...] | None = None

    @property
    def own_options(self) -> tuple[Option, ...]:
        """The options, which are read off the class where none are declared."""
        return tuple(_of_fields(self.reader_class)) if self.options is None else self.options

    @property
    def reader_class(self) -> Any:
        """The class."""
        return imported(self.reader)


def _of_fields(reader: Any) -> Iterable[Option]:
    for one in dataclasses.fields(reader):
        if one.name in _OF_ALL:
            continue
        kind = one.type if isinstance(one.type, type) else {"int": int, "float": float, "bool": bool}.get(str(one.type))
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        yield Option(
            field=one.name,
            option=one.name.replace("_", "-"),
            help=one.metadata.get("help", ""),
            required=required,
            place=bool(one.metadata.get("place")),
            number=kind if kind in (int, float) else None,
            flag=kind is bool,
            default=None if required or one.default is dataclasses.MISSING else one.default,
        )


_CROWDS = Option(
    field="crowds",
    choices=("reject", "keep"),
    default="reject",
    help="what becomes of annotations with iscrowd 1",
)
_FRAME_RATE = "that the frame numbers count in, per second; 0 if unknown"

SOURCES: Registry[SourceKind] = Registry(
    "sources",
    "source",
    {
        "coco": SourceKind(
            "refloom.ingest.sources.coco:Coco",
            "COCO 2014 or 2017: instances and captions",
            "--images val2017 --instances instances_val2017.json",
            has_units=True,
            options=(
                Option(
                    field="images",
                    metavar="DIR",
                    required=True,
                    place=True,
                    help="folder of pictures; usual layouts below it are found",
                ),
                Option(
                    field="instances",
                    metavar="JSON",
                    required=True,
                    place=True,
                    help="annotation json, plain or gzip",
                ),
                Option(field="captions", metavar="JSON", place=True, help="captions json of the same pictures"),
                _CROWDS,
            ),
        ),
        "ytvis": SourceKind(
            "refloom.ingest.sources.ytvis:YouTubeVis",
            "YouTube-VIS 2019 or 2021",
            "--frames train/JPEGImages --annotations instances.json",
            counts="videos",
            has_units=True,
            options=(
                Option(field="frames", metavar="DIR", required=True, place=True, help="folder of <video>/<frame>.jpg"),
                Option(
                    field="annotations",
                    metavar="JSON",
                    required=True,
                    place=True,
                    help="annotation json, plain or gzip",
                ),
                Option(field="frame_rate", option="frame-rate", number=float, default=30.0, help=_FRAME_RATE),
                _CROWDS,
            ),
        ),
        "vos": SourceKind(
            "refloom.ingest.sources.vos:Vos",
            "YouTube-VOS or DAVIS: meta.json and palette PNGs",
            "--root train",
            counts="videos",
            has_units=True,
            options=(
                Option(
                    field="root",
                    metavar="DIR",
                    required=True,
                    place=True,
                    help="folder with JPEGImages, Annotations and maybe meta.json",
                ),
                Option(field="frame_rate", option="frame-rate", number=float, default=0.0, help=_FRAME_RATE),
            ),
        ),
        "sa1b": SourceKind(
            "refloom.ingest.sources.sa1b:Sa1b",
            "SA-1B tars, streamed and never unpacked",
            "sa_000000.tar sa_000001.tar",
            options=(
                Option(
                    field="tars",
                    metavar="TAR_OR_DIR",
                    positional=True,
                    many=True,
                    place=True,
                    help="tars, folders that hold them, or unpacked ones",
                ),
                Option(
                    field="license",
                    default="SA-1B Dataset Research License",
                    help="of the pictures, if they are others",
                ),
            ),
        ),
        "subjects": SourceKind(
            "refloom.ingest.sources.subjects:Subjects",
            "one folder of pictures per subject (DreamBooth layout)",
            "dreambooth",
            has_units=True,
            options=(
                Option(field="directory", metavar="DIR", positional=True, place=True, help="folder of subject folders"),
                Option(
                    field="phrase_from_folder",
                    option="phrase-from-folder",
                    flag=True,
                    default=False,
                    help="use folder names as phrases, e.g. duck_toy as `duck toy`",
                ),
            ),
        ),
        "easyref": SourceKind(
            "refloom.ingest.sources.easyref:EasyRef",
            "EasyRef json: references, or a face, and a target",
            "records.json --images DIR",
            has_units=True,
            options=(
                Option(
                    field="records",
                    option="json",
                    metavar="JSON",
                    positional=True,
                    place=True,
                    help="list of records",
                ),
                Option(
                    field="images",
                    metavar="DIR",
                    required=True,
                    place=True,
                    help="folder that the records' paths are relative to",
                ),
            ),
        ),
        "subject10k": SourceKind(
            "refloom.ingest.sources.subject10k:Subject10k",
            "MIP-Adapter's subject_dataset_10k",
            "subject_dataset_10k --select ids.txt",
            has_units=True,
            options=(
                Option(
                    field="directory",
                    metavar="DIR",
                    positional=True,
                    place=True,
                    help="folder with images, masks and jsons",
                ),
                Option(
                    field="select",
                    metavar="FILE",
                    place=True,
                    help="ids one a line, or the published pickle (a list of texts, nothing else)",
                ),
            ),
        ),
        "folder": SourceKind(
            "refloom.ingest.sources.folder:PlainPictures",
            "a folder or tar of pictures, or a JSONL with captions",
            "pictures",
            has_units=True,
            options=(
                Option(
                    field="path",
                    metavar="DIR_OR_JSONL",
                    positional=True,
                    place=True,
                    help='folder, tar, or lines of {"file_name": ..., "text": ...}',
                ),
            ),
        ),
        "pairs": SourceKind(
            "refloom.ingest.sources.pairs.pairs:Pairs",
            "directed records: reference images and a text that asks for one image",
            "train.jsonl --images DIR",
            counts="records",
            has_units=True,
            options=(
                Option(
                    field="path",
                    metavar="FILE_OR_DIR",
                    positional=True,
                    place=True,
                    help="json, JSONL or CSV of records; Parquet, or a folder of it; folder of targets with --controls",
                ),
                Option(
                    field="layout",
                    choices=("auto", "omnigen2", "bagel", "uno", "subjects200k", "diffsynth", "musubi"),
                    default="auto",
                    help="of the records; auto goes by the keys of the first ones",
                ),
                Option(
                    field="images",
                    metavar="DIR",
                    place=True,
                    help="folder that the records' paths are relative to; by default that of the file",
                ),
                Option(
                    field="controls",
                    metavar="DIR",
                    many=True,
                    place=True,
                    help="folders of reference images with the names of the targets, beside their folder, in the order "
                    "that texts count them",
                ),
            ),
        ),
    },
    of=SourceKind,
)
