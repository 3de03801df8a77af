"""`refloom cache` keeps the features that are there until the new ones are whole, and asks before it replaces any."""

import shutil
from pathlib import Path

import pytest
from cutting import Cut, cut
from traindata import recipe, settings, sources, write_videos

from refloom import cli
from refloom.ingest.engine.pool import Pool
from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.storage import Folder
from refloom.training.data.index import Index
from refloom.training.features import cache as features
from refloom.training.features import worker
from refloom.training.features.cache import Options
from refloom.training.features.store import Store
from refloom.training.recipes.recipe import Recipe

HERE = Pool(workers=0)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_videos(tmp_path_factory.mktemp("data") / "samples", units=2, rows=2)


def asked(models: Path, url: str, *more: str) -> Recipe:
    return recipe("mip/sdxl", models, url, sources(url), *more)


def make(models: Path, url: str, place: Path | str, *more: str, **options: object) -> None:
    features.cache(asked(models, url, *more), url, str(place), Options(**{"variants": 1, **options}), HERE)


OTHER = "view.cutout.flip=0.25"


@pytest.fixture(scope="module")
def old(models: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("old") / "features"
    make(models, url, place)
    return place


@pytest.fixture(scope="module")
def fresh(models: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fresh") / "features"
    make(models, url, place, OTHER)
    return place


def held(place: Path) -> dict[str, bytes]:
    files = [path for path in place.rglob("*") if path.is_file() and "runs" not in path.relative_to(place).parts]
    return {str(path.relative_to(place)): path.read_bytes() for path in files}


def rows(place: Path | str, url: str) -> list[object]:
    """All that a run would read."""
    store = Store(str(place))
    read = [store.read(key) for key in Index(url).groups]
    return [(one.sample_id(0), one.record(0, 0, 0)) for one in read]


@pytest.mark.parametrize("after", range(1, 30, 5))
def test_wherever_it_is_cut_off_one_whole_set_of_features_is_read_and_it_resumes(
    after: int, models: Path, url: str, old: Path, fresh: Path, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(old, tmp_path / "features"))
    with pytest.raises(Cut), cut(place, after):
        make(models, url, place, OTHER, replace=True)
    of = old if Store(str(place)).summary.settings == Store(str(old)).summary.settings else fresh
    assert rows(place, url) == rows(of, url)
    make(models, url, place, OTHER, replace=True)
    assert held(place) == held(fresh)


def test_units_that_were_whole_are_not_made_again_and_the_old_settings_are_still_good(
    models: Path, url: str, old: Path, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, fill, count = Path(shutil.copytree(old, tmp_path / "features")), worker.CacheWorker._fill, [0]

    def once(*arguments: object) -> None:
        if count[0]:
            raise JobStopped("no space left")
        count[0] += 1
        fill(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(worker.CacheWorker, "_fill", once)
        with pytest.raises(JobStopped):
            make(models, url, place, OTHER, replace=True)
    assert rows(place, url) == rows(old, url)
    look = features.look_ahead(
        Index(url), Folder(str(place)), features.settings_of(asked(models, url, OTHER)), Options(variants=1)
    )
    assert (len(look.due), len(look.there)) == (1, 1)
    back = Path(shutil.copytree(place, tmp_path / "back"))
    make(models, url, back)  # asks for nothing that is not there
    assert held(back) == held(old)
    make(models, url, place, OTHER)  # what has begun is gone on with
    assert held(place) == held(fresh)


def test_features_of_another_dataset_or_split_are_not_replaced_unasked(
    models: Path, url: str, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = write_videos(tmp_path / "more", units=2, rows=3)
    place = Path(shutil.copytree(old, tmp_path / "features"))
    with pytest.raises(Refused, match=rf"holds features of {url}, split train: give another --out .*or .*--replace"):
        make(models, more, place)
    told = [part for setting in settings("mip/sdxl", models, more) for part in ("--set", setting)]
    line = ["cache", more, "--recipe", "debug/mip/sdxl", "--out", str(place), "--variants", "1", "--device", "cpu"]
    assert cli.main([*line, *told, "--dry-run"]) == 2
    assert "give another --out" in capsys.readouterr().err
    assert held(place) == held(old)
    with pytest.raises(Refused, match=r"run `refloom cache .*more --out ANOTHER"):
        Store(str(place)).check(features.settings_of(asked(models, more)), Index(more), 1)
    make(models, more, place, replace=True)
    assert Store(str(place)).summary.samples == Index(more).fingerprint


def test_features_follow_a_dataset_that_grew_or_moved(models: Path, url: str, old: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(old, tmp_path / "features"))
    moved = str(shutil.copytree(url, tmp_path / "moved"))
    make(models, moved, place)
    assert held(place) == held(old)
    shutil.rmtree(moved)
    write_videos(Path(moved), units=2, rows=3)
    make(models, moved, place)
    assert Store(str(place)).summary.samples == Index(moved).fingerprint


def test_on_a_store_too_the_old_ones_are_read_until_the_new_ones_are_whole(
    models: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"memory://{tmp_path}/features"
    make(models, url, place)
    before = rows(place, url)

    def failing(*_: object) -> None:
        raise JobStopped("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(worker.CacheWorker, "_fill", failing)
        with pytest.raises(JobStopped):
            make(models, url, place, OTHER, replace=True)
    assert rows(place, url) == before
    make(models, url, place, OTHER, replace=True)
    assert Folder(place).folders("manifests") == ["features"]
