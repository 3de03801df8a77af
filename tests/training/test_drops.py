"""A dropped condition in a micro-batch is, row by row, what inference has where that condition is not given."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tinypipes as tiny
import torch
from torch import Tensor
from traindata import recipe

from refloom.inference.adapters.calls import GUIDED, UNGUIDED
from refloom.inference.adapters.easyref.adapter import BLACK_SIDE
from refloom.inference.adapters.reference import Reference
from refloom.training.data.loader import Loader
from refloom.training.methods.known import METHODS
from refloom.training.run import frozen
from refloom.training.run.latents import captions_of, text_of
from refloom.training.run.step import text_conditions
from refloom.training.views.example import Drops, Example

NAMES = ("ip_adapter", "mip/sdxl", "mip/sdxl_plus", "ms_diffusion", "easyref/2-single", "ezigen")
DROPS = {
    "nothing": Drops(),
    "text": Drops(text=True),
    "image": Drops(image=True),
    "both": Drops(text=True, image=True),
    "grounding": Drops(grounding=True),
}


class Bench:
    """A method on its tiny base, and a micro-batch with one example of every drop."""

    def __init__(self, name: str, models: Path, url: str) -> None:
        one = recipe(name, models, url)
        self.pipe, vision = frozen.load_frozen(one, torch.device("cpu"))
        self.method = METHODS[one.method]
        self.adapter: Any = tiny.randomise(self.method.make(one, self.pipe), 3)
        self.adapter.image_encoder = vision
        with Loader(one.data.sources, one.view, one.loading) as loader:
            batches = list(islice(loader, 2))
        found = [example for batch in batches for example in batch.examples][: len(DROPS)]
        found = [replace(example, caption=f"number {at}: {example.caption}") for at, example in enumerate(found)]
        self.plain = [replace(example, drops=Drops()) for example in found]
        self.mixed = [replace(example, drops=drops) for example, drops in zip(found, DROPS.values(), strict=True)]
        shape = (4, found[0].target.shape[0] // 2, found[0].target.shape[1] // 2)
        self.latents = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def predicted(self, conditions: Any, halves: Any, texts: Sequence[str], examples: Sequence[Example]) -> Tensor:
        """The UNet's answer, one row a text; all rows have the same noise."""
        states, pooled = text_of(self.pipe, list(texts))
        added = None
        if pooled is not None:
            ids = torch.tensor([example.sizes.time_ids() for example in examples], dtype=pooled.dtype)
            added = {"text_embeds": pooled, "time_ids": ids}
        with self.adapter.generation(conditions, halves=halves):
            latents = self.latents.expand(len(texts), -1, -1, -1)
            return self.pipe.unet(latents, 500, states, added_cond_kwargs=added, return_dict=False)[0]

    @torch.no_grad()
    def trained(self, examples: Sequence[Example]) -> Tensor:
        """What a training step predicts."""
        states, added = text_conditions(self.pipe, examples, captions_of)
        with self.adapter.generation(self.method.conditions(self.adapter, examples, 0), halves=UNGUIDED):
            latents = self.latents.expand(len(examples), -1, -1, -1)
            return self.pipe.unet(latents, 500, states, added_cond_kwargs=added, return_dict=False)[0]

    def inferred(self, example: Example, drop: str) -> Tensor:
        """What inference predicts without that condition: in its unconditional half, where the method has one."""
        adapter, references = self.adapter, list(example.references)
        text = "" if DROPS[drop].text else example.caption
        both = (example, example)
        if self.method.kind in ("ip_adapter", "mip"):
            halves = self.predicted(adapter.encode(references), GUIDED, (text, text), both)
            return halves[0] if DROPS[drop].image else halves[1]
        if self.method.kind == "easyref":
            if drop == "both":
                given = adapter.encode(references, prompt=example.caption)
                return self.predicted(given, GUIDED, (text, example.caption), both)[0]
            black = np.zeros((BLACK_SIDE, BLACK_SIDE, 3), np.uint8)
            shown = [Reference(black)] if DROPS[drop].image else references
            return self.predicted(adapter.encode(shown, prompt=text), UNGUIDED, (text,), (example,))[0]
        if self.method.kind == "ms_diffusion":
            options = {"drop_images": DROPS[drop].image, "drop_grounding_tokens": DROPS[drop].grounding}
            return self.predicted(adapter.encode(references, **options), UNGUIDED, (text,), (example,))[0]
        given = adapter.encode(references)
        if DROPS[drop].image:
            given = adapter.without_subjects(given, torch.tensor([True]))
        return self.predicted(given, UNGUIDED, (text,), (example,))[0]


@pytest.fixture(scope="module", params=NAMES)
def bench(request: pytest.FixtureRequest, models: Path, url: str) -> Bench:
    return Bench(request.param, models, url)


def test_each_row_is_what_inference_has_without_what_it_lacks(bench: Bench) -> None:
    rows = bench.trained(bench.mixed)
    for row, example, drop in zip(rows, bench.mixed, DROPS, strict=True):
        if bench.method.kind == "ezigen" and not example.drops.image:
            continue  # subjects' latents are drawn anew by training: the next test has these rows
        wanted = bench.inferred(example, drop)
        assert torch.allclose(row, wanted, rtol=1e-4, atol=1e-5), (drop, float((row - wanted).abs().max()))


def test_the_other_rows_are_untouched(bench: Bench) -> None:
    plain, mixed = bench.trained(bench.plain), bench.trained(bench.mixed)
    for at, drop in enumerate(DROPS):
        reads = drop != "grounding" or bench.method.kind == "ms_diffusion"
        same = torch.allclose(plain[at], mixed[at], rtol=1e-4, atol=1e-5)
        assert same == (drop == "nothing" or not reads), drop


def test_what_is_dropped_cannot_be_seen(bench: Bench) -> None:
    other = [tiny.picture(seed, 40, 40) for seed in range(20, 30)]
    hidden = []
    for example in bench.mixed:
        caption = "another text" if example.drops.text else example.caption
        references = example.references
        if example.drops.image:
            references = tuple(
                Reference([other[at] for _ in one.images], one.phrase, one.boxes) for at, one in enumerate(references)
            )
        hidden.append(replace(example, caption=caption, references=references))
    torch.testing.assert_close(bench.trained(bench.mixed), bench.trained(hidden), rtol=1e-5, atol=1e-6)


def test_a_dropped_text_is_the_empty_negative_prompt_of_the_stock_pipeline(bench: Bench) -> None:
    found = bench.pipe.encode_prompt(
        prompt="x", negative_prompt="", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    states, pooled = text_of(bench.pipe, [""])
    assert torch.equal(states, found[1])
    assert pooled is None or torch.equal(pooled, found[3])
