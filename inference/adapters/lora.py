"""Low-rank additions to the attention projections of a UNet, without touching its state dict.

Two ways of applying them give the same result: *fused*, the sum W + s·BA laid into the projection while the adapter
acts, which costs nothing in a step; and *live*, B(Ax) added to what the projection returns, for training, and for
weights that cannot be summed: quantised, offloaded to the meta device, or fused by another adapter.

peft is not used for it: it puts layers of its own in place of the UNet's, which renames the UNet's weights and makes
what an adapter trains a part of what is frozen. `easyref_checkpoint.write_lora` writes what peft reads.
"""

from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.adapters.attention import attentions, check_stock
from inference.adapters.tokens import tree
from schemas.errors import Refused

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out")

# projections whose weights are a sum at the moment: a second sum could not be undone in any order
_FUSED: WeakSet[nn.Module] = WeakSet()


class LowRank(nn.Module):
    """BA, a matrix of rank at most `rank`; named as in diffusers' LoRA layers. It is 0 until it is trained."""

    def __init__(self, width_in: int, width_out: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width_in, rank, bias=False)
        self.up = nn.Linear(rank, width_out, bias=False)
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, states: Tensor) -> Tensor:
        """(..., width in) to (..., width out), in the precision and on the device of the states."""
        down, up = (linear.weight.to(states.device, states.dtype) for linear in (self.down, self.up))
        return functional.linear(functional.linear(states, down), up)

    def product(self, device: torch.device) -> Tensor:
        """BA as a matrix (width out, width in) in fp32."""
        down, up = (linear.weight.to(device, torch.float32) for linear in (self.down, self.up))
        return up @ down


def low_rank_layers(widths: Mapping[str, int], context_widths: Mapping[str, int], rank: int) -> nn.Module:
    """Additions to every projection of every attention.

    Args:
        widths: width by path of every attention.
        context_widths: width of what keys and values are made of, by path; as the attention where there is none.
        rank: of the additions.
    """
    layers: dict[str, nn.Module] = {}
    for path, width in widths.items():
        context = context_widths.get(path, width)
        for name in PROJECTIONS:
            of = context if name in ("to_k", "to_v") else width
            layers[f"{path}.{name}"] = LowRank(of, width, rank)
    return tree(layers)


class _Place:
    """One projection, and what is added to it now.

    Attributes:
        live: whether the addition is computed beside it.
        strength: factor of the addition.
        stock: its own weights while a sum is in their place.
    """

    def __init__(self, linear: Any, addition: LowRank) -> None:
        self.linear, self.addition = linear, addition
        self.live, self.strength = False, 0.0
        self.stock: Tensor | None = None
        # always there, because compiled code does not notice hooks that come later
        self.hook = linear.register_forward_hook(self._add)

    def _add(self, _: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        return out + self.strength * self.addition(args[0]) if self.live else None

    @torch.no_grad()
    def fuse(self) -> None:
        """Lay the sum where the weights are."""
        self.stock = self.linear.weight.data
        total = self.stock.float() + self.strength * self.addition.product(self.stock.device)
        self.linear.weight.data = total.to(self.stock.dtype)
        _FUSED.add(self.linear)

    def off(self) -> None:
        """Add nothing; the very same weights are back, wherever the projection is now."""
        self.live = False
        if self.stock is not None:
            self.linear.weight.data = self.stock.to(self.linear.weight.device)
            self.stock = None
            _FUSED.discard(self.linear)

    @property
    def summable(self) -> bool:
        """Whether this is an ordinary projection, with weights in memory, that nobody else has changed."""
        if type(self.linear) is not nn.Linear or self.linear in _FUSED:
            return False
        weight = self.linear.weight
        return not weight.is_meta and weight.is_floating_point() and weight.element_size() > 1


class LowRankSwitch:
    """Turns the additions on and off. A plain object: what it holds stays out of the UNet's state dict.

    Args:
        unet: whose projections they are added to; hooks are put on these, and taken off by `remove`.
        layers: of `low_rank_layers`.
        widths: of its paths.

    Raises:
        Refused: the UNet does not have these attentions; nothing was changed.
    """

    def __init__(self, unet: Any, layers: nn.Module, widths: Mapping[str, int]) -> None:
        modules = attentions(unet)
        check_stock(modules)
        for path, width in widths.items():
            if path not in modules or modules[path].inner_dim != width:
                raise Refused(f"the LoRA is made for another base: {path} is not {width} wide in this UNet")
        self._unet = unet
        self._asked: tuple[float, bool] | None = None
        self._places: list[_Place] = []
        for path in widths:
            for name in PROJECTIONS:
                linear = getattr(modules[path], name)
                addition: Any = layers.get_submodule(f"{path}.{name}")
                self._places.append(_Place(linear[0] if name == "to_out" else linear, addition))

    @property
    def fused(self) -> int:
        """How many projections hold sums at the moment."""
        return sum(place.stock is not None for place in self._places)

    def set(self, strength: float, *, fuse: bool) -> None:
        """Apply the additions with this strength, 0 for not at all.

        Args:
            strength: factor of BA.
            fuse: sum them with the weights where that is possible.
        """
        if self._asked == (strength, fuse):
            return
        self.off()
        self._asked = strength, fuse
        # diffusers' hooks, of group offloading and of layerwise casting, lay weights of their own into the projections
        fuse = fuse and not any(hasattr(module, "_diffusers_hook") for module in self._unet.modules())
        for place in self._places if strength else ():
            place.strength = strength
            if fuse and place.summable:
                place.fuse()
            else:
                place.live = True

    def off(self) -> None:
        """Add nothing to any projection."""
        self._asked = None
        for place in self._places:
            place.off()

    def remove(self) -> None:
        """Turn off, and leave the UNet."""
        self.off()
        for place in self._places:
            place.hook.remove()
        self._places = []
