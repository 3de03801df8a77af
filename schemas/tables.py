"""The tables of a refloom dataset as pyarrow schemas; every field says its meaning, unit, range and model.

A table's files are `<table>/unit-<unit>-<part>.parquet`. Scalars come first and bytes last, so that a reader who wants
ids does not skip over pictures.
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

VERSION = 1
"""Version of the on-disk contract. A dataset of another version is refused."""

MASK = pa.struct([pa.field("size", pa.list_(pa.int32(), 2)), pa.field("counts", pa.string())])
BOX = pa.list_(pa.float32(), 4)
IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
LINK = pa.struct(
    [
        pa.field("root", pa.string()),
        pa.field("file", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
    ]
)
STRINGS = pa.list_(pa.string())
VECTOR = pa.list_(pa.float32())
LANDMARKS = pa.list_(pa.list_(pa.float32(), 2), 5)

_MASK_DOC = "compressed COCO RLE of the upright picture; null where there is none"
_TEXT = "text encoder"
_BOX_DOC = "xyxy, pixels of the upright picture"


def _field(
    name: str,
    kind: pa.DataType,
    doc: str,
    *,
    unit: str | None = None,
    span: str | None = None,
    model: str | None = None,
    required: bool = False,
) -> pa.Field:
    """A field whose metadata says what it means; `span` is the range of values, `model` the kind that makes it."""
    metadata = {"doc": doc, "unit": unit, "range": span, "model": model}
    return pa.field(
        name, kind, nullable=not required, metadata={key: value for key, value in metadata.items() if value}
    )


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the contract.

    Attributes:
        name: the folder.
        stage: the only stage that writes it.
        key: the column that names a row, unique over the dataset.
        doc: one line for the card.
        schema: fields without the Hugging Face metadata, which the writer adds.
    """

    name: str
    stage: str
    key: str
    doc: str
    schema: pa.Schema


def _table(name: str, stage: str, key: str, doc: str, fields: list[pa.Field]) -> Table:
    metadata = {"refloom.table": name, "refloom.version": str(VERSION)}
    return Table(name, stage, key, doc, pa.schema(fields, metadata))


_IMAGES = _table(
    "images",
    "ingest",
    "image_id",
    "Every picture that was taken in, with the source's own bytes.",
    [
        _field("image_id", pa.string(), "id, `<source>/<name>`", required=True),
        _field("source", pa.string(), "kind of source: coco, ytvis, vos, sa1b, subjects, easyref, subject10k, folder"),
        _field("split", pa.string(), "the source's own split; null where it has none"),
        _field("sha256", pa.string(), "of the stored bytes, hexadecimal", required=True),
        _field("width", pa.int32(), "of the upright picture", unit="px", span="1..65535", required=True),
        _field("height", pa.int32(), "of the upright picture", unit="px", span="1..65535", required=True),
        _field("orientation", pa.int8(), "EXIF orientation of the stored bytes", span="1..8", required=True),
        _field("original_size", pa.list_(pa.int32(), 2), "(h, w) that the source says its original had", unit="px"),
        _field("captions", STRINGS, "the source's captions, in its order"),
        _field("video_id", pa.string(), "`<source>/<video>`; null for a single picture"),
        _field("frame_index", pa.int32(), "number of the frame in its video", span="0.."),
        _field("time_s", pa.float32(), "time of the frame, where the source's frame rate is known", unit="s"),
        _field("license", pa.string(), "license of this picture"),
        _field("source_url", pa.string(), "where the source has the picture from"),
        _field("faces_blurred", pa.bool_(), "the source blurs faces", required=True),
        _field("link", LINK, "where the bytes lie when `image` is null: root in dataset.json, file, offset, length"),
        _field("image", IMAGE, "the source's own bytes, never re-encoded; null under --link"),
    ],
)

