"""Detectors: boxes of what a phrase names."""

from refloom.inference.models.entry import Entry, Package, Stored
from refloom.inference.models.remote import on_hub

_FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors")


def _grounding_dino(size: str, parameters: int) -> Entry:
    name = f"grounding-dino-{size}"
    return Entry(
        name=name,
        role="detector",
        license="Apache-2.0",
        size_bytes=4 * parameters,
        source=f"https://huggingface.co/IDEA-Research/{name}",
        get=f"pip install transformers && hf download IDEA-Research/{name} {' '.join(_FILES)} "
        f'--local-dir "${{REFLOOM_WEIGHTS:-$HOME/.cache/refloom/weights}}/{name}"',
        packages=(Package("transformers", ("transformers",)), Package("torch", ("torch",))),
        weights=tuple(Stored(f"{name}/{file}") for file in _FILES),
        remotes=on_hub(f"IDEA-Research/{name}", *_FILES),
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
