"""Text embedders, each in the space of the image embedder of the same name."""

from refloom.inference.models.entry import Entry, Package, Stored
from refloom.inference.models.remote import Remote, on_hub

CLIPS = (
    # name, repository, parameters; zero-shot top-1 on ImageNet by the model cards: 79.2, 78.0, 66.6 and 63.3 %
    ("open-clip-vit-l-14-datacomp", "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K", 427_616_513),
    ("open-clip-vit-h-14-laion2b", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", 986_109_441),
    ("open-clip-vit-b-32-laion2b", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", 151_277_313),
    # OpenAI's own, by which CLIP-I and CLIP-T are published
    ("open-clip-vit-b-32-openai", "timm/vit_base_patch32_clip_224.openai", 151_277_313),
)
"""The CLIP models, the best first; each is an entry here and one among the image embedders."""

_PICKLED = ("laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",)
"""Repositories whose weights in open_clip's form were a pickle only when they were last looked at."""


def get_clip(name: str, repository: str) -> str:
    """The command that puts the two files of a CLIP model where they belong."""
    folder = f'"${{REFLOOM_WEIGHTS:-$HOME/.cache/refloom/weights}}/{name}"'
    pickled = repository in _PICKLED
    file = "open_clip_pytorch_model.bin" if pickled else "open_clip_model.safetensors"
    command = (
        f"pip install open-clip-torch && hf download {repository} open_clip_config.json {file} --local-dir {folder}"
    )
    if not pickled:
        return command
    # weights_only reads tensors and nothing else
    convert = (
        "import torch, safetensors.torch as s; "
        f"s.save_file(torch.load('{file}', map_location='cpu', weights_only=True), 'open_clip_model.safetensors')"
    )
    return f'{command} && (cd {folder} && python -c "{convert}" && rm {file})'


def clip_remotes(repository: str) -> tuple[Remote, ...]:
    """What is fetched of a CLIP model."""
    config, weights = "open_clip_config.json", "open_clip_model.safetensors"
    if repository not in _PICKLED:
        return on_hub(repository, config, weights)
    return *on_hub(repository, config), Remote("open_clip_pytorch_model.bin", repository, None, (weights,), "tensors")


def _open_clip(name: str, repository: str, parameters: int) -> Entry:
    return Entry(
        name=name,
        role="text_embedding",
        license="MIT",
        size_bytes=4 * parameters,
        source=f"https://huggingface.co/{repository}",
        get=get_clip(name, repository),
        packages=(Package("open_clip", ("open-clip-torch",)), Package("torch", ("torch",))),
        weights=(Stored(f"{name}/open_clip_config.json"), Stored(f"{name}/open_clip_model.safetensors")),
        remotes=clip_remotes(repository),
        loader="refloom.inference.models.openclip:load_texts",
        thresholds={
            # Not measured here. LAION kept a picture with its text from a CLIP cosine of 0.28 (LAION-5B, Schuhmann et
            # al. 2022, arXiv 2210.08402, by ViT-B-32); names are shorter and cut-outs plainer. Choose it by the report.
            "min_phrase_cosine": 0.2,
            # Not measured here: a first guess; among 2,477 names 0.3 is 700 times chance.
            "min_probability": 0.3,
        },
        options={
            # Texts in a forward pass. With random weights of ViT-B-32 a prompt of at most 16 tokens takes a core 19 ms
            # by 16 and 31 by 4, so the shipped vocabulary under six prompts about five minutes.
            "cpu_batch_size": 16,
            "cuda_batch_size": 512,
        },
    )


ENTRIES: tuple[Entry, ...] = tuple(_open_clip(*clip) for clip in CLIPS)
