"""Recipes: what ships is whole, says what its method published, and refuses what it does not know."""

from pathlib import Path

import pytest

from refloom.ingest.sampledata import albums
from refloom.schemas.errors import Refused
from refloom.schemas.manifest import differing, flatten
from refloom.training.recipes import book
from refloom.training.recipes.recipe import Batch, Data, Source
from refloom.training.tinymodels.newtokenizers import clip_token_ids, clip_tokenizer
from refloom.training.views.base import Base
from refloom.training.views.captions import Dropout
from refloom.training.views.cutouts import Cutout
from refloom.training.views.easyref import EasyRef
from refloom.training.views.ezigen import EZIGen
from refloom.training.views.ip_adapter import IPAdapter
from refloom.training.views.mip import MIP
from refloom.training.views.ms_diffusion import MSDiffusion
from refloom.training.views.view import View

VIEWS: dict[str, View] = {
    "easyref/1-alignment": EasyRef(stage="alignment"),
    "easyref/2-single": EasyRef(stage="single"),
    "easyref/3-multi": EasyRef(stage="multi"),
    "ezigen": EZIGen(),
    "mip/sdxl": MIP(cutout=Cutout(side_px=224)),
    "mip/sdxl_plus": MIP(cutout=Cutout(side_px=224)),
    "ms_diffusion": MSDiffusion(),
    "ip_adapter": IPAdapter(),
    "base/tiny/clip": Base(),
    "base/tiny/qwen2vl": Base(),
    "base/tiny/sd": Base(),
    "base/tiny/sdxl": Base(),
    "base/toys/clip": Base(twice=True),
    "base/toys/judge": Base(twice=True, flip=0.5, dropout=Dropout(text=0.0, image=0.0, both=0.0)),
    "base/toys/qwen2vl": Base(),
    "base/toys/sd": Base(flip=0.5),
    "base/toys/sdxl": Base(flip=0.5),
    "base/toys/vae": Base(),
}
"""The view of each recipe: the defaults, but for what its method asks."""


def test_every_recipe_has_small_sizes_and_survives_being_written_down(tmp_path: Path) -> None:
    names = book.names()
    real = [name for name in names if not name.startswith(("debug/", "tiny/"))]
    assert set(real) == set(VIEWS)
    for size in ("debug", "tiny"):
        small = [name.removeprefix(f"{size}/") for name in names if name.startswith(f"{size}/")]
        assert small == [name for name in real if not name.startswith("base/")]
        assert all(book.load(f"{size}/{name}").method == book.load(name).method for name in small)
    for name in names:
        one = book.load(name)
        file = tmp_path / "one.yaml"
        file.write_text(book.dump(one), "utf-8")
        assert book.load(str(file)) == one
    for name in real:
        assert book.load(name).view == VIEWS[name]


@pytest.mark.parametrize("name", ["clip", "sd", "sdxl", "vae"])
def test_bases_of_toys_know_the_words_of_their_captions(name: str) -> None:
    said = {word for kind in albums.KINDS for one in albums.names(kind) for word in one.split()}
    said |= {word for place in albums.places() for word in place.split()} | {"a", "an", "two", "and"}
    assert set(book.load(f"base/toys/{name}").adapter.words) == said


def test_words_that_a_short_tokenizer_does_not_know_are_read_in_letters() -> None:
    short, whole = clip_tokenizer(words=("bear", "lake")), clip_tokenizer()
    ids = clip_token_ids(("bear", "lake"))
    assert short.tokenize("bear lake") == whole.tokenize("bear lake") == ["bear</w>", "lake</w>"]
    assert "".join(short.tokenize("dragon")) == "dragon</w>"
    assert len(short.tokenize("dragon")) > 1
    assert sorted(short.get_vocab().values()) == list(range(ids["vocab_size"]))
    assert short("bear").input_ids[0] == ids["bos_token_id"]
    assert short("bear").input_ids[-1] == ids["eos_token_id"] == ids["vocab_size"] - 1
    assert ids["vocab_size"] < 600
    assert clip_token_ids() == {
        "vocab_size": 49408,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    }


