"""The table `samples`: the one shape that every trainer reads."""

import pyarrow as pa

from refloom.schemas.fields import BOX, BOX_DOC, IMAGE, LANDMARKS, MASK, MASK_DOC, STRINGS, field, table

_PICTURE = pa.struct(
    [
        field("image_id", pa.string(), "the picture"),
        field("source", pa.string(), "kind of source"),
        field("video_id", pa.string(), "its video, or null"),
        field("frame_index", pa.int32(), "number of the frame"),
        field("time_s", pa.float32(), "time of the frame, where known", unit="s"),
        field("width", pa.int32(), "of the upright picture", unit="px"),
        field("height", pa.int32(), "of the upright picture", unit="px"),
        field("orientation", pa.int8(), "EXIF orientation of the stored bytes", span="1..8"),
        field("original_size", pa.list_(pa.int32(), 2), "(h, w) of the source's original", unit="px"),
        field("captions", STRINGS, "captions of the picture"),
        field("caption_from", pa.string(), "source | model | template"),
        field("license", pa.string(), "license of the picture"),
    ]
)

_SUBJECT = pa.struct(
    [
        field("subject_id", pa.string(), "track, group or object id"),
        field("track_id", pa.string(), "the track, or null"),
        field("kind", pa.string(), "object | whole | face"),
        field("category", pa.string(), "the source's class name"),
        field("phrase", pa.string(), "words for it"),
        field(
            "mentions",
            pa.list_(
                pa.struct(
                    [
                        field("picture", pa.int32(), "index into `pictures`"),
                        field("caption", pa.int32(), "index into that picture's captions"),
                        field("start", pa.int32(), "first character"),
                        field("end", pa.int32(), "one behind the last character"),
                    ]
                )
            ),
            "where captions name it",
        ),
        field(
            "appearances",
            pa.list_(
                pa.struct(
                    [
                        field("picture", pa.int32(), "index into `pictures`"),
                        field("object_id", pa.string(), "the object"),
                        field("box", BOX, BOX_DOC, unit="px"),
                        field("mask", MASK, MASK_DOC),
                        field("confidence", pa.float32(), "mask or detector confidence, where there is one"),
                        field("quality", pa.float32(), "of the object", span="0..1"),
                        field("phrase_cosine", pa.float32(), "of the object", span="-1..1"),
                        field(
                            "face",
                            pa.struct(
                                [
                                    field("box", BOX, BOX_DOC, unit="px"),
                                    field("landmarks", LANDMARKS, "as in `faces`", unit="px"),
                                    field("det_score", pa.float32(), "as in `faces`"),
                                ]
                            ),
                            "its face, or null",
                        ),
                    ]
                )
            ),
            "where it is seen",
        ),
        field(
            "similarity",
            pa.list_(pa.float16()),
            "cosine of appearance pairs (0,1), (0,2), (1,2), ...; null without an embedder",
        ),
    ]
)

SAMPLES = table(
    "samples",
    "compose",
    "sample_id",
    "Training samples: pictures and the subjects seen in them. A sample never fixes which picture is the target.",
    [
        field("sample_id", pa.string(), "image/<image_id> | video/<video_id>/<n> | group/<group_id>", required=True),
        field("kind", pa.string(), "image | video | group", required=True),
        field("why", pa.string(), "why it was chosen", required=True),
        field(
            "scores",
            pa.struct(
                [
                    field("mip_s", pa.float32(), "mean cos(text, image) - mean cos(image, image) of its subjects"),
                    field("min_quality", pa.float32(), "smallest quality of an appearance", span="0..1"),
                ]
            ),
            "of the sample",
        ),
        field("pictures", pa.list_(_PICTURE), "in the order of `images`", required=True),
        field("subjects", pa.list_(_SUBJECT), "at least one", required=True),
        field("images", pa.list_(IMAGE), "the bytes, in the order of `pictures`", required=True),
    ],
)
