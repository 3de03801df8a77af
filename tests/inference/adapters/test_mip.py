"""MIP-Adapter on stock pipelines: the gate, the phrases, both halves of guidance."""

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import conditioned, ip_adapter, mip_adapter, references

from refloom.inference.adapters import tokens
from refloom.inference.adapters.mip import adapter as mip
from refloom.schemas.errors import Refused


@pytest.fixture(scope="module")
def pipe():
    return tiny.sdxl_pipe()


@pytest.fixture
def adapter(pipe):
    adapter = mip_adapter(pipe)
    yield adapter.attach(pipe)
    adapter.detach()


@pytest.mark.parametrize("head", ["plain", "plus"])
def test_one_reference_without_a_gate_is_ip_adapter(pipe, head):
    weighted, plain = mip_adapter(pipe, head=head), ip_adapter(pipe, head=head)
    plain.load_state_dict({key: value for key, value in weighted.state_dict().items() if "text_to_weight" not in key})
    gated = conditioned(pipe, weighted.attach(pipe), references(0))
    for layer in weighted.config.layers:
        weighted.layer(layer).text_to_weight.weight.zero_()
    open_gate = conditioned(pipe, weighted, references(0))
    weighted.detach()
    wanted = conditioned(pipe, plain.attach(pipe), references(0))
    plain.detach()
    np.testing.assert_allclose(open_gate, wanted, atol=1e-5)
    assert np.abs(gated - wanted).max() > 1e-3


@pytest.mark.parametrize("size", [(48, 80), (72, 40)])
def test_batches_of_prompts_with_one_to_three_references_at_any_aspect_are_each_alone(pipe, adapter, size):
    height, width = size
    latents = torch.randn(3, 4, height // 2, width // 2, generator=torch.Generator().manual_seed(0))
    prompts = ["a dog", "a dog and a cat", "a dog, a cat and a lantern"]
    each = [adapter.encode(references(*range(count))) for count in (1, 2, 3)]
    options = {"height": height, "width": width}
    with adapter.generation(tokens.stack(each)):
        batch = tiny.generate(pipe, prompts, latents=latents, **options)
    for at, prompt in enumerate(prompts):
        with adapter.generation(each[at]):
            alone = tiny.generate(pipe, prompt, latents=latents[at : at + 1], **options)
        np.testing.assert_allclose(batch[at], alone[0], atol=2e-4)


def test_phrases_decide_where_references_go(pipe, adapter):
    given = conditioned(pipe, adapter, references(0, 1))
    swapped = conditioned(pipe, adapter, references(0, 1, phrases=("cat", "dog")))
    assert np.abs(given - swapped).max() > 1e-3
    with pytest.raises(Refused, match="give each one"):
        adapter.encode(references(0, 1, phrases=("cat", None)))
    with pytest.raises(Refused, match="names nothing"):
        adapter.encode(references(0, 1, phrases=("cat", "...")))


def test_phrases_have_the_states_of_the_phrase_alone_from_its_first_word_on(pipe, adapter):
    states, rows, empty = adapter.phrases(["wooden pot", "cat"])
    alone = pipe.encode_prompt("cat", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)[0]
    assert rows.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    torch.testing.assert_close(states[1], alone[0, 1:3])
    assert states.shape == (2, 2, 32)
    assert empty.shape == (1, 2, 32)


@pytest.mark.parametrize("faithful", [False, True])
def test_the_negative_half_has_the_real_phrases_and_only_the_published_code_empties_them(
    pipe, adapter, faithful, monkeypatch
):
    """Spec B1.5: with phrases of one length, empty phrases share every position equally."""
    shares, relevance = [], mip.merge.relevance
    monkeypatch.setattr(mip.merge, "relevance", lambda *given: shares.append(relevance(*given)) or shares[-1])
    adapter.faithful = faithful
    conditioned(pipe, adapter, references(0, 1))
    first = shares[0]  # the first layer of the first step sees the same latents in both halves
    uneven = (first - 0.5).abs().amax(dim=(1, 2))
    assert (uneven[0] < 1e-6) == faithful
    assert uneven[1] > 1e-4


def test_it_runs_on_a_base_with_one_text_encoder():
    pipe = tiny.sd_pipe()
    adapter = mip_adapter(pipe).attach(pipe)
    out = conditioned(pipe, adapter, references(0, 1), height=32, width=48)
    assert np.abs(out - tiny.generate(pipe, height=32, width=48)).max() > 1e-2


def test_conditions_of_another_adapter_are_refused(pipe, adapter):
    other = ip_adapter(pipe).attach(pipe)
    with adapter.generation(other.encode(references(0))), pytest.raises(Refused, match="conditions with phrases"):
        tiny.generate(pipe)
    other.detach()
