"""Features: training with them agrees with training without, they are made once, others than a run's are refused."""

import io
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from loading import write_samples
from traindata import cross, recipe, settings, sources, write_videos

from refloom import cli
from refloom.inference.adapters.vision import ClipVision
from refloom.ingest.engine.pool import Pool
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.storage import Folder
from refloom.training.data.index import Index
from refloom.training.data.loader import Loader
from refloom.training.data.sample import Sample
from refloom.training.features import cache as features
from refloom.training.features.cache import Options
from refloom.training.features.store import Store, unit_of
from refloom.training.features.tables import narrowed, pack, unpack
from refloom.training.methods.known import METHODS
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import log as run_log
from refloom.training.run.frozen import ENCODERS, load_frozen
from refloom.training.run.loop import train
from refloom.training.run.objective import Diffusion
from refloom.training.run.preflight import features as known_features
from refloom.training.run.step import TrainingStep

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
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_videos(tmp_path_factory.mktemp("data") / "samples", units=2, rows=3)


def one(name: str, models: Path, url: str, *more: str, kept: Path | str | None = None) -> Recipe:
    return recipe(name, models, url, sources(url, features=kept), *more)


def losses(asked: Recipe, steps: int = 8) -> np.ndarray:
    """Of the first steps, with nothing learned, as the loop computes them."""
    stores = known_features(asked)
    with Loader(asked.data.sources, asked.view, asked.loading, stores=stores) as loader:
        pipe, vision = load_frozen(asked, torch.device("cpu"), without=ENCODERS if stores else ())
        method = METHODS[asked.method]
        adapter = method.make(asked, pipe)
        adapter.image_encoder = vision
        step = TrainingStep(method.conditions, adapter, Diffusion(pipe.scheduler, asked.objective), asked.seed)
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
    noise = rms(plain["bf16"] - plain["no"])
    others = losses(one(name, models, url, *DRAWS[name], "precision='no'"))
    assert rms(kept["no"] - plain["no"]) <= noise / 8  # fp16, in which they are stored, has three bits more than bf16
    assert rms(kept["bf16"] - plain["bf16"]) <= 3 * noise  # both have noise of their own, from batches of other sizes
    assert rms(others - plain["no"]) > noise  # other crops and captions are eight times as far as fp32 may be


def test_features_of_cross_samples_are_of_the_said_target_and_its_references(models: Path, tmp_path: Path) -> None:
    url = write_samples(tmp_path / "samples", 1, 4, cross)
    more, place = ("data.kinds=[cross]", "view.captions=any", "batch.samples=2", "precision='no'"), tmp_path / "kept"
    _, counts = features.cache(
        one("mip/sdxl_plus", models, url, *more), url, str(place), Options(variants=VARIANTS), HERE
    )
    assert (counts.kept, counts.rejected.total(), counts.failed.total()) == (4, 0, 0)
    plain = losses(one("mip/sdxl_plus", models, url, *more, f"data.variants={VARIANTS}"), 4)
    kept = losses(one("mip/sdxl_plus", models, url, *more, kept=place), 4)
    others = losses(one("mip/sdxl_plus", models, url, *more), 4)
    assert rms(kept - plain) < rms(others - plain) / 8


def rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


