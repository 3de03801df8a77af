"""Captioners."""

from refloom.inference.models.catalog.transformersfolder import folder_entry
from refloom.inference.models.entry import Entry

_BLIP_LARGE = folder_entry(
    "blip-large",
    "Salesforce/blip-image-captioning-large",
    ("config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"),
    role="captioner",
    license="BSD-3-Clause",
    size_bytes=1_878_931_696,  # of the tensors; the embedding of words lies in the file twice
    loader="refloom.inference.models.hfcaptioner:load",
    options={
        # BLIP's own for COCO: configs/caption_coco.yaml of its release, which ends at 20 tokens with the prompt
        "num_beams": 3,
        "min_new_tokens": 5,
        "max_new_tokens": 30,
        # Pictures in a pass. Not measured with these weights.
        "cpu_batch_size": 1,
        "cuda_batch_size": 32,
    },
)
# BLIP base is published as a pickle only, so it is not here.

ENTRIES: tuple[Entry, ...] = (_BLIP_LARGE,)
