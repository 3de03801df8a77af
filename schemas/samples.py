"""The table `samples`: the one shape that every trainer reads.

A sample fixes which image is its target only where something outside refloom did (a directed record, `ingest pairs`)
or where its references were sought for that image (`cross`); elsewhere `target` is null and the recipe's view draws it.
"""

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
        field("role", pa.string(), "target | reference; null where it may be either"),
    ]
)

_FACE = pa.struct(
    [
        field("box", BOX, BOX_DOC, unit="px"),
        field("landmarks", LANDMARKS, "as in `faces`", unit="px"),
        field("det_score", pa.float32(), "as in `faces`"),
        field("embedding", pa.list_(pa.float16()), "as in `faces`; null in publications", model="face identity"),
        field("pose", pa.list_(pa.float32(), 3), "as in `faces`: pitch, yaw, roll", unit="degree"),
        field("sharpness", pa.float32(), "as in `faces`", span="0.."),
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
                            _FACE,
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
        field(
            "pair_pose_change",
            pa.list_(pa.float16()),
            "1 - IoU of the masks of appearance pairs, in the order of `similarity`, as `pose_change` of `groups`; of "
            "boxes where neither has one; an entry is null where one alone has one, and for faces and whole pictures "
            "without masks, the list with one appearance",
            span="0..1",
        ),
        field("identity", pa.string(), "its group of kind identity: the same person in other samples; else null"),
        field("look", pa.string(), "its group of kind look: the same thing in other samples; else null"),
        field("role", pa.string(), "person | clothes | object | scene | style; null where it is not known"),
    ]
)

_INSTRUCTION = pa.struct(
    [
        field("text", pa.string(), "what to make; may name references by their number"),
        field("from", pa.string(), "source | model | template"),
        field("references", pa.list_(pa.int32()), "indices into `pictures`, in the order that the text counts them"),
    ]
)

SCORE = pa.struct(
    [
        field("name", pa.string(), "what was judged"),
        field("value", pa.float32(), "in the scale of whoever gave it"),
        field("model", pa.string(), "who gave it: a model, a judge, a source"),
    ]
)

SAMPLES = table(
    "samples",
    "compose",
    "sample_id",
    "Training samples: pictures and the subjects seen in them. Where `target` is null, any picture may be the target.",
    [
        field(
            "sample_id",
            pa.string(),
            "image/<image_id> | video/<video_id>/<n> | group/<group_id> | cross/<image_id of the target>",
            required=True,
        ),
        field("kind", pa.string(), "image | video | group | cross", required=True),
        field("why", pa.string(), "why it was chosen", required=True),
        field(
            "scores",
            pa.struct(
                [
                    field("mip_s", pa.float32(), "mean cos(text, image) - mean cos(image, image) of its subjects"),
                    field("min_quality", pa.float32(), "smallest quality of an appearance", span="0..1"),
                    field("named", pa.list_(SCORE), "what the source or a judge says of it; empty for nothing"),
                ]
            ),
            "of the sample",
        ),
        field("target", pa.int32(), "index into `pictures` of the image to be made; null = any", span="0.."),
        field("instructions", pa.list_(_INSTRUCTION), "texts that ask for the target; empty for none"),
        field("pictures", pa.list_(_PICTURE), "in the order of `images`", required=True),
        field("subjects", pa.list_(_SUBJECT), "at least one", required=True),
        field("images", pa.list_(IMAGE), "the bytes, in the order of `pictures`", required=True),
    ],
)