PUBLISHED = {
    "easyref/1-alignment": (256, 1e-4, 0.0, 1024),
    "easyref/2-single": (256, 4e-5, 0.0, 1024),
    "easyref/3-multi": (128, 2e-5, 0.0, 1024),
    "mip/sdxl": (32, 1e-4, 0.01, 512),
    "mip/sdxl_plus": (32, 1e-4, 0.01, 512),
    "ms_diffusion": (128, 1e-4, 0.01, 512),
    "ezigen": (8, 1e-4, 0.01, 512),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_hyper_parameters_are_the_published_ones(name: str) -> None:
    one = book.load(name)
    found = (one.batch.samples, one.optimizer.lr, one.optimizer.weight_decay, one.data.side_px)
    assert found == PUBLISHED[name]
    assert one.optimizer.clip == (1.0 if name in ("ms_diffusion", "ezigen") else None)


def test_settings_go_over_files_which_go_over_what_they_are_like(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("like: mip/sdxl_plus\noptimizer: {lr: 3e-5}\ndata: {sources: [{url: here, weight: 2}]}\n")
    one = book.load(str(file), ["optimizer.clip=0.5", "optimizer.lrs.layers=1e-6"])
    assert one.adapter.head == "plus"
    assert one.optimizer.lr == 3e-5
    assert one.optimizer.clip == 0.5
    assert one.optimizer.lrs == {"layers": 1e-6}
    assert one.optimizer.weight_decay == 0.01
    assert one.data.sources == (Source(url="here", weight=2.0),)


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("mip/sdlx", "steps=1", "did you mean mip/sdxl"),
        ("mip/sdxl", "optimiser.lr=1", "unknown setting optimiser; did you mean optimizer"),
        ("mip/sdxl", "optimizer.learning=1", "unknown setting optimizer.learning"),
        ("mip/sdxl", "view.subject=1", "did you mean view.subjects"),
        ("mip/sdxl", "view.cutout.side=1", "did you mean view.cutout.side_px"),
        ("mip/sdxl", "adapter.lora_rank=4", "unknown setting adapter.lora_rank"),
        ("mip/sdxl", "precision=fp8", "precision is one of no, bf16, fp16"),
        ("mip/sdxl", "steps=0", "steps is a whole number from 1, not 0"),
        ("mip/sdxl", "steps=many", "steps is a int, not 'many'"),
        ("mip/sdxl", "method=mop", "method: 'mop'"),
        ("ezigen", "view.dropout.text=2", "view.dropout.text is a number from 0 to 1, not 2.0"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused(name: str, setting: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        book.load(name, [setting])


def test_a_recipe_that_is_like_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "round.yaml"
    file.write_text(f"like: {file}\n")
    with pytest.raises(Refused, match="is like itself"):
        book.load(str(file))


@pytest.mark.parametrize(
    ("samples", "micro", "world", "passes"),
    [(32, 4, 8, 1), (32, 4, 1, 8), (256, 4, 32, 2), (32, 3, 1, None), (32, 4, 3, None), (4, 4, 8, None)],
)
def test_a_batch_is_shared_evenly_or_refused(samples: int, micro: int, world: int, passes: int | None) -> None:
    batch = Batch(samples=samples, micro=micro)
    if passes is None:
        with pytest.raises(Refused, match="set batch"):
            batch.accumulation(world)
    else:
        assert batch.accumulation(world) == passes


def test_targets_of_many_aspects_have_the_same_area() -> None:
    assert Data(side_px=512).buckets == ((512, 512),)
    sizes = Data(side_px=1024, aspects=True).buckets
    assert (1024, 1024) in sizes
    assert all(0.9 * 1024**2 < height * width <= 1024**2 for height, width in sizes)


def test_kinds_are_of_all_sources_that_do_not_say_their_own() -> None:
    given = ["data.sources=[{url: a}, {url: b, kinds: [video, group]}]", "data.kinds=[image, cross]"]
    recipe = book.load("mip/sdxl", given)
    assert [source.kinds for source in recipe.data.sources] == [("image", "cross"), ("video", "group")]
    assert [source.kinds for source in recipe.held_out().data.sources] == [("image", "cross"), ("video", "group")]
    assert [source.kinds for source in book.load("mip/sdxl", given[:1]).data.sources] == [None, ("video", "group")]
    with pytest.raises(Refused, match=r"data\.kinds\[0\] is one of image, video, group, cross, not 'crosses'"):
        book.load("mip/sdxl", ["data.kinds=[crosses]"])
    with pytest.raises(Refused, match="kinds are some of image, video, group, cross, not none"):
        book.load("mip/sdxl", [*given[:1], "data.kinds=[]"])
    assert Source(url="a", kinds=("cross",)).kinds == ("cross",)


def test_settings_of_december_are_null_so_that_older_runs_and_features_go_on() -> None:
    """What a run or its features were made with lacks them, and what is absent equals null (`schemas.manifest`)."""
    new = {"captions", "cut_from", "bounds.min_pose_change"}
    for name in VIEWS:
        settings = flatten(book.load(name).view.settings())
        assert all(settings[key] is None for key in new & settings.keys())
        assert bool(new & settings.keys()) == (not name.startswith("base/"))
        assert differing({key: value for key, value in settings.items() if key not in new}, settings) == []
