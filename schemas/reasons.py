"""The closed lists of words that a ledger row may carry.

*Rejected* is a property of the content: the same input gives the same verdict for ever, so it is never retried.
*Failed* is a property of the run or of the place the input lies in: `--retry-failed` tries it again.
"""

REJECTED: dict[str, str] = {
    # pictures
    "not_an_image": "the bytes are not a picture of a supported format, or there are none",
    "truncated": "the file ends before the picture does",
    "too_many_pixels": "more pixels than the limit (100 megapixels): a decompression bomb or a giant scan",
    "too_complex": "more scans, chunks or tags than a picture has, which would take minutes to decode",
    "animated": "more than one picture in the file",
    "decode_error": "the header is sound, the pixels cannot be decoded",
    # places, names, records
    "unsafe_path": "the name is absolute, a URL, a link, a device, or leaves the source's folder",
    "duplicate": "the same id or file came before in this source",
    "bad_record": "the record is not of its format",
    "taken_down": "it is on the takedown list of the dataset",
    "left_out": "a subset was made without it",
    "incomplete_pair": "a picture without its record, or a record without its picture",
    "no_image": "names a picture or video that the source does not list",
    # annotations
    "unknown_category": "names a category that the source does not define",
    "crowd": "a crowd region: several objects under one mask",
    "bad_box": "the box is missing, not four finite numbers, empty, or more than 2 px outside the picture",
    "bad_mask": "the mask is missing or not a sound polygon or run-length encoding",
    "empty_mask": "the mask has no pixel set inside the picture",
    "size_mismatch": "annotated in a frame that is neither the stored nor the upright picture",
    "box_mask_mismatch": "box or area and mask disagree by more than the tolerance",
    "bad_text": "the caption is empty, not text, too long, or holds bytes that are not text",
    "image_rejected": "the picture it lies on was rejected",
    "track_rejected": "the track it belongs to was rejected",
    # models
    "faces_blurred": "the source blurs faces, so there is nothing to detect",
    "no_face": "no face was found",
    "no_face_of_person": "no face was found, though the source says that a person is there, large enough to have one",
    "no_mask": "the segmenter found nothing in its box, or nothing on the picture",
    "no_words": "without a phrase, and none of the vocabulary was looked for",
    "no_caption": "the captioner had nothing to say",
    # selection
    "too_small": "smaller than the configured bound",
    "too_large": "larger than the configured bound",
    "odd_shape": "aspect ratio or box fill outside the configured bounds",
    "cut_off": "more of its outline lies on the picture's border than configured",
    "fragmented": "its largest connected part is below the configured share",
    "part_of_larger": "without a class and inside a larger mask: a part, not a thing",
    "low_confidence": "the source's or the model's own confidence is below the configured bound",
    "low_quality": "the quality score is below the configured bound",
    "component_missing": "a listed quality component could not be computed",
    "near_copy": "a copy of an item that stays, see the table duplicates",
    "leak": "a copy of an item of an evaluation set, see the table duplicates",
    # groups and samples
    "identity_switch": "two tracks exchange their masks between two frames",
    "too_few_members": "fewer members than a group needs",
    "too_alike": "its members differ less than the configured bound",
    "too_different": "its members differ more than the configured bound",
    "over_cap": "a configured cap or share is filled by candidates that come before it",
    "no_subject": "no subject is left that a trainer could use",
    "no_reference": "fewer than two of its subjects are seen on another image that may be their reference",
    "no_target": "the image that the source makes out of the others was not kept",
}

FAILED: dict[str, str] = {
    "missing_file": "the file is not where the source says",
    "io_error": "the file could not be read to its end",
    "source_changed": "the linked bytes are not those that were ingested",
    "timeout": "the item took longer than the limit",
    "killed_worker": "the worker process died on this item in every attempt",
    "out_of_memory": "not enough memory for this item",
    "internal_error": "refloom itself raised an unexpected error; the traceback is in runs/",
    "image_failed": "the picture it lies on failed",
}

NOTHING_TO_FIND = frozenset({"no_face", "faces_blurred", "no_reference"})
"""Rejections by which a dataset loses nothing: as far as is known, there was nothing to find."""
