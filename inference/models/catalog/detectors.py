"""Detectors: boxes of what a phrase names."""

from refloom.inference.models.catalog.transformersfolder import folder_entry
from refloom.inference.models.entry import Entry

_FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors")


def _grounding_dino(size: str, parameters: int) -> Entry:
    name = f"grounding-dino-{size}"
    return folder_entry(
        name,
        f"IDEA-Research/{name}",
        _FILES,
        role="detector",
        license="Apache-2.0",
        size_bytes=4 * parameters,
        loader="refloom.inference.models.groundingdino:load",
        thresholds={
            # Not measured here. The box threshold of the authors' own examples, with which PSRBench crops subjects.
            "min_score": 0.35,
        },
        options={
            # The decoder ends without suppressing what overlaps. Not measured here: the usual bound of detectors.
            "max_overlap": 0.5,
        },
    )


# Parameters as transformers counts them for the two sizes of Swin.
ENTRIES: tuple[Entry, ...] = (_grounding_dino("base", 232_315_264), _grounding_dino("tiny", 172_250_626))
