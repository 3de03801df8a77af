"""`refloom fit-quality`: judgements become weights of quality in a config, and selecting by it decodes nothing."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import run
from curating import LOOSE, coco, curated
from helpers import HERE

from refloom.curation import taste
from refloom.curation.annotate.fit import fit
from refloom.curation.annotate.quality import quality
from refloom.curation.annotate.rescore import is_enough
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.curation.objects import float_array
from refloom.curation.taste import fit_quality, present_settings, read
from refloom.schemas import commands, labels, pictures, settings
from refloom.schemas.components import COMPONENTS
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.labels import Label
from refloom.schemas.manifest import Manifest
from refloom.schemas.verify import verify

SIZE = (96, 80)


def scenes() -> list[dict[str, tuple[int, int, int, int]]]:
    """Twelve pictures with four boxes each, of all sizes."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(12):
        scene = {}
        for number in range(4):
            width, height = rng.integers(8, 60, 2).tolist()
            x, y = rng.integers(0, SIZE[0] - width), rng.integers(0, SIZE[1] - height)
            scene[f"thing {number}"] = (int(x), int(y), int(x + width), int(y + height))
        found.append(scene)
    return found


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch):
    """Intervals of fewer draws: how good they are is for tests of the fit."""
    monkeypatch.setattr(taste, "fit", partial(fit, folds=4, rounds=2, draws=100))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Not to be changed."""
    root = tmp_path_factory.mktemp("taste")
    return Path(curated(root, coco(root / "coco", scenes(), size=SIZE)).url)


@pytest.fixture
def dataset(made, tmp_path) -> Dataset:
    shutil.copytree(made, tmp_path / "data")
    return Dataset(str(tmp_path / "data"))


def by_size(dataset: Dataset) -> dict[str, int]:
    """The judgements of somebody who likes large objects and nothing else."""
    rows = dataset.read("object_scores", ["object_id", "area_share"]).to_pylist()
    return {row["object_id"]: int(np.digitize(row["area_share"], [0.03, 0.08, 0.16])) for row in rows}


def written(file: Path, judgements: dict[str, Any], head: str = "object_id\tscore") -> Path:
    lines = [f"{name}\t{score}" for name, score in judgements.items()]
    file.write_text("\n".join([head, *lines]) + "\n")
    return file


def save(dataset: Dataset, judgements: Iterable[tuple[str, int]]) -> None:
    (unit,) = dataset.units()
    for name, score in judgements:
        labels.save(dataset.url, Label(name, score), unit)


# -- the fit -------------------------------------------------------------------------------------------------------


def test_weights_follow_what_was_judged_and_the_config_changes_nothing_else(dataset, tmp_path):
    rows = dataset.read("object_scores", ["object_id", "sharpness"]).to_pylist()
    middle = np.median([row["sharpness"] for row in rows])
    sharp = {row["object_id"]: 3 if row["sharpness"] > middle else 1 for row in rows}
    done = fit_quality(dataset, labels=written(tmp_path / "said.tsv", sharp), out=tmp_path / "mine.yaml")
    fit = done.fit
    assert done.good + done.poor == len(dataset.read("objects"))
    assert done.images == 12
    assert fit.auc.value > fit.auc_before.value
    assert fit.auc.low <= fit.auc.value <= fit.auc.high
    gained = {name: fit.settings.weight_of(name) / LOOSE.quality.weight_of(name) for name in ("sharpness", "area_px")}
    assert gained["sharpness"] > max(1.0, gained["area_px"])
    config = settings.load(Curation, tmp_path / "mine.yaml")
    assert config.quality == fit.settings
    assert config.select == replace(LOOSE.select, min_quality=round(fit.min_quality, 4))
    assert replace(config, quality=LOOSE.quality, select=LOOSE.select) == LOOSE
    said = (tmp_path / "mine.yaml").read_text().splitlines()
    assert said[0].startswith("# ")
    assert f"{fit.auc.value:.3f}" in said[1]


def test_the_labels_of_the_dataset_are_taken_where_no_file_is_given(dataset, tmp_path):
    said = dict(sorted(by_size(dataset).items())[:40])
    save(dataset, said.items())
    own = fit_quality(dataset.url, out=tmp_path / "own.yaml")
    other = fit_quality(dataset, labels=written(tmp_path / "said.tsv", said), out=tmp_path / "other.yaml")
    assert (own.good, own.poor) == (other.good, other.poor)
    assert own.fit.settings == other.fit.settings


def test_selecting_by_it_decodes_no_picture_and_is_what_a_new_curation_makes(dataset, made, tmp_path, monkeypatch):
    file = written(tmp_path / "said.tsv", by_size(dataset))
    done = fit_quality(dataset, labels=file, out=tmp_path / "mine.yaml")
    config = settings.load(Curation, tmp_path / "mine.yaml")
    before, old = dataset.manifests("measure"), dataset.read("object_scores")
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "decode", lambda *_: pytest.fail("a picture was decoded"))
        curate(dataset.url, config, HERE, until="select", replace=True)
    curate(dataset.url, config, HERE, replace=True)
    now = Dataset(dataset.url)
    assert now.manifests("measure") == before
    rows = now.read("object_scores")
    components = {name: float_array(rows[name]) for name in COMPONENTS}
    expected = quality(["object"] * len(rows), components, done.fit.settings).astype(np.float32)
    assert np.array_equal(float_array(rows["quality"]).astype(np.float32), expected, equal_nan=True)
    assert not rows["quality"].equals(old["quality"])
    assert rows.drop_columns("quality").equals(old.drop_columns("quality"))
    kept = [row["object_id"] for row in now.read("selection").to_pylist() if row["verdict"] == "keep"]
    bound = np.float32(config.select.min_quality)
    assert kept == [name for name, one in zip(rows["object_id"].to_pylist(), expected, strict=True) if one >= bound]
    assert verify(now, decode_per_unit=0, derived=True).sound
    fresh = curated(tmp_path / "fresh", coco(tmp_path / "coco", scenes(), size=SIZE), config=config)
    assert fresh.fingerprint("object_scores") == now.fingerprint("object_scores")
    (manifest,) = now.manifests("quality").values()
    assert manifest.items == fresh.manifests("quality")[manifest.unit].items


@pytest.mark.parametrize(
    ("differences", "enough"),
    [
        (["quality.weights.sharpness: None -> 2.0"], True),
        (["quality.ramps.sharpness: [] -> []", "quality.object_components: [] -> []"], True),
        (["quality.fitted_on: 'a' -> 'b'"], True),
        (["quality.weights.sharpness: None -> 2.0", "quality.shape_side_px: 256 -> 128"], False),
        (["filter.min_area_px: 500 -> 100"], False),
        (["stage_version: 1 -> 2"], False),
        (["quality.all_components: False -> True"], False),
        (["added.mine.version: 1 -> 2"], False),
        ([], False),
    ],
)
def test_components_are_made_again_where_they_may_differ(differences, enough):
    assert is_enough(differences) is enough


def test_lost_objects_stay_on_record_when_quality_is_made_of_stored_components(tmp_path):
    source = coco(tmp_path / "coco", scenes()[:3], size=SIZE)
    file = tmp_path / "coco/val2017/000000000002.jpg"
    data = file.read_bytes()
    file.write_bytes(data[: data.index(b"\xff\xda") + 2] + b"\xff\xd9")  # its head is sound, and it does not decode
    dataset = curated(tmp_path, source)
    before, ledger = dataset.counts("quality"), dataset.ledger("quality")
    config = replace(LOOSE, quality=replace(LOOSE.quality, weights={"sharpness": 3.0}))
    curate(dataset.url, config, HERE, replace=True)
    now = Dataset(dataset.url)
    assert now.counts("quality")["object"].to_json() == before["object"].to_json()
    assert now.ledger("quality").equals(ledger)
    assert len(ledger) > 0


def test_settings_of_before_there_were_weights_are_compared_as_what_they_meant(dataset):
    (manifest,) = dataset.manifests("quality").values()
    late = ("optional_components", "weights", "fitted_on")
    own = {name: value for name, value in manifest.config["quality"].items() if name not in late}
    path = Manifest.path("quality", manifest.unit)
    old = replace(manifest, config=manifest.config | {"quality": own})
    dataset.folder.write(path, old.to_json())
    dataset.folder.remove(commands.SETTINGS)
    found = present_settings(Dataset(dataset.url)).quality
    assert (found.optional_components, found.weights) == ((), {})
    assert found.object_components == LOOSE.quality.object_components
    assert LOOSE.quality.optional_components


# -- what is refused -----------------------------------------------------------------------------------------------


def test_a_config_is_written_over_only_when_asked_for(dataset, tmp_path):
    file, out = written(tmp_path / "said.tsv", by_size(dataset)), tmp_path / "mine.yaml"
    out.write_text("mine")
    with pytest.raises(Refused, match="--replace to write over it"):
        fit_quality(dataset, labels=file, out=out)
    assert out.read_text() == "mine"
    fit_quality(dataset, labels=file, out=out, replace=True)
    assert yaml.safe_load(out.read_text())["quality"]["weights"]


def test_no_labels_are_refused_with_what_to_do(dataset, tmp_path):
    with pytest.raises(Refused, match=r"holds no labels: judge objects with `refloom browse .* --label`"):
        fit_quality(dataset, out=tmp_path / "mine.yaml")


@pytest.mark.parametrize("score", [0, 3])
def test_labels_of_one_kind_are_refused(dataset, tmp_path, score):
    said = dict.fromkeys(by_size(dataset), score)
    with pytest.raises(Refused, match="All are of one kind"):
        fit_quality(dataset, labels=written(tmp_path / "said.tsv", said), out=tmp_path / "mine.yaml")
    assert not (tmp_path / "mine.yaml").exists()


def test_too_few_labels_or_images_are_refused_with_their_number(dataset, tmp_path):
    said = by_size(dataset)
    few = dict(list(said.items())[:9])
    with pytest.raises(Refused, match=r"poor objects of 3 images are too few: weights need 10 of each"):
        fit_quality(dataset, labels=written(tmp_path / "said.tsv", few), out=tmp_path / "mine.yaml")


def test_ids_that_the_dataset_lacks_are_refused_or_left_out(dataset, tmp_path):
    said = by_size(dataset) | {"coco/nobody#1": 3, "coco/nobody#2": 0}
    file = written(tmp_path / "said.tsv", said)
    with pytest.raises(Refused, match=r"judges 2 of 50 objects that .* does not hold, coco/nobody#1"):
        fit_quality(dataset, labels=file, out=tmp_path / "mine.yaml")
    assert fit_quality(dataset, labels=file, out=tmp_path / "mine.yaml", ignore_unknown=True).unknown == 2


def test_a_dataset_without_qualities_is_refused(tmp_path):
    dataset = curated(tmp_path, coco(tmp_path / "coco", scenes()[:1]), until="measure")
    with pytest.raises(Refused, match="--until quality"):
        fit_quality(dataset, labels=written(tmp_path / "said.tsv", {"coco/1#1": 1}), out=tmp_path / "mine.yaml")


# -- files ---------------------------------------------------------------------------------------------------------


def test_several_scores_count_by_their_mean_and_other_columns_do_not(tmp_path):
    file = tmp_path / "said.tsv"
    file.write_text("object_id\tscore_a\tscore_b\tflag_a\tkept_2026_11\na#1\t3\t2\tdark\t1\n\nb#1\t1\t\t\t0\n")
    assert read(file) == {"a#1": 2.5, "b#1": 1.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names nothing"),
        ("id\tscore\na\t1\n", "names id, score: it needs object_id and score"),
        ("object_id\tquality\na\t1\n", "needs object_id and score"),
        ("object_id,score\na,1\n", "with tabs between"),
        ("object_id\tscore\na\t1\tx\n", "line 2: 3 columns, not 2"),
        ("object_id\tscore\na\t1\nb\t4\n", "line 3: a score is 0, 1, 2 or 3, not 4"),
        ("object_id\tscore\na\t1.5\n", "line 2: a score is 0, 1, 2 or 3"),
        ("object_id\tscore\na\t\n", "line 2: a score is 0, 1, 2 or 3, not empty"),
        ("object_id\tscore\na\t1\na\t2\n", "line 3: a stands there twice"),
    ],
)
def test_a_file_that_is_none_is_refused_by_its_line(tmp_path, text, said):
    file = tmp_path / "said.tsv"
    file.write_text(text)
    with pytest.raises(Refused) as refusal:
        read(file)
    assert said in str(refusal.value)
    with pytest.raises(Refused, match="cannot be read"):
        read(tmp_path / "nowhere.tsv")


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_command_says_how_well_it_ranks_and_how_to_use_it(dataset, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path / "said.tsv", by_size(dataset))
    said = run(capfd, "fit-quality", dataset.url, "--labels", file)
    assert said.code == 0
    assert "AUC now" in said.out
    assert f"refloom curate {dataset.url} --config quality.yaml --replace" in said.out
    assert run(capfd, "fit-quality", dataset.url, "--labels", file).code == 2
    again = run(capfd, "fit-quality", dataset.url, "--labels", file, "--replace", "--json")
    found = json.loads(again.out)
    assert found["good"] + found["poor"] == 48
    assert 0 <= found["auc"]["low"] <= found["auc"]["value"] <= found["auc"]["high"] <= 1
    assert set(found["weights"]) == {*LOOSE.quality.object_components, *LOOSE.quality.optional_components}