_OBJECTS = _table(
    "objects",
    "ingest",
    "object_id",
    "Every annotation that was taken in.",
    [
        _field("object_id", pa.string(), "id, `<image_id>#<annotation>`", required=True),
        _field("image_id", pa.string(), "the picture it lies on", required=True),
        _field("track_id", pa.string(), "the instance through its video; null for a single picture"),
        _field("kind", pa.string(), "object | face | whole (the whole picture)", required=True),
        _field("category", pa.string(), "the source's class name"),
        _field("phrase", pa.string(), "words for it that the source gives beyond a class name"),
        _field("box", BOX, _BOX_DOC + ", as the source gives it", unit="px", required=True),
        _field("area", pa.int64(), "pixels set in the mask; null without a mask", unit="px", span="1.."),
        _field("confidence", pa.float32(), "the source's detector score"),
        _field("predicted_iou", pa.float32(), "SA-1B's predicted mask quality", span="0..1"),
        _field("stability_score", pa.float32(), "SA-1B's mask stability", span="0..1"),
        _field("source_json", pa.string(), "what else the source says of it, so that exports give it back"),
        _field("mask", MASK, _MASK_DOC),
    ],
)

_SOURCE_GROUPS = _table(
    "source_groups",
    "ingest",
    "group_id",
    "Groups that the source itself makes: subject folders and EasyRef records.",
    [
        _field("group_id", pa.string(), "id, `<source>/<folder>` or `<source>/<file>#<record>`", required=True),
        _field("kind", pa.string(), "folder | record", required=True),
        _field("members", STRINGS, "image ids, in the source's order", required=True),
        _field("target", pa.string(), "image id that the source reconstructs from the others"),
        _field("texts", STRINGS, "the source's texts for the group"),
    ],
)

_IMAGE_SCORES = _table(
    "image_scores",
    "measure",
    "image_id",
    "What a look at the decoded pixels says of each picture; a row means that it decodes.",
    [
        _field("image_id", pa.string(), "the picture", required=True),
        _field("phash", pa.uint64(), "perceptual hash: signs of the 8x8 lowest DCT terms of the 32x32 grey picture"),
        _field("sharpness", pa.float32(), "variance of the Laplacian of grey at <= 1024 px", span="0.."),
        _field("brightness", pa.float32(), "mean of grey", span="0..1"),
        _field("contrast", pa.float32(), "standard deviation of grey", span="0..0.5"),
        _field("colorfulness", pa.float32(), "Hasler and Suesstrunk 2003, of pixels in 0..255", span="0.."),
    ],
)

_MASKS = _table(
    "masks",
    "mask",
    "object_id",
    "Masks made for objects without one; they win over the source's.",
    [
        _field("object_id", pa.string(), "the object, or `<image_id>#sam<n>` on a bare picture", required=True),
        _field("image_id", pa.string(), "the picture it lies on", required=True),
        _field("box", BOX, _BOX_DOC, unit="px", required=True),
        _field("area", pa.int64(), "pixels set", unit="px", span="1.."),
        _field("predicted_iou", pa.float32(), "the segmenter's own estimate", span="0..1", model="segmenter"),
        _field("stability_score", pa.float32(), "IoU of the mask at two thresholds", span="0..1", model="segmenter"),
        _field("mask", MASK, _MASK_DOC, model="segmenter", required=True),
    ],
)

_FACES = _table(
    "faces",
    "face",
    "face_id",
    "Faces with a square crop, landmarks and an identity embedding.",
    [
        _field("face_id", pa.string(), "id, `<image_id>@<n>`, by descending det_score", required=True),
        _field("image_id", pa.string(), "the picture", required=True),
        _field("object_id", pa.string(), "the smallest object that holds the face; null where none does"),
        _field("box", BOX, _BOX_DOC, unit="px", model="face detector", required=True),
        _field(
            "landmarks",
            LANDMARKS,
            "x, y of left eye, right eye, nose, left and right mouth corner "
            "(left as the viewer sees it); NaN where the model has none",
            unit="px",
            model="face landmarks",
        ),
        _field("det_score", pa.float32(), "detector score; scales differ between detectors", model="face detector"),
        _field("pose", pa.list_(pa.float32(), 3), "pitch, yaw, roll; null where the model has none", unit="degree"),
        _field("sharpness", pa.float32(), "variance of the Laplacian of the grey face box at 128 px", span="0.."),
        _field("embedding", VECTOR, "identity, unit length", model="face identity"),
        _field("crop_box", BOX, "square that the crop shows, may leave the picture", unit="px", required=True),
        _field("crop", IMAGE, "JPEG of the square, upright, padded with white, never stretched"),
    ],
)

