"""Guidance by the references and by the text, each with a scale of its own, on a stock pipeline.

For methods that were trained with references, text and both dropped. With e1 what the UNet says to neither, e2 to the
references alone and e3 to both, the result is e1 + s (e2 - e1) + g (e3 - e2), s being the scale of the references and g
the pipeline's `guidance_scale`; with s = g that is the pipeline's own guidance. The pipeline knows two halves only:
each of its UNet calls is widened by the middle part, and (s - 1)(e2 - e1) is added to both of e2 and e3, from which its
formula e2 + g (e3 - e2) makes the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from refloom.inference.adapters.calls import Half, bare
from refloom.schemas.errors import Refused

_THREE: tuple[Half, ...] = ("negative", "references", "positive")

# the UNets inside a widened call
_WIDENED: WeakKeyDictionary[nn.Module, tuple[Half, ...]] = WeakKeyDictionary()
_GUIDED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def halves_of(unet: nn.Module) -> tuple[Half, ...] | None:
    """Parts of the batch of a UNet's present call, if it is widened."""
    return _WIDENED.get(bare(unet))


@contextmanager
def reference_guidance(pipe: Any, scale: float) -> Iterator[None]:
    """Guide what the pipeline generates inside this block by the references too. A step costs half as much again.

    All adapters on the pipeline count as references. Without classifier-free guidance nothing is changed.

    Args:
        pipe: the stock pipeline that runs.
        scale: s, of the references.

    Raises:
        Refused: this is no pipeline, or it is inside such a block already.
    """
    unet: Any = getattr(pipe, "unet", None)
    if unet is None:
        raise Refused(f"reference guidance needs the pipeline that runs, not a {type(pipe).__name__}")
    if hasattr(type(pipe), "do_perturbed_attention_guidance"):
        raise Refused(
            f"references and perturbed attention cannot both guide: a {type(pipe).__name__} cannot be guided by "
            "references, the pipeline without PAG can"
        )
    # adapters and this may be on either of a compiled UNet and what it was compiled from
    core = bare(unet)
    if core in _GUIDED:
        raise Refused("the pipeline is guided by references already: there is one scale for all of them")

    def widen(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not getattr(pipe, "do_classifier_free_guidance", False):
            return None
        rows = (args[0] if args else kwargs["sample"]).shape[0]
        _WIDENED[core] = _THREE
        return _widened(args, rows), _widened(kwargs, rows)

    def join(_: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        if _WIDENED.pop(core, None) is None:
            return None
        neither, references, both = out[0].chunk(3)
        pushed = (scale - 1) * (references - neither)
        sample = torch.cat([references + pushed, both + pushed])
        return (sample, *out[1:]) if isinstance(out, tuple) else type(out)(sample=sample)

    _GUIDED[core] = True
    # first: adapters must see the widened batch
    hooks = [unet.register_forward_pre_hook(widen, with_kwargs=True, prepend=True), unet.register_forward_hook(join)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        _GUIDED.pop(core)
        _WIDENED.pop(core, None)


def _widened(value: Any, rows: int) -> Any:
    """With the negative half twice in every tensor that has a row for each row of the batch."""
    if isinstance(value, Tensor):
        if value.ndim == 0 or value.shape[0] != rows:
            return value
        negative, positive = value.chunk(2)
        return torch.cat([negative, negative, positive])
    if isinstance(value, dict):
        return {key: _widened(item, rows) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_widened(item, rows) for item in value])
    return value
