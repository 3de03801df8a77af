"""Every field of every recipe has a range, and a value outside it is refused with its dotted name."""

import dataclasses
import json
import math
import types
from typing import Annotated, Union, get_args, get_origin, get_type_hints

import pytest

from refloom.schemas import ranges, settings
from refloom.schemas.errors import Refused
from refloom.training.methods.known import METHODS
from refloom.training.recipes import book
from refloom.training.recipes.kinds import KINDS
from refloom.training.run.objective import Diffusion
from refloom.training.watch.heldout import compare

FREE = {"method", "models.base", "tuned", "trackers", "data.sources.kinds"}
"""Names and lists that are looked up elsewhere, before models are read."""


def leaves(kind, path=""):
    """Dotted place and type of every value of a dataclass, those in lists of dataclasses too."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        yield from _leaves(hints[field.name], f"{path}{field.name}")


def _leaves(hint, path):
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        yield from leaves(hint, f"{path}.")
    elif origin in (Union, types.UnionType):
        yield from _leaves(next(one for one in arguments if one is not type(None)), path)
    elif origin is tuple and any(dataclasses.is_dataclass(one) for one in arguments):
        yield from _leaves(arguments[0], path)
    else:
        yield path, hint


def ranged(hint):
    """Whether a type has a range wherever it has a number or a word."""
    if ranges.of_hint(hint) is not None or hint is bool:
        return True
    arguments = [one for one in get_args(hint) if one not in (Ellipsis, type(None))]
    if get_origin(hint) is Annotated or not arguments:
        return False
    return all(ranged(one) for one in (arguments[1:] if get_origin(hint) is dict else arguments))


@pytest.mark.parametrize("method", sorted(KINDS))
def test_every_number_and_word_of_a_recipe_has_a_range(method):
    without = {path for path, hint in leaves(KINDS[method]) if not ranged(hint)}
    assert without - FREE <= {"validation.prompts.prompt", "validation.prompts.references.images"}


def nested(path, value):
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def outside(of):
    """Values that a range does not take: words, NaN, infinities, both sides of its bounds, other types."""
    yield from (math.nan, math.inf, -math.inf, {"a": 1}, [[]])
    if isinstance(of, ranges.Whole | ranges.Number):
        yield from ("words", "", True, "nan")
        if of.low is not None:
            yield of.low - 1
        if of.high is not None:
            yield of.high + 1
        if isinstance(of, ranges.Number) and of.above:
            yield of.low
        if isinstance(of, ranges.Number) and of.below:
            yield of.high
        if isinstance(of, ranges.Whole):
            yield (of.low or 0) + 0.5
            if of.step > 1:
                yield of.low + 1
    else:
        yield from ("", " ", 5, True) if isinstance(of, ranges.Text) else ("wrods", "", 5, True)
    if not getattr(of, "none", False):
        yield None


@pytest.mark.parametrize("method", sorted(KINDS))
def test_a_field_outside_its_range_is_refused_with_its_dotted_name(method):
    tried = 0
    for path, hint in leaves(KINDS[method]):
        of = ranges.of_hint(hint)
        if of is None or path.startswith(("data.sources.", "validation.prompts.")):
            continue
        for value in outside(of):
            with pytest.raises(Refused) as refusal:
                settings.build(KINDS[method], {"method": method, **nested(path, value)})
            assert path in str(refusal.value), (path, value)
            assert "\n" not in str(refusal.value)
            tried += 1
    assert tried > 100


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=.nan", "optimizer.lr is a number"),
        ("optimizer.lr=-1", "optimizer.lr is a number from 0 to 10, not -1.0"),
        ("optimizer.lr=100", "optimizer.lr is a number from 0 to 10, not 100.0"),
        ("optimizer.lrs={layers: -1}", "from 0 to 10, not -1.0"),
        ("optimizer.betas=[0.9, 1.0]", "below 1, not 1.0"),
        ("optimizer.betas=[0.9]", "has 2 values"),
        ("objective.timesteps=[-1, 5]", "from 0, not -1"),
        ("objective.timesteps=[5, 5]", "a lowest one"),
        ("data.side_px=100", "data.side_px is a multiple of 8 from 8 to 8192, not 100"),
        ("data.sources=[{url: x, weight: .inf}]", "weight is a number"),
        ("data.sources=[{url: x, weight: 0}]", "weight is a number above 0, not 0"),
        ("data.sources=[{url: x, split: test}]", "split is one of train, validation, not 'test'"),
        ("data.sources=[{url: ''}]", "url is a text with something in it"),
        ("view.dropout={text: 0.5, image: 0.6}", "together at most 1"),
        ("view.bounds={min_box_share: 0.5, max_box_share: 0.4}", "swap them"),
        ("validation.prompts=[{prompt: a cat, references: []}]", "has no references"),
        ("validation.prompts=[{prompt: a, references: [{images: [x], boxes: [[0, 0, 2, 1]]}]}]", "from 0 to 1, not 2"),
        ("validation.prompts=[{prompt: a, references: [{images: [x], boxes: [[1, 0, 0, 1]]}]}]", "is empty"),
        ("ema=1", "ema is a number above 0 and below 1, or null, not 1.0"),
        ("stepps=1", "did you mean steps?"),
    ],
)
def test_a_bad_override_names_what_it_is_and_can_be(override, message):
    with pytest.raises(Refused) as refusal:
        book.load("mip/sdxl", [override])
    assert message in str(refusal.value)


def test_the_recipes_that_ship_are_in_range():
    for name in book.names():
        book.load(name)


@pytest.mark.parametrize("samples", [0, 1, -1, 2.5, True, "all", math.nan])
def test_heldout_asks_for_two_samples_before_anything_is_read(samples):
    with pytest.raises(Refused, match="samples is a whole number from 2"):
        compare(book.load("mip/sdxl"), "nowhere", samples=samples)


@pytest.mark.parametrize("timesteps", [(), (-1,), (math.nan,), (1.5,)])
def test_heldout_asks_for_timesteps_that_there_can_be(timesteps):
    with pytest.raises(Refused, match="timesteps is"):
        compare(book.load("mip/sdxl"), "nowhere", timesteps=timesteps)


def base(folder, **scheduler):
    (folder / "scheduler").mkdir()
    config = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", **scheduler}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text(json.dumps({"block_out_channels": [1] * 5}))
    return folder


def test_noise_prediction_where_there_is_nothing_but_noise_is_refused_before_the_base_is_read(tmp_path):
    folder = base(tmp_path, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    given = [
        f"models.base={folder}",
        "models.image_encoder=x",
        "models.vae=null",
        "tuned=[image_proj, layers]",
        "data.side_px=512",
    ]
    METHODS["mip"].check(book.load("mip/sdxl", given))
    METHODS["mip"].check(book.load("mip/sdxl", [*given, "objective={prediction: epsilon, timesteps: [0, 999]}"]))
    noise = book.load("mip/sdxl", [*given, "objective.prediction=epsilon"])
    with pytest.raises(Refused, match="rescale_betas_zero_snr"):
        METHODS["mip"].check(noise)
    from diffusers import DDPMScheduler

    with pytest.raises(Refused, match="rescale_betas_zero_snr"):
        Diffusion(DDPMScheduler(rescale_betas_zero_snr=True), noise.objective)


def test_sides_that_the_bases_vae_does_not_divide_are_refused_before_it_is_read(tmp_path):
    given = [f"models.base={base(tmp_path)}", "models.image_encoder=x", "models.vae=null", "tuned=[image_proj, layers]"]
    METHODS["mip"].check(book.load("mip/sdxl", [*given, "data.side_px=512"]))
    with pytest.raises(Refused, match="is a multiple of 16, not 520"):
        METHODS["mip"].check(book.load("mip/sdxl", [*given, "data.side_px=520"]))