_EMBEDDINGS = _table(
    "embeddings",
    "embed",
    "object_id",
    "Image embeddings of objects, cut out on white.",
    [
        _field("object_id", pa.string(), "the object", required=True),
        _field("image_id", pa.string(), "the picture it lies on", required=True),
        _field("embedding", VECTOR, "unit length", model="image encoder", required=True),
    ],
)

_PHRASES = _table(
    "phrases",
    "phrase",
    "object_id",
    "Phrases of objects, found for those without one, and how well they fit.",
    [
        _field("object_id", pa.string(), "the object", required=True),
        _field("phrase", pa.string(), "the source's own words, else the best of the vocabulary", required=True),
        _field("origin", pa.string(), "source | vocabulary", required=True),
        _field(
            "probability", pa.float32(), "softmax over the vocabulary; null for own words", span="0..1", model=_TEXT
        ),
        _field(
            "margin", pa.float32(), "cosine less the best other thing's; null for own words", span="0..2", model=_TEXT
        ),
        _field("cosine", pa.float32(), "of phrase and cut-out", span="-1..1", model=_TEXT, required=True),
        _field("embedding", VECTOR, "of the cut-out in the space of texts, unit length", model=_TEXT),
    ],
)

_CAPTIONS = _table(
    "captions",
    "phrase",
    "image_id",
    "Captions made for pictures without one.",
    [
        _field("image_id", pa.string(), "the picture", required=True),
        _field("caption", pa.string(), "one sentence", model="captioner", required=True),
    ],
)

_OBJECT_SCORES = _table(
    "object_scores",
    "quality",
    "object_id",
    "Components and quality of every object; no verdict.",
    [
        _field("object_id", pa.string(), "the object", required=True),
        _field("image_id", pa.string(), "the picture it lies on", required=True),
        _field("filtered", pa.string(), "the decode-free filter that spared its pixel components; null if none"),
        _field("area_share", pa.float32(), "mask (else box) area over picture area", span="0..1"),
        _field("short_side_px", pa.float32(), "shorter side of the box", unit="px"),
        _field("aspect", pa.float32(), "box width over height"),
        _field("box_fill", pa.float32(), "mask area over box area", span="0..1"),
        _field("border_share", pa.float32(), "share of the mask's outline on the picture's border", span="0..1"),
        _field("largest_part", pa.float32(), "largest connected part over mask area", span="0..1"),
        _field("hole_share", pa.float32(), "enclosed holes over filled area", span="0..1"),
        _field("contained", pa.float32(), "largest share of the mask inside one larger mask", span="0..1"),
        _field("sharpness", pa.float32(), "log10(1 + variance of the Laplacian inside the mask)", span="0..5"),
        _field("contrast", pa.float32(), "standard deviation of grey inside the mask", span="0..0.5"),
        _field("exposure", pa.float32(), "share of mask pixels neither black (< 8) nor white (> 247)", span="0..1"),
        _field("mask_confidence", pa.float32(), "predicted IoU of the mask, from the source or the model", span="0..1"),
        _field("phrase_cosine", pa.float32(), "cosine of phrase and cut-out", span="-1..1", model="text encoder"),
        _field("quality", pa.float32(), "geometric mean of the configured ramps; null if one is missing", span="0..1"),
    ],
)

_DUPLICATES = _table(
    "duplicates",
    "dedup",
    "id",
    "Pictures and objects that are copies, of whom, and by what.",
    [
        _field("id", pa.string(), "image or object id that goes", required=True),
        _field("kind", pa.string(), "image | object", required=True),
        _field("of", pa.string(), "the id that stays, or an id of the evaluation set", required=True),
        _field("by", pa.string(), "bytes | phash | embedding | leak", required=True),
        _field("similarity", pa.float32(), "1 - Hamming / 64 for phash, cosine for embeddings"),
    ],
)

