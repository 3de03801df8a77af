"""The cross-attention of MS-Diffusion: positions look at the references whose place they are in."""

from typing import Any

import torch
from torch import Tensor

from refloom.inference.adapters import layout, merge
from refloom.inference.adapters.attention import Acting
from refloom.inference.adapters.tokens import TokenSlot
from refloom.schemas.errors import Refused


class LayoutActing(Acting):
    """What the slots of one generation share besides.

    Attributes:
        allowances: by number of tokens, what `merge.allowance` makes of boxes and masks.
        spans: (R, K, 77), or None without auto layout.
        threshold: of pseudo-masks.
        follows: whether pseudo-masks have replaced boxes and masks.
        maps: number of maps that each layer has added up, a tensor so that compiled code does not depend on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.allowances: dict[int, tuple[Tensor, Tensor]] = {}
        self.spans: Tensor | None = None
        self.threshold = 0.0
        self.follows = False
        self.maps = torch.zeros(())


class MaskedSlot(TokenSlot):
    """Positions look at the references whose place they are in.

    Attributes:
        tokens: number of positions there are in this layer; None if that is not known.
    """

    acting: LayoutActing

    def __init__(self, acting: LayoutActing, layer: Any, heads: int) -> None:
        super().__init__(acting, layer, heads)
        self.maps: Tensor | None = None
        self.tokens: int | None = None

    def add(self, attn: Any, query: Tensor, text_key: Tensor, text: Tensor) -> Tensor:
        """See `Slot.add`."""
        key, value = self.bound(query)
        if query.shape[2] not in self.acting.allowances or self.tokens not in (None, query.shape[2]):
            raise Refused(
                f"a cross-attention was given {query.shape[2]} tokens that have lost their places: let token merging "
                "leave cross-attention alone, as tomesd.apply_patch(pipe, merge_crossattn=False) does"
            )
        allowed, covered = self.acting.allowances[query.shape[2]]
        if self.acting.spans is not None:
            maps = merge.phrase_maps(query, text_key, self.acting.spans)
            self.maps = maps if self.maps is None or self.maps.shape != maps.shape else self.maps + maps
            if self.acting.follows:
                masks = layout.pseudo_masks(self.maps / self.acting.maps, self.acting.threshold)
                allowed, covered = merge.allowance(masks, key.shape[3])
        return merge.masked(query, key, value, allowed, covered)
