"""It learns: an adapter trained for a minute predicts held-out pictures better with its own references than others'.

Bases and adapters are trained on sample data of some seeds, and looked at on that of others, in which every toy is
one that training has not seen; the few real cut-outs are in all. Captions never say what tells two toys of a kind
apart, so only references can.
"""

from collections.abc import Iterator

import pytest
import torch
from learning import Lesson, School
from traindata import sources

from refloom.inference.loading import load_base
from refloom.training.recipes import book
from refloom.training.recipes.recipe import Objective
from refloom.training.run.latents import text_of
from refloom.training.run.objective import Diffusion
from refloom.training.run.step import pixels_of, text_conditions
from refloom.training.watch.heldout import held_out

pytestmark = [pytest.mark.learning, pytest.mark.timeout(1800)]  # each test waits for what it needs

CLIP = {"base": "sdxl", "image_encoder": "clip"}
LESSONS = {
    "ip_adapter": Lesson(CLIP),
    "ms_diffusion": Lesson(CLIP),
    "mip/sdxl": Lesson(CLIP, start="ip_adapter"),
    "mip/sdxl_plus": Lesson(CLIP),
    "easyref/1-alignment": Lesson({"base": "sdxl", "language_model": "qwen2vl"}),
    "easyref/2-single": Lesson({"base": "sdxl"}, start="easyref/1-alignment"),
    "easyref/3-multi": Lesson({"base": "sdxl"}, start="easyref/2-single"),
    "ezigen": Lesson({"base": "sd"}),
}
"""Every recipe, and what it starts from."""

MARGINS = {
    "ip_adapter": 0.015,
    "ms_diffusion": 0.0015,
    "mip/sdxl": 0.004,
    "mip/sdxl_plus": 0.004,
    "easyref/1-alignment": 0.02,
    "easyref/2-single": 0.015,
    "easyref/3-multi": 0.004,
    "ezigen": 0.002,
}
"""The least that references must be worth, a share of the loss: a sixth to three quarters of docs/bases.md."""

STANDARD_ERRORS = 2


@pytest.fixture(scope="module")
def school(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    chosen = [getattr(item, "callspec", None) for item in request.session.items]
    asked = [one.params["lesson"] for one in chosen if one is not None and "lesson" in one.params]
    school = School(tmp_path_factory.mktemp("school"), LESSONS, asked)
    yield school
    school.close()


def test_a_base_shows_what_it_is_given_and_finds_noise(school: School) -> None:
    """Held-out pictures come through the VAE, and the UNet finds most of what is to be found in noisy ones."""
    pipe, unseen = load_base(school.base("sdxl").result()), [one.result() for one in school.unseen]
    examples = held_out(book.load("base/tiny/sdxl", [sources(*unseen)]), 24)
    pixels, noise = pixels_of(examples), torch.Generator().manual_seed(0)
    with torch.no_grad():
        latents = pipe.vae.encode(pixels).latent_dist.mean
        again = pipe.vae.decode(latents).sample
        plain = pixels.mean(dim=(2, 3), keepdim=True)
        assert float((again - pixels).abs().mean()) < 0.8 * float((plain - pixels).abs().mean())
        assert latents.std().item() == pytest.approx(1, abs=0.3)
        diffusion, when = Diffusion(pipe.scheduler, Objective()), torch.full((len(latents),), 500)
        noises = torch.randn(latents.shape, generator=noise)
        states, added = text_conditions(pipe, examples, lambda pipe, texts, _: text_of(pipe, texts))
        noisy = diffusion.noisy(latents, noises, when)
        found = pipe.unet(noisy, when, encoder_hidden_states=states, added_cond_kwargs=added).sample
        nothing = diffusion.losses(torch.zeros_like(found), latents, noises, when).mean()
        assert float(diffusion.losses(found, latents, noises, when).mean()) < 0.5 * float(nothing)


@pytest.mark.parametrize("lesson", LESSONS)
def test_own_references_are_worth_more_than_others(lesson: str, school: School) -> None:
    found = school.compared(lesson).result()
    print(lesson, found, f"margin {found.margin:.4f}, {found.difference / found.error:.1f} standard errors")
    assert found.samples >= 60
    assert found.margin > MARGINS[lesson], found
    assert found.difference > STANDARD_ERRORS * found.error, found
