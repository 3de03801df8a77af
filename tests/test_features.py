"""Features: training with them agrees with training without, they are made once, and others than a run's are refused."""

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from traindata import recipe, settings, write_models, write_videos

import refloom
from inference.adapters.vision import ClipVision
from ingest.engine import Pool
from schemas.errors import Refused, Rejected
from schemas.storage import Folder
from training import journal
from training.data.loader import Loader
from training.data.sample import Sample
from training.features import cache as features
from training.features.cache import Options
from training.features.store import Store, unit_of
from training.features.tables import narrowed, pack, unpack
from training.frozen import ENCODERS, load_frozen
from training.loop import train
from training.methods.known import METHODS
from training.objective import Diffusion
from training.preflight import features as known_features
from training.recipes.recipe import Recipe
from training.step import TrainingStep

HERE = Pool(workers=0)
VARIANTS = 3
DROPS = "{text: 0.2, image: 0.3, both: 0.1}"
DRAWS = {
    "mip/sdxl_plus": (f"view.dropout={DROPS}",),
    "ip_adapter": ("view.random_crop=true", f"view.dropout={DROPS}", "adapter.head=plain", "adapter.image_width=20"),
    "ms_diffusion": ("view.random_crop=true", "view.flip=0.5", f"view.dropout={DROPS[:-1]}, grounding: 0.3}}"),
    "ezigen": (f"view.dropout={DROPS}",),
    "easyref/3-multi": ("data.aspects=false", "view.random_crop=true"),
}
"""Of each recipe that keeps something else, what makes its variants differ and drops conditions."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_videos(tmp_path_factory.mktemp("data") / "samples", units=2, rows=3)


def one(name: str, models: Path, url: str, *more: str, kept: Path | str | None = None) -> Recipe:
    source = f"data.sources=[{{url: '{url}'" + (f", features: '{kept}'}}]" if kept else "}]")
    return recipe(name, models, url, source, *more)


def losses(asked: Recipe, steps: int = 3) -> np.ndarray:
    """Of the first steps, with nothing learned, as the loop computes them."""
    stores = known_features(asked)
    with Loader(asked.data.sources, asked.view, asked.loading, stores=stores) as loader:
        pipe, vision = load_frozen(asked, torch.device("cpu"), without=ENCODERS if stores else ())
        method = METHODS[asked.method]
        adapter = method.make(asked, pipe)
        adapter.image_encoder = vision
        step = TrainingStep(method, adapter, Diffusion(pipe.scheduler, asked.objective), asked.seed)
        found = []
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=asked.precision == "bf16"):
            for _ in range(steps):
                with ExitStack() as conditioned:
                    found.append(float(step(next(loader).examples, conditioned)))
        adapter.detach()
    return np.array(found)


@pytest.mark.parametrize("name", DRAWS)
def test_losses_with_features_are_those_without_but_for_the_noise_of_bf16(
    name: str, models: Path, url: str, tmp_path: Path
) -> None:
    """That noise is measured: it is what bf16 changes in the same steps of the same examples."""
    plain, kept = {}, {}
    for precision in ("no", "bf16"):
        more = (*DRAWS[name], f"precision='{precision}'")
        place = tmp_path / precision
        features.cache(one(name, models, url, *more), url, str(place), Options(variants=VARIANTS), HERE)
        plain[precision] = losses(one(name, models, url, *more, f"data.variants={VARIANTS}"))
        kept[precision] = losses(one(name, models, url, *more, kept=place))
    noise = np.abs(plain["bf16"] - plain["no"]).max()
    other = losses(one(name, models, url, *DRAWS[name], "precision='no'"))
    print(name, "noise", noise, {key: np.abs(kept[key] - plain[key]).max() for key in kept}, np.abs(other - plain["no"]))
    assert np.abs(kept["no"] - plain["no"]).max() <= noise
    assert np.abs(kept["bf16"] - plain["bf16"]).max() <= noise
    assert np.abs(other - plain["no"]).max() > 2 * noise  # other crops are not within the noise
