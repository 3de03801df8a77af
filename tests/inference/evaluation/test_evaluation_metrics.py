"""Scores against their definitions: pixels as torchvision cuts them, cosines by the encoders, averages by hand."""

import numpy as np
import pytest
from drawing import gradient
from PIL import Image
from tinymodels import put_clip, put_dinov2, use

from refloom.inference.evaluation import encoders, metrics, outcome
from refloom.inference.evaluation.cases import Benchmark, Case, FilePicture, Subject
from refloom.inference.evaluation.encoders import Chosen, Encoders
from refloom.inference.evaluation.scoring import Measurer
from refloom.inference.models import registry
from refloom.schemas.errors import Refused


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    put_clip(folder)
    put_dinov2(folder)
    return folder


@pytest.fixture
def present(weights, monkeypatch):
    use(weights, monkeypatch)
    return encoders.choose({"clip": "auto", "dino": "auto", "face": "none"})


@pytest.fixture
def case(tmp_path):
    """Two subjects of two photographs and one, with places."""
    for n in range(3):
        Image.fromarray(gradient(60 + 10 * n, 50, n)).save(tmp_path / f"{n}.png")
    photos = [FilePicture(str(tmp_path / f"{n}.png")) for n in range(3)]
    left = Subject("cat", tuple(photos[:2]), tuple(photos[:2]), (0, 0, 0.5, 1))
    right = Subject("dog", (photos[2],), (photos[2],), (0.5, 0.25, 1, 1))
    return Case("a/0", "a", "a cat and a dog", (left, right))


@pytest.mark.parametrize(("width", "height"), [(61, 40), (40, 61), (640, 427), (333, 500), (224, 224), (225, 224)])
@pytest.mark.parametrize(("kind", "short"), [("clip", 224), ("dino", 256)])
def test_encoders_see_what_torchvision_makes_of_a_picture(width, height, kind, short):
    pixels = gradient(width, height, 3)
    assert np.array_equal(encoders.crop(pixels, kind, 224), published(pixels, short, 224))


def published(pixels, short, side):
    """The middle square as the papers cut it."""
    from torchvision import transforms

    resize = transforms.Resize(short, transforms.InterpolationMode.BICUBIC)
    return np.asarray(transforms.CenterCrop(side)(resize(Image.fromarray(pixels))))


def unit(pixels, entry):
    """A vector by the loaded model alone, one picture at a time."""
    model = entry.load()
    size = model.input_px
    short = size if "clip" in entry.name else round(size * 8 / 7)
    return model.embed(published(pixels, short, size)[None])[0].astype(np.float64)


def test_scores_are_what_their_definitions_say(present, case):
    picture = gradient(64, 64, 9)
    found = Measurer(Encoders(present, "cpu"), metrics.METRICS).scores(case, picture)
    clip, dino = present["clip"].entry, present["dino"].entry
    words = present["clip"].texts.load().embed([case.prompt])[0].astype(np.float64)
    cosine = float(unit(picture, clip) @ words)
    assert found["clip_t"] == pytest.approx((cosine, 1), abs=1e-6)
    # torchmetrics' CLIPScore and the paper's: w * max(cos, 0), w = 2.5 (torchmetrics: 100)
    assert found["clip_score"] == pytest.approx((2.5 * max(cosine, 0), 1), abs=1e-6)
    photos = [[one.pixels() for one in subject.photographs] for subject in case.subjects]
    for name, entry in (("clip_i", clip), ("dino", dino)):
        each = [np.mean([unit(picture, entry) @ unit(one, entry) for one in own]) for own in photos]
        assert found[name] == pytest.approx((np.mean(each), 3), abs=1e-6)
    assert found["m_dino"] == pytest.approx((each[0] * each[1], 1), abs=1e-6)
    assert each[0] != pytest.approx(each[1], abs=1e-4), "else this test could not fail"