_SELECTION = _table(
    "selection",
    "select",
    "object_id",
    "The verdict on every object.",
    [
        _field("object_id", pa.string(), "the object", required=True),
        _field("verdict", pa.string(), "keep | reject", required=True),
        _field("reason", pa.string(), "a word of the closed list; null for keep"),
    ],
)

_GROUP_FIELDS = [
    _field("group_id", pa.string(), "id, `track/<track id>` or `<kind>/<smallest member id>`", required=True),
    _field("kind", pa.string(), "track | identity | look | folder", required=True),
    _field("members", STRINGS, "object ids, face ids for faces on none; tracks by time, others by id", required=True),
    _field("units", STRINGS, "other units that hold members; null for none"),
    _field("video_id", pa.string(), "of a track"),
    _field("min_similarity", pa.float32(), "smallest cosine of two members, of faces if identity", span="-1..1"),
    _field("mean_similarity", pa.float32(), "mean cosine of two members", span="-1..1", model="image encoder"),
    _field("max_similarity", pa.float32(), "largest cosine of two members", span="-1..1", model="image encoder"),
    _field("frame_gap", pa.int32(), "last minus first frame number of a track"),
    _field("area_ratio", pa.float32(), "smallest over largest member area", span="0..1"),
]

_MATCHES = _table(
    "matches",
    "match",
    "group_id",
    "Identity and look groups over the whole dataset, each in the unit of its first member; `groups` repeats them.",
    _GROUP_FIELDS,
)

_GROUPS = _table("groups", "group", "group_id", "Objects that show one subject.", _GROUP_FIELDS)

_SPLITS = _table(
    "splits",
    "split",
    "image_id",
    "Which split each picture is in; pictures of one video or group are never apart.",
    [
        _field("image_id", pa.string(), "the picture", required=True),
        _field("split", pa.string(), "train | validation", required=True),
        _field("cluster", pa.string(), "smallest image id of the pictures that must stay together", required=True),
    ],
)

_SAMPLE_PICTURE = pa.struct(
    [
        _field("image_id", pa.string(), "the picture"),
        _field("source", pa.string(), "kind of source"),
        _field("video_id", pa.string(), "its video, or null"),
        _field("frame_index", pa.int32(), "number of the frame"),
        _field("time_s", pa.float32(), "time of the frame, where known", unit="s"),
        _field("width", pa.int32(), "of the upright picture", unit="px"),
        _field("height", pa.int32(), "of the upright picture", unit="px"),
        _field("orientation", pa.int8(), "EXIF orientation of the stored bytes", span="1..8"),
        _field("original_size", pa.list_(pa.int32(), 2), "(h, w) of the source's original", unit="px"),
        _field("captions", STRINGS, "captions of the picture"),
        _field("caption_from", pa.string(), "source | model | template"),
        _field("license", pa.string(), "license of the picture"),
    ]
)

_SAMPLE_SUBJECT = pa.struct(
    [
        _field("subject_id", pa.string(), "track, group or object id"),
        _field("track_id", pa.string(), "the track, or null"),
        _field("kind", pa.string(), "object | whole | face"),
        _field("category", pa.string(), "the source's class name"),
        _field("phrase", pa.string(), "words for it"),
        _field(
            "mentions",
            pa.list_(
                pa.struct(
                    [
                        _field("picture", pa.int32(), "index into `pictures`"),
                        _field("caption", pa.int32(), "index into that picture's captions"),
                        _field("start", pa.int32(), "first character"),
                        _field("end", pa.int32(), "one behind the last character"),
                    ]
                )
            ),
            "where captions name it",
        ),
        _field(
            "appearances",
            pa.list_(
                pa.struct(
                    [
                        _field("picture", pa.int32(), "index into `pictures`"),
                        _field("object_id", pa.string(), "the object"),
                        _field("box", BOX, _BOX_DOC, unit="px"),
                        _field("mask", MASK, _MASK_DOC),
                        _field("confidence", pa.float32(), "mask or detector confidence, where there is one"),
                        _field("quality", pa.float32(), "of the object", span="0..1"),
                        _field("phrase_cosine", pa.float32(), "of the object", span="-1..1"),
                        _field(
                            "face",
                            pa.struct(
                                [
                                    _field("box", BOX, _BOX_DOC, unit="px"),
                                    _field("landmarks", LANDMARKS, "as in `faces`", unit="px"),
                                    _field("det_score", pa.float32(), "as in `faces`"),
                                ]
                            ),
                            "its face, or null",
                        ),
                    ]
                )
            ),
            "where it is seen",
        ),
        _field(
            "similarity",
            pa.list_(pa.float16()),
            "cosine of appearance pairs (0,1), (0,2), (1,2), ...; null without an embedder",
        ),
    ]
)

