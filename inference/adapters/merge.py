"""How the references of one cross-attention are merged with each other and with the text. Pure functions.

Shapes: B rows, H heads, P positions of the latent grid, K references, N tokens of a reference, D width of a head,
C = H x D. Queries are (B, H, P, D) and shared with the text; softmax scale is 1 / sqrt(D) everywhere.
"""

import torch
from torch import Tensor
from torch.nn import functional


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention over one set of keys.

    Args:
        query: (B, H, P, D).
        key, value: (B, H, S, D).
        mask: boolean, True where a query may look, or to be added; broadcast to (B, H, P, S).

    Returns:
        (B, P, C).
    """
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return out.transpose(1, 2).reshape(query.shape[0], query.shape[2], -1)


def joint(query: Tensor, key: Tensor, value: Tensor, present: Tensor | None = None) -> Tensor:
    """All references under one softmax, as one long reference; IP-Adapter's rule for several images.

    Args:
        query: (B, H, P, D).
        key, value: (B, K, H, N, D); a reference's strength is a factor of its values.
        present: (B, K) boolean, False for padding; None if all are there. A row needs one that is there.

    Returns:
        (B, P, C).
    """
    rows, references, heads, tokens, width = key.shape
    mask = None if present is None else present.repeat_interleave(tokens, 1)[:, None, None]
    flat = (rows, heads, references * tokens, width)
    return attend(query, key.transpose(1, 2).reshape(flat), value.transpose(1, 2).reshape(flat), mask)


def summed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The sum of every reference's own attention; absent references have values of 0. Shapes as for `joint`."""
    out = attend(query, key[:, 0], value[:, 0])
    for reference in range(1, key.shape[1]):
        out = out + attend(query, key[:, reference], value[:, reference])
    return out


def relevance(query: Tensor, phrase_key: Tensor, rows: Tensor) -> Tensor:
    """How much each position belongs to each reference, by its phrase; MIP-Adapter, spec B1.3.

    Phrase tokens distribute themselves over *positions*: the softmax runs over P. In fp32 and without gradient, as in
    the method; where all phrases underflow to 0 the references share equally.

    Args:
        query: (B, H, P, D).
        phrase_key: (B, K, H, L, D), text keys of the phrases' tokens.
        rows: (B, K, L) weights of the tokens: 1 / L_k for the L_k tokens of phrase k, 0 for padding and for references
            that are absent.

    Returns:
        (B, K, P) fp32, summing to 1 over the references that are there.
    """
    with torch.no_grad():
        batch, references, heads, tokens, width = phrase_key.shape
        keys = phrase_key.detach().transpose(1, 2).reshape(batch, heads, references * tokens, width)
        logits = torch.matmul(keys, query.detach().transpose(-1, -2)).float() * width**-0.5
        over_heads = logits.softmax(dim=-1).mean(dim=1).unflatten(1, (references, tokens))
        weight = (over_heads * rows.float()[..., None]).sum(dim=2)
        total = weight.sum(dim=1, keepdim=True)
        there = (rows.sum(dim=2, keepdim=True) > 0).float()
        equal = there / there.sum(dim=1, keepdim=True).clamp_min(1)
        return torch.where(total > 0, weight / total.clamp_min(torch.finfo(torch.float32).tiny), equal)


def gate(text: Tensor, weight: Tensor) -> Tensor:
    """How much each position wants references at all, with a mean of 1 over positions; MIP-Adapter, spec B1.3.

    Args:
        text: (B, P, C), text attention before the output projection.
        weight: (1, C).

    Returns:
        (B, P, 1) fp32.
    """
    opened = torch.sigmoid(functional.linear(text, weight).float())
    return opened / opened.mean(dim=1, keepdim=True)


def weighted(query: Tensor, key: Tensor, value: Tensor, weights: Tensor) -> Tensor:
    """The sum of every reference's own attention, weighted by position.

    Args:
        query: (B, H, P, D).
        key, value: (B, K, H, N, D).
        weights: (B, K, P).

    Returns:
        (B, P, C).
    """
    out = attend(query, key[:, 0], value[:, 0]) * weights[:, 0, :, None].to(value.dtype)
    for reference in range(1, key.shape[1]):
        attended = attend(query, key[:, reference], value[:, reference])
        out = out + attended * weights[:, reference, :, None].to(value.dtype)
    return out


def allowance(masks: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """What `masked` needs of a layout.

    Args:
        masks: (B, K, P) boolean, where each reference may act.
        tokens: N of a reference.

    Returns:
        Which keys each position may look at, (B, 1, P, K x N) boolean, and which positions take anything, (B, P, 1).
    """
    covered = masks.any(dim=1)
    # a row without any key has no softmax: let it look everywhere, and take nothing from it
    allowed = (masks | ~covered[:, None]).repeat_interleave(tokens, 1).transpose(1, 2)[:, None]
    return allowed, covered[..., None]


def masked(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, covered: Tensor) -> Tensor:
    """Every position looks at the references whose layout covers it, jointly; MS-Diffusion, spec B.1.3.

    The method's dummy tokens, which take the positions that no reference covers, are left out: what those positions get
    from them is multiplied by 0.

    Args:
        query: (B, H, P, D).
        key, value: (B, K, H, N, D); a reference's strength is a factor of its values.
        allowed, covered: of `allowance`.

    Returns:
        (B, P, C), 0 where no reference may act.
    """
    rows, references, heads, tokens, width = key.shape
    flat = (rows, heads, references * tokens, width)
    out = attend(query, key.transpose(1, 2).reshape(flat), value.transpose(1, 2).reshape(flat), allowed)
    return out * covered.to(out.dtype)


def phrase_maps(query: Tensor, text_key: Tensor, spans: Tensor) -> Tensor:
    """Where the text attention looks for each phrase; MS-Diffusion's auto layout, spec B.4.3.

    Args:
        query: (B, H, P, D).
        text_key: (B, H, S, D).
        spans: (B, K, S), weights of a phrase's tokens in the prompt: 1 / length inside its span, 0 elsewhere.

    Returns:
        (B, K, P) fp32: attention probabilities, mean over the phrase's tokens and over heads.
    """
    logits = torch.matmul(query, text_key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5
    return torch.einsum("bps,bks->bkp", logits.softmax(dim=-1).mean(dim=1), spans.float())