def test_the_boxed_scores_look_at_each_subjects_own_place(present, case):
    measurer = Measurer(Encoders(present, "cpu"), [metrics.BY_NAME["dino_box"], metrics.BY_NAME["m_dino_box"]])
    picture = gradient(64, 64, 9)
    before = measurer.scores(case, picture)
    outside = picture.copy()
    outside[:16, 32:] = 0  # above the right subject's box
    assert measurer.scores(case, outside) == before
    inside = picture.copy()
    inside[40:, 40:] = 0
    assert measurer.scores(case, inside) != before
    dino = present["dino"].entry.load()
    parts = [picture[:, :32], picture[16:, 32:]]
    crops = [
        encoders.cut_out(np.ascontiguousarray(part), None, (0, 0, *part.shape[1::-1]), dino.input_px) for part in parts
    ]
    vectors = [dino.embed(one[None])[0].astype(np.float64) for one in crops]
    cosines = [
        np.mean([vector @ unit(one.pixels(), present["dino"].entry) for one in subject.photographs])
        for vector, subject in zip(vectors, case.subjects, strict=True)
    ]
    assert before["dino_box"][0] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert before["m_dino_box"][0] == pytest.approx(np.prod(cosines), abs=1e-6)


def test_an_edit_is_measured_inside_and_outside_its_mask_separately(present, tmp_path, case):
    source = gradient(64, 48, 5)
    Image.fromarray(source).save(tmp_path / "source.png")
    subject = Subject("cat", case.subjects[0].references, case.subjects[0].photographs, (0.25, 0.25, 0.75, 0.75))
    edit = Case("e/0", "e", "a photo of a cat", (subject,), FilePicture(str(tmp_path / "source.png")))
    names = ("clip_i_fg", "dino_fg", "clip_i_bg", "dino_bg", "dino_source")
    measurer = Measurer(Encoders(present, "cpu"), [metrics.BY_NAME[name] for name in names])
    inside = source.copy()
    inside[12:36, 16:48] = 200
    kept = measurer.scores(edit, inside)
    assert kept["clip_i_bg"] == pytest.approx((1, 1), abs=1e-6)
    assert kept["dino_bg"] == pytest.approx((1, 1), abs=1e-6)
    assert kept["dino_source"][0] < 0.9999
    outside = source.copy()
    outside[:12] = 0
    spoiled = measurer.scores(edit, outside)
    assert spoiled["dino_bg"][0] < 0.9999
    assert spoiled["dino_fg"] == measurer.scores(edit, source)["dino_fg"] != kept["dino_fg"]
    assert measurer.scores(case, inside) == {}, "nothing is edited there"
    with pytest.raises(Refused, match="the edited picture is 32x32, its source 64x48"):
        measurer.scores(edit, source[:32, :32])


def test_m_dino_punishes_a_neglected_subject_more_than_a_mean_does():
    subjects = [np.eye(3)[:1], np.eye(3)[1:2]]
    both, one = np.array([0.6, 0.6, 0.53]), np.array([1.0, 0.0, 0.0])
    assert metrics.product_over_subjects([both] * 2, subjects)[0] == pytest.approx(0.36)
    assert metrics.product_over_subjects([one] * 2, subjects)[0] == 0
    assert metrics.over_subjects(one, subjects)[0] == pytest.approx(0.5)


def test_faces_are_known_by_the_nearest_one_and_a_missing_one_counts_zero():
    known = np.array([[1.0, 0], [0, 1.0]])
    faces = np.array([[0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]])
    assert metrics.face_similarity(faces, known) == pytest.approx((0.9, 2))
    assert metrics.face_similarity(faces[:0], known) == (0.0, 2)
    assert metrics.face_similarity(faces, known[:0]) is None


def test_averages_are_those_of_the_papers():
    scores = [("a", (1.0, 1)), ("a", (0.0, 3)), ("b", (0.5, 6))]
    assert metrics.average(scores, "samples") == pytest.approx(0.5)
    assert metrics.average(scores, "pairs") == pytest.approx((1 + 0 + 3) / 10)
    assert metrics.average([*scores, ("a", (0.5, 1))], "parts") == pytest.approx((0.5 + 0.5) / 2)
    assert metrics.average([("a", (1.0, 1)), ("a", (1.0, 1)), ("b", (0.0, 1))], "parts") == pytest.approx(0.5)
    assert metrics.average([], "pairs") is None


