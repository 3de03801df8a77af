"""The merge rules, each held to a slow and literal float64 loop of its formula, through the processor itself."""

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.attention_processor import AttnProcessor2_0 as Stock

from refloom.inference.adapters import merge
from refloom.inference.adapters.attention import Acting, CrossAttention
from refloom.inference.adapters.calls import Call
from refloom.inference.adapters.ip_adapter.adapter import JointSlot, SummedSlot
from refloom.inference.adapters.mip.adapter import GatedImageKeyValue, WeightedSlot
from refloom.inference.adapters.ms_diffusion.slot import LayoutActing, MaskedSlot
from refloom.inference.adapters.tokens import ImageKeyValue

HEADS, WIDTH, CONTEXT, TEXT = 2, 8, 12, 7


def attention(seed=0) -> Attention:
    torch.manual_seed(seed)
    attn = Attention(WIDTH, cross_attention_dim=CONTEXT, heads=HEADS, dim_head=WIDTH // HEADS, processor=Stock())
    return attn.double().requires_grad_(False)


def bound(slot, tokens, strengths=None, present=None):
    rows, references = tokens.shape[:2]
    strengths = torch.ones(rows, references) if strengths is None else strengths
    present = torch.ones(rows, references, dtype=torch.bool) if present is None else present
    call = Call(rows, (1, 1), torch.device("cpu"), torch.float64, ("positive",), 0, None, {})
    slot.bind(tokens, strengths * present, present, torch.arange(rows), call)
    slot.acting.acts = True
    return slot


def through(attn, slots, hidden, text):
    processor = CrossAttention(attn.processor)
    processor.slots.extend(slots)
    return processor(attn, hidden, encoder_hidden_states=text)


def random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(x, axis):
    x = np.exp(x - x.max(axis=axis, keepdims=True))
    return x / x.sum(axis=axis, keepdims=True)


def weights_of(*modules):
    return [module.weight.detach().double().numpy() for module in modules]


def heads_of(x):
    """(S, C) as H arrays (S, D)."""
    return np.split(x, HEADS, axis=1)


def naive_attention(q, k, v, bias=None):
    out = []
    for qh, kh, vh in zip(heads_of(q), heads_of(k), heads_of(v), strict=True):
        logits = qh @ kh.T / np.sqrt(qh.shape[1])
        out.append(softmax(logits if bias is None else logits + bias, 1) @ vh)
    return np.concatenate(out, axis=1)


def out_projection(attn, z):
    weight, bias = attn.to_out[0].weight.numpy(), attn.to_out[0].bias.numpy()
    return z @ weight.T + bias


def naive_mip(attn, layer, hidden, text, tokens, strengths, phrases, lengths):
    """Spec B1.3 for one row, position by position, head by head, token by token."""
    w_q, w_k, w_v, w_k2, w_v2 = weights_of(attn.to_q, attn.to_k, attn.to_v, layer.to_k_ip, layer.to_v_ip)
    w = layer.text_to_weight.weight.detach().double().numpy()[0]
    q = hidden @ w_q.T
    z_text = naive_attention(q, text @ w_k.T, text @ w_v.T)
    positions = len(q)
    z, a = [], np.zeros((len(tokens), positions))
    for k, c in enumerate(tokens):
        z.append(naive_attention(q, c @ w_k2.T, c @ w_v2.T))
        e = heads_of(phrases[k] @ w_k.T)
        for head, qh in enumerate(heads_of(q)):
            for row in range(1, 1 + lengths[k]):  # row 0 is the start token
                m = softmax(np.array([e[head][row] @ qh[p] / np.sqrt(qh.shape[1]) for p in range(positions)]), 0)
                a[k] += m / (HEADS * lengths[k])
    share = a / a.sum(axis=0)
    g = 1 / (1 + np.exp(-(z_text @ w)))
    g = g / g.mean()
    out = z_text.copy()
    for k in range(len(tokens)):
        for p in range(positions):
            out[p] += share[k, p] * g[p] * strengths[k] * z[k][p]
    return out_projection(attn, out)


@pytest.mark.parametrize("references", [1, 2, 3, 4])
@pytest.mark.parametrize("positions", [3 * 5, 16, 7])
def test_weighted_is_the_formula_of_mip(references, positions):
    attn, rows, lengths = attention(), 2, [1, 3, 2, 4][:references]
    layer = GatedImageKeyValue(CONTEXT, WIDTH).double().requires_grad_(False)
    layer.text_to_weight.weight.mul_(5)
    hidden, text = random(rows, positions, WIDTH), random(rows, TEXT, CONTEXT, seed=2) * 2
    tokens, strengths = random(rows, references, 3, CONTEXT, seed=3), random(rows, references, seed=4)
    states = random(rows, references, TEXT, CONTEXT, seed=5) * 2
    slot = bound(WeightedSlot(Acting(), layer, attn), tokens, strengths)
    weight = torch.zeros(rows, references, TEXT - 1)
    for k, length in enumerate(lengths):
        weight[:, k, :length] = 1 / length
    slot.bind_phrases(states[:, :, 1:], weight, torch.arange(rows))
    got = through(attn, [slot], hidden, text).numpy()
    for row in range(rows):
        arguments = (x[row].numpy() for x in (hidden, text, tokens, strengths, states))
        wanted = naive_mip(attn, layer, *arguments, lengths)
        np.testing.assert_allclose(got[row], wanted, atol=1e-6)


def test_an_absent_reference_takes_no_share():
    """Padding to the longest list of a batch changes nothing."""
    attn, positions = attention(), 15
    layer = GatedImageKeyValue(CONTEXT, WIDTH).double().requires_grad_(False)
    hidden, text = random(1, positions, WIDTH), random(1, TEXT, CONTEXT, seed=2)
    tokens, states = random(1, 3, 3, CONTEXT, seed=3), random(1, 3, 4, CONTEXT, seed=5)
    present = torch.tensor([[True, True, False]])
    rows = torch.full((1, 3, 4), 0.25)
    for make, phrases in ((WeightedSlot, True), (SummedSlot, False), (JointSlot, False)):
        host = attn if phrases else HEADS
        slots = [
            bound(make(Acting(), layer, host), tokens[:, :2]),
            bound(make(Acting(), layer, host), tokens, None, present),
        ]
        if phrases:
            slots[0].bind_phrases(states[:, :2], rows[:, :2], torch.arange(1))
            slots[1].bind_phrases(states, rows * present[..., None], torch.arange(1))
        a, b = (through(attn, [slot], hidden, text) for slot in slots)
        torch.testing.assert_close(a, b, atol=1e-7, rtol=0)


def test_relevance_shares_equally_where_every_phrase_underflows():
    query = torch.tensor([[[[0.0], [300.0]]]])  # (1, 1, 2, 1): the second position draws all of both phrases
    shares = merge.relevance(query, torch.ones(1, 2, 1, 1, 1), torch.ones(1, 2, 1))
    assert shares.tolist() == [[[0.5, 0.5], [0.5, 0.5]]]


def test_joint_and_summed_are_their_formulas():
    attn, layer = attention(), ImageKeyValue(CONTEXT, WIDTH).double().requires_grad_(False)
    hidden, text = random(1, 15, WIDTH), random(1, TEXT, CONTEXT, seed=2)
    tokens, strengths = random(1, 3, 4, CONTEXT, seed=3), torch.tensor([[0.5, 1.0, -0.3]])
    w_q, w_k, w_v, w_k2, w_v2 = weights_of(attn.to_q, attn.to_k, attn.to_v, layer.to_k_ip, layer.to_v_ip)
    q = hidden[0].numpy() @ w_q.T
    z = naive_attention(q, text[0].numpy() @ w_k.T, text[0].numpy() @ w_v.T)
    keys, values = [c.numpy() @ w_k2.T for c in tokens[0]], [c.numpy() @ w_v2.T for c in tokens[0]]
    scaled = [s * v for s, v in zip(strengths[0].tolist(), values, strict=True)]
    joint = z + naive_attention(q, np.concatenate(keys), np.concatenate(scaled))
    summed = z + sum(naive_attention(q, k, v) for k, v in zip(keys, scaled, strict=True))
    for make, wanted in ((JointSlot, joint), (SummedSlot, summed)):
        got = through(attn, [bound(make(Acting(), layer, HEADS), tokens, strengths)], hidden, text)
        np.testing.assert_allclose(got[0].numpy(), out_projection(attn, wanted), atol=1e-6)


def naive_ms(attn, layer, hidden, text, tokens, strengths, masks, dummies):
    """Spec B.1.3 for one row, with the dummy tokens of the published code."""
    w_q, w_k, w_v, w_k2, w_v2 = weights_of(attn.to_q, attn.to_k, attn.to_v, layer.to_k_ip, layer.to_v_ip)
    q = hidden @ w_q.T
    context = np.concatenate([dummies, *tokens])
    background = np.clip(1 - masks.sum(axis=0), 0, None)
    allowed = np.concatenate(
        [
            np.repeat(m[:, None], n, axis=1)
            for m, n in [(background, len(dummies)), *((m, len(c)) for m, c in zip(masks, tokens, strict=True))]
        ],
        axis=1,
    )
    bias = np.where(allowed > 0, 0.0, -10000.0)
    factor = np.concatenate(
        [np.ones(len(dummies)), *(np.full(len(c), s) for s, c in zip(strengths, tokens, strict=True))]
    )
    z = naive_attention(q, context @ w_k2.T, factor[:, None] * (context @ w_v2.T), bias)
    text_part = naive_attention(q, text @ w_k.T, text @ w_v.T)
    return out_projection(attn, text_part + (1 - background)[:, None] * z), out_projection(attn, text_part)


@pytest.mark.parametrize("references", [1, 2, 4])
def test_masked_is_the_formula_of_ms_diffusion_and_dummy_tokens_have_no_effect(references):
    attn, layer = attention(), ImageKeyValue(CONTEXT, WIDTH).double().requires_grad_(False)
    positions = 5 * 7
    hidden, text = random(1, positions, WIDTH), random(1, TEXT, CONTEXT, seed=2)
    tokens, strengths = random(1, references, 3, CONTEXT, seed=3), random(1, references, seed=4)
    masks = random(1, references, positions, seed=6) > 0.6
    acting = LayoutActing()
    acting.allowances = {positions: merge.allowance(masks, 3)}
    got = through(attn, [bound(MaskedSlot(acting, layer, HEADS), tokens, strengths)], hidden, text)[0].numpy()
    given = [x[0].numpy() for x in (hidden, text, tokens, strengths, masks)]
    for seed in (0, 1):
        dummies = 3 * random(4, CONTEXT, seed=10 + seed).numpy()
        wanted, alone = naive_ms(attn, layer, *given, dummies)
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    outside = ~given[4].any(axis=0)
    assert outside.any()
    np.testing.assert_array_equal(got[outside], through(attn, [], hidden, text)[0].numpy()[outside])
    np.testing.assert_allclose(got[outside], alone[outside], atol=1e-9)


def test_pseudo_masks_are_the_mean_of_the_text_attention_so_far():
    attn, layer = attention(), ImageKeyValue(CONTEXT, WIDTH).double().requires_grad_(False)
    positions, spans = 5 * 7, [(1, 3), (4, 5)]
    text, tokens = random(1, TEXT, CONTEXT, seed=2) * 2, random(1, 2, 3, CONTEXT, seed=3)
    acting = LayoutActing()
    acting.allowances = {positions: merge.allowance(torch.ones(1, 2, positions, dtype=torch.bool), 3)}
    acting.spans, acting.threshold = torch.zeros(1, 2, TEXT), 0.4
    for row, (start, stop) in zip(acting.spans[0], spans, strict=True):
        row[start:stop] = 1 / (stop - start)
    slot = bound(MaskedSlot(acting, layer, HEADS), tokens)
    w_q, w_k = weights_of(attn.to_q, attn.to_k)
    total = np.zeros((2, positions))
    for step in range(3):
        hidden = random(1, positions, WIDTH, seed=20 + step)
        acting.maps, acting.follows = acting.maps + 1, step == 2
        got = through(attn, [slot], hidden, text)
        q, k = hidden[0].numpy() @ w_q.T, text[0].numpy() @ w_k.T
        for qh, kh in zip(heads_of(q), heads_of(k), strict=True):
            probabilities = softmax(qh @ kh.T / np.sqrt(qh.shape[1]), 1)
            total += np.stack([probabilities[:, start:stop].mean(axis=1) for start, stop in spans]) / HEADS
    mean = total / 3
    low, high = mean.min(axis=1, keepdims=True), mean.max(axis=1, keepdims=True)
    masks = (mean - low) / (high - low + 1e-5) > 0.4
    assert 0 < masks.sum() < masks.size
    wanted, _ = naive_ms(
        attn, layer, hidden[0].numpy(), text[0].numpy(), tokens[0].numpy(), [1, 1], masks, np.zeros((4, CONTEXT))
    )
    np.testing.assert_allclose(got[0].numpy(), wanted, atol=1e-6)


def test_two_adapters_add_up():
    attn = attention()
    hidden, text, tokens = random(1, 15, WIDTH), random(1, TEXT, CONTEXT, seed=2), random(1, 2, 3, CONTEXT, seed=3)
    layers = [ImageKeyValue(CONTEXT, WIDTH).double().requires_grad_(False) for _ in range(2)]
    slots = [bound(JointSlot(Acting(), layer, HEADS), tokens) for layer in layers]
    none, first, second, both = (through(attn, some, hidden, text) for some in ([], slots[:1], slots[1:], slots))
    torch.testing.assert_close(both, first + second - none)
