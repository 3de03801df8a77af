"""The tables of a refloom dataset as pyarrow schemas; every field says its meaning, unit, range and model.

A table's files are `<table>/unit-<unit>-<part>.parquet`. Scalars come first and bytes last, so that a reader who wants
ids does not skip over pictures.
"""

import pyarrow as pa

from refloom.schemas.components import added_settings, column_of, own_columns
from refloom.schemas.fields import (
    BOX,
    BOX_DOC,
    IMAGE,
    LANDMARKS,
    LINK,
    MASK,
    MASK_DOC,
    STRINGS,
    VECTOR,
    VERSION,
    Table,
    field,
    table,
)
from refloom.schemas.samples import SAMPLES, SCORE

_TEXT = "text encoder"

CUT = pa.struct([pa.field("sha256", pa.string()), pa.field("box", pa.list_(pa.int32(), 4))])

_ASKED = pa.struct(
    [
        field("text", pa.string(), "as the source has it, with the numbers by which it names images"),
        field("references", STRINGS, "image ids in the order that the text counts them; one may come twice"),
    ]
)

FLAGS = ("occluded", "truncated", "fragment", "blurred", "dark", "tiny", "bad_mask", "group", "other")
"""What may speak against an object as a reference, in `labels`."""

_IMAGES = table(
    "images",
    "ingest",
    "image_id",
    "Every picture that was taken in, with the source's own bytes.",
    [
        field("image_id", pa.string(), "id, `<source>/<name>`", required=True),
        field(
            "source",
            pa.string(),
            "kind of source: coco, ytvis, vos, sa1b, subjects, easyref, subject10k, folder, pairs",
        ),
        field("split", pa.string(), "the source's own split; null where it has none"),
        field("sha256", pa.string(), "of the stored bytes, hexadecimal", required=True),
        field("width", pa.int32(), "of the upright picture", unit="px", span="1..65535", required=True),
        field("height", pa.int32(), "of the upright picture", unit="px", span="1..65535", required=True),
        field("orientation", pa.int8(), "EXIF orientation of the stored bytes", span="1..8", required=True),
        field("original_size", pa.list_(pa.int32(), 2), "(h, w) that the source says its original had", unit="px"),
        field("captions", STRINGS, "the source's captions, in its order"),
        field("video_id", pa.string(), "`<source>/<video>`; null for a single picture"),
        field("frame_index", pa.int32(), "number of the frame in its video", span="0.."),
        field("time_s", pa.float32(), "time of the frame, where the source's frame rate is known", unit="s"),
        field("license", pa.string(), "license of this picture"),
        field("source_url", pa.string(), "where the source has the picture from"),
        field("faces_blurred", pa.bool_(), "the source blurs faces", required=True),
        field("located", pa.bool_(), "its file says where it was taken (GPS, place names); null where nobody can tell"),
        field(
            "cut_from",
            CUT,
            "where the source holds this image as a part of a larger one: sha256 of the bytes of that one, and the "
            "part as xyxy, pixels of that one; null for a whole image",
        ),
        field("link", LINK, "where the bytes lie when `image` is null: root in dataset.json, file, offset, length"),
        field("image", IMAGE, "the source's own bytes, never re-encoded; null under --link"),
    ],
)

_OBJECTS = table(
    "objects",
    "ingest",
    "object_id",
    "Every annotation that was taken in.",
    [
        field("object_id", pa.string(), "id, `<image_id>#<annotation>`", required=True),
        field("image_id", pa.string(), "the picture it lies on", required=True),
        field("track_id", pa.string(), "the instance through its video; null for a single picture"),
        field("kind", pa.string(), "object | face | whole (the whole picture)", required=True),
        field("category", pa.string(), "the source's class name"),
        field("phrase", pa.string(), "words for it that the source gives beyond a class name"),
        field("box", BOX, BOX_DOC + ", as the source gives it", unit="px", required=True),
        field("area", pa.int64(), "pixels set in the mask; null without a mask", unit="px", span="1.."),
        field("confidence", pa.float32(), "the source's detector score"),
        field("predicted_iou", pa.float32(), "SA-1B's predicted mask quality", span="0..1"),
        field("stability_score", pa.float32(), "SA-1B's mask stability", span="0..1"),
        field("source_json", pa.string(), "what else the source says of it, so that exports give it back"),
        field("mask", MASK, MASK_DOC),
    ],
)

