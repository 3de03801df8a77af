"""Datasets may use the same ids: a sample is its id in its dataset, wherever samples are told apart."""

from dataclasses import replace
from pathlib import Path

import pytest
from loading import image_row, write_samples
from traindata import recipe, video, write_models

from refloom import cli
from refloom.schemas.errors import Refused
from refloom.training.data.loader import Loader, Source
from refloom.training.recipes.recipe import Recipe
from refloom.training.watch import heldout
from refloom.training.watch.heldout import held_out, shuffled


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def both(models: Path, *urls: str) -> Recipe:
    asked = recipe("ip_adapter", models, urls[0], "data.threads=0")
    return replace(asked, data=replace(asked.data, sources=tuple(Source(url=url) for url in urls)))


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two datasets, each of one sample, of one id."""
    folder = tmp_path_factory.mktemp("data")
    return [write_samples(folder / name, 1, 1, video) for name in ("one", "other")]


def test_the_other_datasets_sample_of_the_same_id_is_another_subject(
    models: Path, urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heldout, "SPLIT", "train")
    found = held_out(both(models, *urls), 2)
    assert len({one.sample_id for one in found}) == 1
    assert sorted(one.dataset for one in found) == sorted(urls)
    given = shuffled(found)
    for one, other, theirs in zip(found, given, reversed(found), strict=True):
        assert [image.tobytes() for image in other.references[0].images] == [
            image.tobytes() for image in theirs.references[0].images
        ]
        assert other.dataset == one.dataset


def test_one_dataset_given_twice_is_one(models: Path, urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heldout, "SPLIT", "train")
    with pytest.raises(Refused, match="only sample of its kind"):
        shuffled(held_out(both(models, urls[0], urls[0] + "/"), 2))


def test_a_row_that_was_replaced_names_its_dataset(models: Path, tmp_path: Path) -> None:
    def damaged(number: int) -> tuple[dict[str, object], list[bytes]]:
        row, images = image_row(number)
        return row, [images[0][:200]] if number == 0 else images

    urls = [write_samples(tmp_path / name, 1, 2, make) for name, make in (("a", damaged), ("b", image_row))]
    one = both(models, *urls)
    with Loader(one.data.sources, one.view, one.loading) as loader:
        examples = [example for _ in range(4) for example in next(loader).examples]
        assert {lost.dataset for lost in loader.replaced} == {urls[0]}
        assert {example.dataset for example in examples} == set(urls)


def test_heldout_computes_where_it_is_told(
    models: Path, urls: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    monkeypatch.setattr(
        heldout, "compare", lambda recipe, adapter, **more: seen.append(more) or heldout.Comparison(1, 1, 1, 0, 0)
    )
    words = ["heldout", "nowhere", "--config", "debug/ip_adapter", "--samples", "3"]
    assert cli.main([*words, "--device", "cpu"]) == 0
    assert seen == [{"samples": 3, "device": "cpu"}]
    assert cli.main([*words, "--device", "cuda:99"]) == 2
    assert "there is no device cuda:99" in capsys.readouterr().err
