"""The judge of toys: it reads what captions say, learns from pictures, and is saved and read without pickle."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import HERE, ingest
from traindata import sources

from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.demo.bases import CURATION
from refloom.inference.evaluation.judges import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Judge,
    JudgeConfig,
    Judged,
    agreement,
    judged,
    load_judge,
)
from refloom.ingest import sampledata
from refloom.ingest.sampledata import albums
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas import settings
from refloom.schemas.errors import Refused
from refloom.training.data.loader import Loader
from refloom.training.methods.known import TASKS
from refloom.training.recipes import book
from refloom.training.run import checkpoint
from refloom.training.run.loop import train
from refloom.training.tinymodels.judge import asked

SMALL = ("batch.samples=8", "batch.micro=8", "adapter.widths=[8, 16]", "adapter.look=16", "log_every=1")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of scenes."""
    root = tmp_path_factory.mktemp("judge")
    sampledata.write(str(root / "data"), images=0, videos=0, seed=0, scenes=48)
    tree = root / "data" / "scenes" / "train"
    ingest(
        YouTubeVis(frames=str(tree / "JPEGImages"), annotations=str(tree / "instances_train.json")), root / "dataset"
    )
    values: dict[str, object] = {}
    settings.apply(values, list(CURATION))
    curate(str(root / "dataset"), settings.build(Curation, values), HERE)
    return str(root / "dataset")


def config() -> JudgeConfig:
    return JudgeConfig(kinds=albums.KINDS, places=albums.places(), widths=(8, 16), look=16)


def test_captions_become_numbers_of_kinds_and_a_place() -> None:
    place = albums.places()[3]
    kinds, places = asked([albums.caption(["cup", "cup"], place), albums.caption(["bear", "duck"], place)], config())
    counted = [{albums.KINDS[at]: int(row[at]) for at in row.nonzero()[:, 0]} for row in kinds]
    assert counted == [{"cup": 2}, {"bear": 1, "duck": 1}]
    assert places.tolist() == [3, 3]
    with pytest.raises(Refused, match="is of no album"):
        asked(["a cat on a sofa"], config())


def test_agreement_asks_for_every_kind_and_its_number() -> None:
    kinds = torch.tensor([[1, 0], [2, 0], [1, 1]])
    scores = torch.nn.functional.one_hot(torch.tensor([[1, 0], [1, 0], [1, 1]]), 3).float()
    found = Judged(scores, torch.eye(3)[[0, 1, 1]], torch.zeros(3, 4))
    assert agreement(found, kinds, torch.tensor([0, 1, 2])).tolist() == [[True, True], [False, True], [True, False]]


def test_looks_are_directions_and_pictures_of_any_size_are_read() -> None:
    judge = Judge(config())
    rng = np.random.default_rng(0)
    shown = [rng.integers(0, 255, (side, side, 3), np.uint8) for side in (64, 40, 130)]
    found = judged(judge, shown)
    assert found.kinds.shape == (3, 13, 3)
    assert found.places.shape == (3, 8)
    torch.testing.assert_close(found.looks.norm(dim=1), torch.ones(3))


def test_it_is_read_as_it_was_saved_and_damage_is_refused(tmp_path: Path) -> None:
    judge = Judge(config())
    judge.save_pretrained(tmp_path / "one")
    again = load_judge(tmp_path / "one")
    assert again.config == judge.config
    assert all(torch.equal(one, other) for one, other in zip(judge.parameters(), again.parameters(), strict=True))
    (tmp_path / "one" / CONFIG_FILE).write_text("{", "utf-8")
    with pytest.raises(Refused, match="no judge"):
        load_judge(tmp_path / "one")
    judge.save_pretrained(tmp_path / "two")
    (tmp_path / "two" / WEIGHTS_FILE).write_bytes(b"short")
    with pytest.raises(Refused, match=r"no judge|cannot be read|damaged"):
        load_judge(tmp_path / "two")
    with pytest.raises(Refused, match="no judge"):
        load_judge(tmp_path / "nowhere")


def test_the_loop_trains_it_and_goes_on_to_the_same_bits(url: str, tmp_path: Path) -> None:
    one = book.load(
        "base/toys/judge", [sources(url), *SMALL, "steps=2", "checkpoints.every=1", "checkpoints.keep_last=9"]
    )
    whole = train(one, tmp_path / "run")
    first, last = (saved.path for saved in checkpoint.complete(tmp_path / "run"))
    before, after = (load_judge(place / checkpoint.ADAPTER).state_dict() for place in (first, last))
    assert not any(torch.equal(before[name], after[name]) for name in after)
    train(one, tmp_path / "run", resume=str(first))
    assert all(torch.equal(tensor, after[name]) for name, tensor in load_judge(whole).state_dict().items())


def test_it_learns_from_a_few_pictures(url: str) -> None:
    one = book.load("base/toys/judge", [sources(url), *SMALL])
    task = TASKS[one.method]
    with Loader(one.data.sources, one.view, one.loading) as loader:
        examples = next(loader).examples
    with task.ready(one, torch.device("cpu")) as judge:
        step, found = task.step(judge, one), []
        optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-2)
        for _ in range(45):
            optimizer.zero_grad()
            loss = step(examples, ExitStack())
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        assert found[-1] < 0.3 * found[0], found
        kinds, places = asked([example.caption for example in examples], judge.config)
        right = agreement(judged(judge, [example.target for example in examples]), kinds, places)
    assert float(right.float().mean()) > 0.7


def test_a_judge_that_compares_nothing_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"view\.twice=true"):
        train(book.load("base/toys/judge", [sources(url), *SMALL, "view.twice=false"]), tmp_path / "run")