_SOURCE_GROUPS = table(
    "source_groups",
    "ingest",
    "group_id",
    "Groups that the source itself makes: subject folders, EasyRef records, directed records.",
    [
        field("group_id", pa.string(), "id, `<source>/<folder>` or `<source>/<file>#<record>`", required=True),
        field("kind", pa.string(), "folder | record", required=True),
        field("members", STRINGS, "image ids, in the source's order", required=True),
        field("target", pa.string(), "image id that the source reconstructs from the others"),
        field("texts", STRINGS, "the source's texts for the group"),
        field("instructions", pa.list_(_ASKED), "texts that ask for the target; null where the source has none"),
        field("scores", pa.list_(SCORE), "what the source says of how good the record is; null where it says nothing"),
        field("source_json", pa.string(), "what else the source says of it, so that exports give it back"),
    ],
)

_IMAGE_SCORES = table(
    "image_scores",
    "measure",
    "image_id",
    "What a look at the decoded pixels says of each picture; a row means that it decodes.",
    [
        field("image_id", pa.string(), "the picture", required=True),
        field("phash", pa.uint64(), "perceptual hash: signs of the 8x8 lowest DCT terms of the 32x32 grey picture"),
        field("sharpness", pa.float32(), "variance of the Laplacian of grey at <= 1024 px", span="0.."),
        field("brightness", pa.float32(), "mean of grey", span="0..1"),
        field("contrast", pa.float32(), "standard deviation of grey", span="0..0.5"),
        field("colorfulness", pa.float32(), "Hasler and Suesstrunk 2003, of pixels in 0..255", span="0.."),
    ],
)

_MASKS = table(
    "masks",
    "mask",
    "object_id",
    "Masks made for objects without one; they win over the source's.",
    [
        field("object_id", pa.string(), "the object, or `<image_id>#sam<n>` on a bare picture", required=True),
        field("image_id", pa.string(), "the picture it lies on", required=True),
        field("box", BOX, BOX_DOC, unit="px", required=True),
        field("area", pa.int64(), "pixels set", unit="px", span="1.."),
        field("predicted_iou", pa.float32(), "the segmenter's own estimate", span="0..1", model="segmenter"),
        field("stability_score", pa.float32(), "IoU of the mask at two thresholds", span="0..1", model="segmenter"),
        field("mask", MASK, MASK_DOC, model="segmenter", required=True),
    ],
)

_FACES = table(
    "faces",
    "face",
    "face_id",
    "Faces with a square crop, landmarks and an identity embedding.",
    [
        field("face_id", pa.string(), "id, `<image_id>@<n>`, by descending det_score", required=True),
        field("image_id", pa.string(), "the picture", required=True),
        field("object_id", pa.string(), "the smallest object that holds the face; null where none does"),
        field("box", BOX, BOX_DOC, unit="px", model="face detector", required=True),
        field(
            "landmarks",
            LANDMARKS,
            "x, y of left eye, right eye, nose, left and right mouth corner "
            "(left as the viewer sees it); NaN where the model has none",
            unit="px",
            model="face landmarks",
        ),
        field("det_score", pa.float32(), "detector score; scales differ between detectors", model="face detector"),
        field("pose", pa.list_(pa.float32(), 3), "pitch, yaw, roll; null where the model has none", unit="degree"),
        field("sharpness", pa.float32(), "variance of the Laplacian of the grey face box at 128 px", span="0.."),
        field("embedding", VECTOR, "identity, unit length", model="face identity"),
        field("crop_box", BOX, "square that the crop shows, may leave the picture", unit="px", required=True),
        field("crop", IMAGE, "JPEG of the square, upright, padded with white, never stretched"),
    ],
)

