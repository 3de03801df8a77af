"""Each file of `examples/` is run, on small input."""

import runpy
from pathlib import Path
from typing import Any

import datasets
import pytest
from curating import LOOSE
from drawing import gradient
from loading import write_samples
from PIL import Image
from places import ROOT
from traindata import video

from refloom.schemas.settings import to_dict

EXAMPLES = ROOT / "examples"


def names_of(file: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / file))


def test_every_example_is_run_and_is_in_the_map_of_the_docs():
    files = sorted(file.name for file in EXAMPLES.iterdir() if file.suffix == ".py")
    text = Path(__file__).read_text("utf-8")
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert files == ["own_training_loop.py", "photographs_to_dataset.py", "stock_pipeline.py"]
    assert all(f'names_of("{name}")' in text and f"../examples/{name}" in index for name in files)


def test_photographs_become_a_published_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "photographs" / "holiday").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(gradient(120, 90, number)).save(tmp_path / "photographs" / "holiday" / f"{number}.jpg")
    loose = {key: value for key, value in to_dict(LOOSE).items() if key in ("models", "dedup", "select")}
    build = names_of("photographs_to_dataset.py")["build"]
    published = build(tmp_path / "photographs", tmp_path / "out", loose, workers=0, show=False)
    assert "report.html" in capsys.readouterr().out
    rows = datasets.load_dataset(str(published), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) >= 1
    assert build(tmp_path / "photographs", tmp_path / "out", loose, workers=0, show=False) == published


def test_samples_go_into_ones_own_loop(tmp_path: Path):
    url = write_samples(tmp_path / "data", 1, 8, video)
    losses = names_of("own_training_loop.py")["train"](Path(url), steps=3, batch=4, threads=0)
    assert len(losses) == 3
    assert all(0 < loss < 10 for loss in losses)


def test_references_go_into_a_stock_pipeline(tmp_path: Path):
    Image.fromarray(gradient(80, 60, 3)).save(tmp_path / "cat.jpg")
    names = names_of("stock_pipeline.py")
    pipe, adapter = names["tiny"]()
    before = pipe.unet.attn_processors
    given = names["make"](tmp_path / "out.png", tmp_path / "cat.jpg", "a cat", pipe, adapter, steps=2)
    assert given is pipe
    assert {name: type(one) for name, one in pipe.unet.attn_processors.items()} == {
        name: type(one) for name, one in before.items()
    }
    assert Image.open(tmp_path / "out.png").size == (64, 64)
