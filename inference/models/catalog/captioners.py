"""Captioners."""

from refloom.inference.models.entry import Entry, Package, Stored
from refloom.inference.models.remote import on_hub

_BLIP_LARGE = Entry(
    name="blip-large",
    role="captioner",
    license="BSD-3-Clause",
    size_bytes=1_878_931_696,  # of the tensors; the embedding of words lies in the file twice
    source="https://huggingface.co/Salesforce/blip-image-captioning-large",
    get="pip install transformers && hf download Salesforce/blip-image-captioning-large config.json "
    "preprocessor_config.json tokenizer.json model.safetensors --local-dir "
    '"${REFLOOM_WEIGHTS:-$HOME/.cache/refloom/weights}/blip-large"',
    packages=(Package("transformers", ("transformers",)), Package("torch", ("torch",))),
    weights=(
        Stored("blip-large/config.json"),
        Stored("blip-large/preprocessor_config.json"),
        Stored("blip-large/tokenizer.json"),
        Stored("blip-large/model.safetensors"),
    ),
    remotes=on_hub(
        "Salesforce/blip-image-captioning-large",
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "model.safetensors",
    ),
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