_EMBEDDINGS = table(
    "embeddings",
    "embed",
    "object_id",
    "Image embeddings of objects, cut out on white, and of the middles of whole pictures.",
    [
        field("object_id", pa.string(), "the object", required=True),
        field("image_id", pa.string(), "the picture it lies on", required=True),
        field("embedding", VECTOR, "unit length", model="image encoder", required=True),
    ],
)

_PHRASES = table(
    "phrases",
    "phrase",
    "object_id",
    "Phrases of objects, found for those without one, and how well they fit.",
    [
        field("object_id", pa.string(), "the object", required=True),
        field("phrase", pa.string(), "the source's own words, else the best of the vocabulary", required=True),
        field("origin", pa.string(), "source | vocabulary", required=True),
        field("probability", pa.float32(), "softmax over the vocabulary; null for own words", span="0..1", model=_TEXT),
        field(
            "margin", pa.float32(), "cosine less the best other thing's; null for own words", span="0..2", model=_TEXT
        ),
        field("cosine", pa.float32(), "of phrase and cut-out", span="-1..1", model=_TEXT, required=True),
        field("embedding", VECTOR, "of the cut-out in the space of texts, unit length", model=_TEXT),
    ],
)

_CAPTIONS = table(
    "captions",
    "phrase",
    "image_id",
    "Captions made for pictures without one.",
    [
        field("image_id", pa.string(), "the picture", required=True),
        field("caption", pa.string(), "one sentence", model="captioner", required=True),
    ],
)

_OBJECT_SCORES = table(
    "object_scores",
    "quality",
    "object_id",
    "Components and quality of every object; no verdict.",
    [
        field("object_id", pa.string(), "the object", required=True),
        field("image_id", pa.string(), "the picture it lies on", required=True),
        field("filtered", pa.string(), "the decode-free filter that spared its pixel components; null if none"),
        *own_columns(late=False),
        field("phrase_cosine", pa.float32(), "cosine of phrase and cut-out", span="-1..1", model="text encoder"),
        field("quality", pa.float32(), "weighted mean of the listed ramps; null if one is missing", span="0..1"),
        *own_columns(late=True),
    ],
)

_DUPLICATES = table(
    "duplicates",
    "dedup",
    "id",
    "Pictures and objects that are copies, of whom, and by what.",
    [
        field("id", pa.string(), "image or object id that goes", required=True),
        field("kind", pa.string(), "image | object", required=True),
        field("of", pa.string(), "the id that stays, or an id of the evaluation set", required=True),
        field("by", pa.string(), "bytes | phash | embedding | leak", required=True),
        field("similarity", pa.float32(), "1 - Hamming / 64 for phash, cosine for embeddings"),
    ],
)

_SELECTION = table(
    "selection",
    "select",
    "object_id",
    "The verdict on every object.",
    [
        field("object_id", pa.string(), "the object", required=True),
        field("verdict", pa.string(), "keep | reject", required=True),
        field("reason", pa.string(), "a word of the closed list; null for keep"),
    ],
)

_GROUP_FIELDS = [
    field("group_id", pa.string(), "id, `track/<track id>` or `<kind>/<smallest member id>`", required=True),
    field("kind", pa.string(), "track | identity | look | folder", required=True),
    field("members", STRINGS, "object ids, face ids for faces on none; tracks by time, others by id", required=True),
    field("units", STRINGS, "other units that hold members; null for none"),
    field("video_id", pa.string(), "of a track"),
    field("min_similarity", pa.float32(), "smallest cosine of two members, of faces if identity", span="-1..1"),
    field("mean_similarity", pa.float32(), "mean cosine of two members", span="-1..1", model="image encoder"),
    field("max_similarity", pa.float32(), "largest cosine of two members", span="-1..1", model="image encoder"),
    field("frame_gap", pa.int32(), "last minus first frame number of a track"),
    field("area_ratio", pa.float32(), "smallest over largest member area", span="0..1"),
]
_PAIR_FIELDS = [
    field(
        "pose_change",
        pa.float32(),
        "mean over pairs of 1 - IoU of their masks, each scaled and moved so that its longer side fills one square; "
        "boxes where none has a mask; null for faces and for whole pictures without masks",
        span="0..1",
    ),
    field(
        "head_turn",
        pa.float32(),
        "of an identity: mean over pairs of the angle between the two heads; null without the pose of every face",
        unit="degree",
        span="0..180",
        model="face landmarks",
    ),
    field(
        "sharpness_ratio",
        pa.float32(),
        "least over greatest sharpness of a member, of faces on the same log scale if identity",
        span="0..1",
    ),
]

