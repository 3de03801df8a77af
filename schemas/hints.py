"""What to do about items that were left out, by reason: said on the console where nearly all of a kind goes for one."""

HINTS: dict[str, str] = {
    # pictures
    "not_an_image": "look at one: pages of a web server and Git LFS pointers often lie where pictures should",
    "truncated": "the files are cut: fetch them again",
    "too_many_pixels": "scale the pictures down, and take them in again",
    "animated": "take single pictures out of the files, and take these in",
    "decode_error": "the files are damaged: fetch them again",
    "too_complex": "save the pictures anew in fewer steps, e.g. a progressive JPEG as a baseline one",
    # places, names, records
    "unsafe_path": "make the names relative to the folder that is given",
    "duplicate": "of records of one file the first is kept, with what lies on all; ids that come twice need others",
    "bad_record": "the file may be of another format: `refloom ingest --help` lists those that are read",
    "incomplete_pair": "each picture needs its record beside it, of the same name",
    "no_image": "the annotations are of other pictures: give those of the same split",
    # annotations
    "unknown_category": "each `category_id` must be the id of a named entry of `categories`",
    "crowd": "one mask covers several objects, or the tool exports brush masks so: `--crowds keep` takes them",
    "bad_box": "boxes are x, y, width, height in pixels; corners and shares of 0 to 1 are not",
    "bad_mask": "masks are polygons [[x, y, ...], ...] or run lengths {size, counts}",
    "empty_mask": "the masks lie outside their pictures: the pictures may have been resized or cut after annotation",
    "size_mismatch": "the pictures have other sizes than the annotations say: give those that were annotated",
    "box_mask_mismatch": "boxes and masks are of different objects, or in different units",
    "bad_text": "captions are texts of at most 10,000 characters in UTF-8",
    "image_rejected": "what became of the pictures is said above or below",
    "track_rejected": "what became of the tracks is said above or below",
    # models
    "faces_blurred": "that is so in this source, and no fault",
    "no_face": "where people should be seen, another face model may help: `refloom models`",
    "no_mask": "another segmenter may help: `refloom models`",
    "no_words": "give phrases or categories with the source, or another vocabulary",
    "no_caption": "give captions with the source, or another captioner: `refloom models`",
    # selection
    "too_small": "the bound is a setting of `select` or `filter`: `refloom report` shows what it costs",
    "too_large": "the bound is a setting of `select` or `filter`: `refloom report` shows what it costs",
    "odd_shape": "the bound is a setting of `select` or `filter`: `refloom report` shows what it costs",
    "cut_off": "the bound is a setting of `select`: `refloom report` shows what it costs",
    "fragmented": "the bound is a setting of `select`: `refloom report` shows what it costs",
    "part_of_larger": "objects without a class that lie inside larger ones are parts",
    "low_confidence": "the bound is a setting of `select`: `refloom report` shows what it costs",
    "low_quality": "the bound is select.min_quality: `refloom report` shows what it costs",
    "component_missing": "a quality component has no model: `refloom models` says how to get one",
    "near_copy": "the pictures are copies of each other: look at them with `refloom browse`",
    "leak": "the pictures are copies of an evaluation set",
    "taken_down": "they are on the list of what was taken down, and stay out",
    # groups and samples
    "identity_switch": "the tracks exchange their masks: look at them with `refloom browse`",
    "too_few_members": "groups need more pictures of one subject; the bound is a setting of `group`",
    "too_alike": "the members of groups are near copies; the bound is a setting of `group`",
    "too_different": "the members of groups differ; the bound is a setting of `group`",
    "over_cap": "the caps are settings of `balance` and `compose`",
    "no_subject": "`refloom status` shows at which stage the objects went",
    # of the run
    "missing_file": "the files are not where the annotations say: give the folder that their names are relative to",
    "io_error": "the files cannot be read to their end: look at the disk, then add --retry-failed",
    "source_changed": "the linked files are not those that were ingested: bring them back, or do it with --replace",
    "timeout": "a longer --item-timeout, then add --retry-failed",
    "killed_worker": "the worker died on each of them: its last words are in runs/; --retry-failed tries again",
    "out_of_memory": "fewer --workers, then add --retry-failed",
    "internal_error": "the traceback is in runs/; --retry-failed tries again",
    "image_failed": "what became of the pictures is said above or below",
}
"""Every word of `refloom.schemas.reasons` has its hint."""
