"""Segmenters: masks for boxes and for bare pictures."""

from refloom.inference.models.entry import Entry, Package, Stored
from refloom.inference.models.remote import Remote

_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything"
_SAM_PACKAGES = (
    Package("segment_anything", ("segment-anything",)),
    Package("torch", ("torch",)),
    Package("torchvision", ("torchvision",)),
)
_SAM_OPTIONS = {
    # the parts that all three sizes share: `build_sam.py` of the package
    "image_px": 1024,
    "window": 14,
    "prompt_dim": 256,
    "decoder_depth": 2,
    "decoder_heads": 8,
    "decoder_mlp_dim": 2048,
    "iou_dim": 256,
    # SAM draws masks of 256 px, so that 2048 px lose nothing; SA-1B's pictures are about 2250x1500
    "work_side_px": 2048,
    # the defaults of the package's generator, which its authors chose for ViT-H
    "points_per_side": 32,
    "min_predicted_iou": 0.88,
    "min_stability": 0.95,
    "stability_offset": 1.0,
    "max_box_iou": 0.7,
    # prompts in a pass; 4 megapixels of logits take 16 MB a mask, and a point has three masks
    "cpu_batch_size": 8,
    "cuda_batch_size": 64,
}


def _sam(name: str, file: str, size_bytes: int, sha256: str, encoder: dict[str, float]) -> Entry:
    folder = f'"${{REFLOOM_WEIGHTS:-$HOME/.cache/refloom/weights}}/{name}"'
    return Entry(
        name=name,
        role="segmenter",
        license="Apache-2.0",
        size_bytes=size_bytes,
        source=f"{_SAM_URL}/{file}, https://github.com/facebookresearch/segment-anything",
        get="pip install segment-anything torch torchvision && "
        f"mkdir -p {folder} && curl -fL -o {folder}/{file} {_SAM_URL}/{file}",
        packages=_SAM_PACKAGES,
        weights=(Stored(f"{name}/{file}"),),
        remotes=(Remote(file, f"{_SAM_URL}/{file}", sha256),),
        loader="refloom.inference.models.sam:load",
        options=_SAM_OPTIONS | encoder,
    )


_SAM_VIT_H = _sam(
    "sam_vit_h",
    "sam_vit_h_4b8939.pth",
    2_564_550_879,
    "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    {"encoder_dim": 1280, "encoder_depth": 32, "encoder_heads": 16},
)
_SAM_VIT_L = _sam(
    "sam_vit_l",
    "sam_vit_l_0b3195.pth",
    1_249_524_607,
    "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    {"encoder_dim": 1024, "encoder_depth": 24, "encoder_heads": 16},
)
_SAM_VIT_B = _sam(
    "sam_vit_b",
    "sam_vit_b_01ec64.pth",
    375_042_383,
    "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    {"encoder_dim": 768, "encoder_depth": 12, "encoder_heads": 12},
)

_GRABCUT = Entry(
    name="grabcut",
    role="segmenter",
    license="Apache-2.0",
    size_bytes=0,
    source="https://docs.opencv.org/4.x/d8/d83/tutorial_py_grabcut.html, no weights",
    get="pip install opencv-python-headless",
    packages=(Package("cv2", ("opencv-python-headless", "opencv-python")),),
    weights=(),
    loader="refloom.inference.models.grabcut:load",
    precisions=("fp32",),
    options={
        # Chosen on 92 COCO objects of ../shared/data, of 1,500 px and more, with their own boxes: 50 masks, of median
        # IoU 0.80 with COCO's, 10 % of them below 0.5; the boxes themselves have 0.61. Where an object has the colours
        # of its surroundings GrabCut finds a scrap of it: without `min_fill` there are 71 masks, of median 0.70, 37 %
        # below 0.5. A wider margin, 160 or 320 px and 3 or 8 iterations change the median by 0.03 at most; a seed in
        # the middle of the box finds more masks, but poor ones.
        "work_side_px": 240,
        "margin": 0.2,
        "iterations": 5,
        "min_side_px": 12,
        "max_box_share": 0.9,
        "min_part": 0.05,
        "min_fill": 0.3,
    },
)

ENTRIES: tuple[Entry, ...] = (_SAM_VIT_H, _SAM_VIT_L, _SAM_VIT_B, _GRABCUT)