_MATCHES = table(
    "matches",
    "match",
    "group_id",
    "Identity and look groups over the whole dataset, each in the unit of its first member; `groups` holds them too.",
    _GROUP_FIELDS,
)

_GROUPS = table(
    "groups",
    "group",
    "group_id",
    "Objects that show one subject, and how much the members differ; no verdict on that.",
    [*_GROUP_FIELDS, *_PAIR_FIELDS],
)

_CHOICES = table(
    "choices",
    "balance",
    "sample_id",
    "The verdict of caps, shares and bounds on every candidate that one of them touches; no row where none is set.",
    [
        field("sample_id", pa.string(), "as in `samples`", required=True),
        field("verdict", pa.string(), "keep | reject", required=True),
        field("reason", pa.string(), "a word of the closed list; null for keep"),
        field("why", pa.string(), "what decided, without numbers that other candidates change", required=True),
        field(
            "references",
            STRINGS,
            "of a cross sample: objects and faces whose pair with the target is inside the bounds; null without bounds",
        ),
    ],
)

_SPLITS = table(
    "splits",
    "split",
    "image_id",
    "Which split each picture is in; pictures of one video or group are never apart.",
    [
        field("image_id", pa.string(), "the picture", required=True),
        field("split", pa.string(), "train | validation", required=True),
        field("cluster", pa.string(), "smallest image id of the pictures that must stay together", required=True),
        field("group_units", STRINGS, "other units whose groups have members on it; null for none"),
    ],
)

_LABELS = table(
    "labels",
    "label",
    "object_id",
    "What people say of objects as references, in `refloom browse --label`; nothing else can make it again.",
    [
        field("object_id", pa.string(), "the object; a label outlives one that is no longer there", required=True),
        field("image_id", pa.string(), "the picture it lies on", required=True),
        field(
            "score",
            pa.int8(),
            "as the one reference of its subject: 3 whole, recognisable and clear; 2 a part hidden or cut off, or "
            "somewhat blurred or dark; 1 mostly hidden, a fragment, very blurred, dark or tiny; 0 cannot be told, or a "
            "wrong mask",
            span="0..3",
            required=True,
        ),
        field("flags", STRINGS, f"what speaks against it: {', '.join(FLAGS)}", required=True),
        field("labeller", pa.string(), "who judged, where it was given; never published"),
        field("time", pa.string(), "when, UTC, as ISO 8601 writes it"),
    ],
)

TABLES: dict[str, Table] = {
    one.name: one
    for one in (
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
        _CHOICES,
        SAMPLES,
        _LABELS,
    )
}


def written(name: str) -> pa.Schema:
    """The columns of a table as this process writes them: with those that its plugins add."""
    schema = TABLES[name].schema
    for column, kept in sorted(added_settings(name).items()):
        schema = schema.append(column_of(column, kept))
    return schema


LEDGER = pa.schema(
    [
        field(
            "kind",
            pa.string(),
            "what kind of item: image, annotation, caption, track, object, group ...",
            required=True,
        ),
        field("item_id", pa.string(), "its id, as far as it has one", required=True),
        field("occurrence", pa.int32(), "counts items of one id in a unit, from 0", required=True),
        field("file", pa.string(), "the file in the source that holds it, relative to the source"),
        field("verdict", pa.string(), "rejected | failed", required=True),
        field("reason", pa.string(), "a word of the closed list", required=True),
        field("detail", pa.string(), "what exactly is wrong"),
    ],
    {"refloom.table": "ledger", "refloom.version": str(VERSION)},
)