_SAMPLES = _table(
    "samples",
    "compose",
    "sample_id",
    "Training samples: pictures and the subjects seen in them. A sample never fixes which picture is the target.",
    [
        _field("sample_id", pa.string(), "image/<image_id> | video/<video_id>/<n> | group/<group_id>", required=True),
        _field("kind", pa.string(), "image | video | group", required=True),
        _field("why", pa.string(), "why it was chosen", required=True),
        _field(
            "scores",
            pa.struct(
                [
                    _field("mip_s", pa.float32(), "mean cos(text, image) - mean cos(image, image) of its subjects"),
                    _field("min_quality", pa.float32(), "smallest quality of an appearance", span="0..1"),
                ]
            ),
            "of the sample",
        ),
        _field("pictures", pa.list_(_SAMPLE_PICTURE), "in the order of `images`", required=True),
        _field("subjects", pa.list_(_SAMPLE_SUBJECT), "at least one", required=True),
        _field("images", pa.list_(IMAGE), "the bytes, in the order of `pictures`", required=True),
    ],
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        _IMAGES,
        _OBJECTS,
        _SOURCE_GROUPS,
        _IMAGE_SCORES,
        _MASKS,
        _FACES,
        _EMBEDDINGS,
        _PHRASES,
        _CAPTIONS,
        _OBJECT_SCORES,
        _DUPLICATES,
        _SELECTION,
        _MATCHES,
        _GROUPS,
        _SPLITS,
        _SAMPLES,
    )
}

LEDGER = pa.schema(
    [
        _field(
            "kind",
            pa.string(),
            "what kind of item: image, annotation, caption, track, object, group ...",
            required=True,
        ),
        _field("item_id", pa.string(), "its id, as far as it has one", required=True),
        _field("occurrence", pa.int32(), "counts items of one id in a unit, from 0", required=True),
        _field("file", pa.string(), "the file in the source that holds it, relative to the source"),
        _field("verdict", pa.string(), "rejected | failed", required=True),
        _field("reason", pa.string(), "a word of the closed list", required=True),
        _field("detail", pa.string(), "what exactly is wrong"),
    ],
    {"refloom.table": "ledger", "refloom.version": str(VERSION)},
)


def metadata_of(field: pa.Field) -> dict[str, str]:
    """A field's doc, unit, range and model as text."""
    raw: dict[bytes, bytes] = field.metadata or {}
    return {key.decode(): value.decode() for key, value in raw.items()}


def leaves(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    """Every leaf column as Parquet names it, e.g. ("images.list.element.bytes", binary)."""
    out: list[tuple[str, pa.DataType]] = []

    def walk(path: str, kind: pa.DataType) -> None:
        if pa.types.is_struct(kind):
            for field in kind:
                walk(f"{path}.{field.name}", field.type)
        elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            walk(f"{path}.list.element", kind.value_type)
        else:
            out.append((path, kind))

    for field in schema:
        walk(field.name, field.type)
    return out


def empty_row(table: str) -> dict[str, Any]:
    """A row of nulls, to be filled."""
    return dict.fromkeys(TABLES[table].schema.names)
