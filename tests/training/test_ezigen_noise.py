"""The noise on EZIGen's subjects in training: fresh in every step with `faithful`, as published (spec A.1.3-3)."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import tinypipes as tiny
import torch
from adapting import ezigen_adapter, references

from refloom.inference.adapters.ezigen.referenceunet import ancestral
from refloom.training.methods.ezigen import EZIGen
from refloom.training.views.example import Drops, Example, SizeCondition

SIZES = SizeCondition((32, 32), (0, 0), (32, 32))


@pytest.fixture(scope="module")
def adapter() -> Any:
    pipe = tiny.sd_pipe()
    return ezigen_adapter(pipe).attach(pipe)


@pytest.fixture
def noise_at(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What lies on the subjects of examples at these positions: (B, N, 4, h, w), two subjects each."""
    seen = SimpleNamespace()
    condition = adapter.condition

    def keep(latents: Any, *given: Any, **more: Any) -> Any:
        seen.latents = latents
        return condition(latents, *given, **more)

    monkeypatch.setattr(adapter, "condition", keep)
    hook = adapter.pipe.unet.register_forward_pre_hook(lambda _, given: setattr(seen, "noisy", given[0]))

    def of(*positions: int, faithful: bool = True, seed: int = 1) -> torch.Tensor:
        adapter.faithful = faithful
        subjects = tuple(references(0, 1))
        examples = [
            Example("one", tiny.picture(3, 32, 32), "a dog", subjects, (None, None), Drops(), SIZES, position)
            for position in positions
        ]
        with torch.no_grad():
            EZIGen().conditions(adapter, examples, seed)
        kept = ancestral(adapter.pipe.scheduler).alphas_cumprod[1]
        noisy = seen.noisy.reshape(seen.latents.shape)
        return (noisy - kept**0.5 * seen.latents) / (1 - kept) ** 0.5

    yield of
    hook.remove()
    adapter.faithful = False


def test_each_example_has_its_own_in_every_step_and_its_subjects_share_it(noise_at: Any) -> None:
    first, second, again = noise_at(4, 5), noise_at(6, 7), noise_at(4, 5)
    torch.testing.assert_close(first[:, 0], first[:, 1], atol=1e-4, rtol=0)
    each = torch.cat([first[:, 0], second[:, 0]]).flatten(1)
    assert torch.pdist(each, p=float("inf")).min() > 0.5
    assert torch.equal(first, again)
    assert 0.8 < each.std() < 1.2
    assert (noise_at(4, 5, seed=2) - first).abs().max() > 0.5


def test_it_depends_on_the_example_alone_whatever_batch_it_is_in(noise_at: Any) -> None:
    torch.testing.assert_close(noise_at(4, 5)[1:], noise_at(5), atol=1e-4, rtol=0)


def test_by_default_all_have_the_same(noise_at: Any) -> None:
    first, second = noise_at(4, 5, faithful=False), noise_at(6, 7, faithful=False)
    for other in (first[:, :1].expand_as(first), first[:1].expand_as(first), second):
        torch.testing.assert_close(first, other, atol=1e-4, rtol=0)