def test_auto_takes_the_papers_encoders_and_without_any_scores_are_null_and_say_so(
    present, case, tmp_path, monkeypatch
):
    assert present["clip"].entry.name == "open-clip-vit-b-32-laion2b"
    assert present["dino"].entry.name == "dinov2-base"
    benchmark = Benchmark("b", "B", (case,), 1, "samples")
    use(tmp_path, monkeypatch)
    absent = encoders.choose({"clip": "auto", "dino": "none", "face": "none"})
    lines = outcome.summarise(benchmark, metrics.METRICS, [], absent, "all")
    said = {line.metric.name: (line.value, line.protocol, line.why) for line in lines}
    assert said["clip_i"][:2] == (None, None)
    assert "hf download timm/vit_base_patch32_clip_224.openai" in said["clip_i"][2]
    assert said["dino"] == (None, None, "none was asked for")
    for file in ("open_clip_config.json", "open_clip_model.safetensors"):
        (tmp_path / "open-clip-vit-b-32-openai").mkdir(exist_ok=True)
        (tmp_path / "open-clip-vit-b-32-openai" / file).write_bytes(b"")
    chosen = encoders.choose({"clip": "auto", "dino": "none", "face": "none"})
    assert (chosen["clip"].entry.name, chosen["clip"].texts.role) == ("open-clip-vit-b-32-openai", "text_embedding")
    with pytest.raises(Refused, match="--dino efficientnet-lite0 is none of"):
        encoders.choose({"clip": "auto", "dino": "efficientnet-lite0", "face": "none"})
    with pytest.raises(Refused, match="did you mean clip_t"):
        metrics.choose("clip_tt")


def test_a_protocol_names_encoder_crop_formula_and_average():
    def of(name, encoder, average="pairs", references="1"):
        entry = registry.by_name("image_embedding", encoder)
        return encoders.protocol(metrics.BY_NAME[name], Chosen(entry), average, references)

    first = of("dino", "dino-vits16")
    assert first == "dino/dino-vits16/short-8:7-bicubic-centre/whole/cos/mean-over-pairs/refs=1"
    others = {of("dino", "dinov2-base"), of("m_dino", "dino-vits16"), of("dino", "dino-vits16", "parts")}
    assert len({first, *others, of("dino_box", "dino-vits16"), of("dino", "dino-vits16", "pairs", "all")}) == 6


def test_published_tables_are_sound_and_say_what_can_be_compared():
    tables = {name: outcome.published(name) for name in ("concept101", "ms-bench", "dreambench", "groups", "dreamedit")}
    for table in (table for some in tables.values() for table in some):
        assert set(table.columns) <= metrics.BY_NAME.keys()
        assert all(len(row) == len(table.columns) + 1 for row in table.rows)
        assert all(value is None or 0 < value < 1 for row in table.rows for value in row[1:])
        assert set(table.encoders) == {"clip", "dino"}
    (mip,) = tables["concept101"]
    assert {row[0]: row[1:] for row in mip.rows}["MIP-Adapter sdxl_plus"] == (0.7765, 0.6950, 0.4397)

    def line(name, encoder, value):
        return outcome.Line(metrics.BY_NAME[name], value, 1, "p", f"{encoder}@abc", None)

    same = [line("clip_score", mip.encoders["clip"], 0.7), line("clip_i", mip.encoders["clip"], 0.6)]
    same += [line("dino", mip.encoders["dino"], 0.4)]
    assert outcome.beside(mip, same, whole=True) == ([0.7, 0.6, 0.4], "the same encoders and formulas")
    other = [*same[:2], line("dino", "dinov2-base", 0.4)]
    assert outcome.beside(mip, other, whole=True)[1] == "theirs is dino-vits16, ours dinov2-base"
    assert "a part of the benchmark" in outcome.beside(mip, same, whole=False)[1]