@pytest.fixture(scope="module")
def kept(models: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Features for mip/sdxl by the command."""
    out = str(tmp_path_factory.mktemp("kept") / "features")
    assert cli.main(["cache", *_arguments(models, url, out), "--workers", "0"]) == 0
    return out


def _arguments(models: Path, url: str, out: str, name: str = "mip/sdxl") -> list[str]:
    told = [part for setting in settings(name, models, url) for part in ("--set", setting)]
    return [url, "--recipe", f"debug/{name}", "--out", out, "--variants", "2", "--device", "cpu", *told]


def files(place: str) -> dict[str, bytes]:
    root = Path(place)
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in root.rglob("*")
        if file.is_file() and "runs" not in file.parts
    }


def test_a_run_with_features_loads_no_encoder_and_decodes_nothing(
    models: Path, url: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sample, "pixels", lambda *_: pytest.fail("a picture was decoded"))
    monkeypatch.setattr(ClipVision, "__init__", lambda *_: pytest.fail("an image encoder was loaded"))
    more = ("steps=2", "log_every=1", "optimizer.lr=1e-3", "checkpoints.every=1")
    train(one("mip/sdxl", models, url, *more, kept=kept), tmp_path / "run")
    assert [line["step"] for line in run_log.read(tmp_path / "run")] == [1, 2]
    train(one("mip/sdxl", models, url, *more, "steps=3", kept=kept), tmp_path / "run", resume="latest")
    assert len(run_log.read(tmp_path / "run")) == 3


@pytest.mark.processes
def test_features_are_the_same_bytes_for_any_workers(
    models: Path, url: str, kept: str, tmp_path: Path, ray_session: None
) -> None:
    again = str(tmp_path / "again")
    assert cli.main(["cache", *_arguments(models, url, again), "--workers", "2"]) == 0
    assert files(again) == files(kept)


def test_features_are_made_once(
    models: Path, url: str, kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = str(_copy(kept, tmp_path / "again"))
    # a unit that is lost is made again, the other is not touched
    lost = sorted(Path(again, "manifests/features").iterdir())[0]
    lost.unlink()
    assert cli.main(["cache", *_arguments(models, url, again), "--workers", "0", "--dry-run"]) == 0
    assert "1 units to make, of 3 samples, 1 are there" in capsys.readouterr().out
    times = {path: Path(again, path).stat().st_mtime_ns for path in files(again)}
    assert cli.main(["cache", *_arguments(models, url, again), "--workers", "0"]) == 0
    assert "6 samples in, 6 kept, 0 rejected, 0 failed" in capsys.readouterr().out
    assert files(again) == files(kept)
    touched = {path for path, time in times.items() if Path(again, path).stat().st_mtime_ns != time}
    assert {path for path in touched if path.startswith("tensors")} == {
        path for path in times if path.startswith("tensors") and lost.stem in path
    }


def test_features_that_were_cut_off_or_lack_a_unit_are_refused(
    models: Path, url: str, kept: str, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=r"there are no features in .*nowhere: make them with `refloom cache"):
        Store(str(tmp_path / "nowhere"))
    half = _copy(kept, tmp_path / "half")
    (half / "features.json").unlink()
    with pytest.raises(Refused, match="not finished: run the `refloom cache` that began them again"):
        known_features(one("mip/sdxl", models, url, kept=half))
    lacking = _copy(kept, tmp_path / "lacking")
    for file in (lacking / "tensors").iterdir():
        file.unlink()
    with pytest.raises(Refused, match=r"cannot be read .*remove manifests/features/.* and run `refloom cache` again"):
        losses(one("mip/sdxl", models, url, kept=lacking), steps=1)


OTHERS = {
    "view.cutout.flip=0.25": r"transform.cutout.flip: 0.5 -> 0.25\): run .*--replace",
    "data.side_px=32": r"transform.buckets: \[\[64, 64\]\] -> \[\[32, 32\]\]",
    "precision=bf16": "precision: 'no' -> 'bf16'",
    "data.variants=3": r"variants: 2 -> 3\): run .*--variants 3 --replace",
}


@pytest.mark.parametrize("setting", OTHERS)
def test_features_of_another_recipe_are_refused(setting: str, models: Path, url: str, kept: str) -> None:
    with pytest.raises(Refused, match=OTHERS[setting]):
        known_features(one("mip/sdxl", models, url, setting, kept=kept))


def test_features_of_other_weights_or_other_samples_are_refused(
    models: Path, url: str, kept: str, tmp_path: Path
) -> None:
    for setting in ("seed=5", "view.dropout.text=0.5", "optimizer.lr=1", "data.variants=1"):  # these share features
        assert known_features(one("mip/sdxl", models, url, setting, kept=kept))
    other = _copy(str(models / "clip"), tmp_path / "clip")
    weights = other / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(Refused, match=r"models.image_encoder: '\w+' -> '\w+'"):
        known_features(one("mip/sdxl", models, url, f"models.image_encoder={other}", kept=kept))
    more = write_videos(tmp_path / "more", units=2, rows=4)
    with pytest.raises(Refused, match=r"samples of .*more, split train, are others.*run `refloom cache .*more --out"):
        known_features(one("mip/sdxl", models, more, kept=kept))


def test_a_damaged_tensor_costs_its_row(models: Path, url: str, kept: str, tmp_path: Path) -> None:
    damaged = _copy(kept, tmp_path / "damaged")
    file = next(iter(sorted((damaged / "tensors").iterdir())))
    table = pq.read_table(file)
    keys = table.column("key").to_pylist()
    latents = [at for at, key in enumerate(keys) if key.startswith("latents/")]
    data = bytearray(file.read_bytes())
    first = table.column("data")[latents[0]].as_py()
    place = bytes(data).index(first)
    data[place] ^= 1
    file.write_bytes(data)
    asked = one("mip/sdxl", models, url, kept=damaged)
    stores = known_features(asked)
    with Loader(asked.data.sources, asked.view, asked.loading, stores=stores) as loader:
        batches = [next(loader) for _ in range(8)]
        assert loader.replaced
        assert all("are damaged" in one.reason for one in loader.replaced)
        lost = {one.sample_id for one in loader.replaced}
        assert len(lost) == 1
        assert all(len(batch.examples) == asked.batch.samples for batch in batches)


def test_a_sample_that_cannot_be_made_is_on_record_and_replaced(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = Sample.pixels

    def sometimes(self: Sample, picture: int) -> np.ndarray:
        if self.row["sample_id"] == "video/test-1/0":
            raise Rejected("decode_error", "of this test")
        return pixels(self, picture)

    monkeypatch.setattr(Sample, "pixels", sometimes)
    url, place = write_videos(tmp_path / "samples", units=1, rows=3), f"memory://{tmp_path}/features"  # no local disk
    assert cli.main(["cache", *_arguments(models, url, place), "--workers", "0"]) == 0
    assert "3 samples in, 2 kept, 1 rejected, 0 failed; decode_error 1" in capsys.readouterr().out
    (name,) = Folder(place).names("ledger/features")
    ledger = pq.read_table(io.BytesIO(Folder(place).read(f"ledger/features/{name}"))).to_pylist()
    assert [(row["item_id"], row["reason"], row["detail"]) for row in ledger] == [
        ("video/test-1/0", "decode_error", "of this test")
    ]
    asked = one("mip/sdxl", models, url, kept=place)
    with Loader(asked.data.sources, asked.view, asked.loading, stores=known_features(asked)) as loader:
        shown = [example.sample_id for _ in range(4) for example in next(loader).examples]
        assert {one.sample_id for one in loader.replaced} == {"video/test-1/0"}
    assert set(shown) == {"video/test-0/0", "video/test-2/0"}


def test_tensors_keep_their_bits_and_fp32_its_size() -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 1000) * torch.logspace(-4, 4, 1000)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(unpack(pack("a", values.to(dtype))), values.to(dtype))
    found = unpack(pack("a", values))
    assert found.dtype == torch.float16
    assert bool(((found.float() - values).abs() <= values.abs() * 2**-11 + 2**-25).all())
    assert torch.equal(unpack(pack("a", values * 1e4)), values * 1e4)  # fp16 does not reach so far
    assert narrowed(torch.tensor(1.0)).shape == ()
    row = pack("a", values)
    with pytest.raises(Rejected, match="'a' are damaged"):
        unpack(row | {"data": row["data"][:-1] + bytes([row["data"][-1] ^ 1])})


def test_units_have_names_that_differ(url: str) -> None:
    names = [unit_of(key) for key in Index(url).groups]
    assert len(set(names)) == len(names) == 2


def _copy(source: str, target: Path) -> Path:
    shutil.copytree(source, target)
    return target
