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
from torch.utils.hooks import RemovableHandle

from refloom.inference.adapters.attention import attentions, check_projections
from refloom.inference.adapters.tokens import tree
from refloom.schemas.errors import Refused

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
        owner, name: the module that has the projection, and by which name.
        linear: the projection itself.
        live: whether the addition is computed beside it.
        strength: factor of the addition.
        stock: its own weights while a sum is in their place.
    """

    def __init__(self, owner: nn.Module, name: str, addition: LowRank) -> None:
        self.owner, self.name, self.addition = owner, name, addition
        self.live, self.strength = False, 0.0
        self.stock: Tensor | None = None
        self.linear: Any = None
        self.take()

    def take(self) -> None:
        """Be at the projection that is there now."""
        self.linear = self.owner._modules[self.name]
        # always there, because compiled code does not notice hooks that come later
        self.hook = self.linear.register_forward_hook(self._add)

    @property
    def there(self) -> bool:
        """Whether the owner computes by this projection and its hook, be it inside a layer of another LoRA."""
        at: Any = self.owner._modules[self.name]
        while at is not self.linear and at is not None:
            at = at._modules.get("base_layer")
        return at is not None and self.hook.id in self.linear._forward_hooks

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
        check_projections(modules, kind="the adapter")
        for path, width in widths.items():
            if path not in modules or modules[path].inner_dim != width:
                raise Refused(f"the LoRA is made for another base: {path} is not {width} wide in this UNet")
        self._unet = unet
        self._asked: tuple[float, bool] | None = None
        self._modules = {path: modules[path] for path in widths}
        self._places: list[_Place] = []
        for path in widths:
            for name in PROJECTIONS:
                attn = modules[path]
                addition: Any = layers.get_submodule(f"{path}.{name}")
                owner, own = (attn.to_out, "0") if name == "to_out" else (attn, name)
                self._places.append(_Place(owner, own, addition))
        self._run_ends: RemovableHandle | None = None

    @property
    def fused(self) -> int:
        """How many projections hold sums at the moment."""
        return sum(place.stock is not None for place in self._places)

    def check(self, kind: str) -> None:
        """See that all projections are those that the attentions compute by; follow them where they were exchanged.

        Layers of other LoRAs come between and go away with them: these additions are to what is there at the moment.

        Args:
            kind: of the adapter, for the message.

        Raises:
            Refused: an attention does not compute by its projections.
        """
        check_projections(self._modules, kind=kind)
        for place in self._places:
            if not place.there:
                place.off()
                place.hook.remove()
                place.take()
                self._asked = None

    def set(self, strength: float, *, fuse: bool, last: bool = False) -> None:
        """Apply the additions with this strength, 0 for not at all.

        Args:
            strength: factor of BA.
            fuse: sum them with the weights where that is possible.
            last: the sums are taken out after the call of the UNet that follows.
        """
        self._apply(strength, fuse=fuse)
        # so that what is done to the UNet between two runs is done to its own weights
        if last and self.fused and self._run_ends is None:
            self._run_ends = self._unet.register_forward_hook(self._rest)

    def _apply(self, strength: float, *, fuse: bool) -> None:
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

    def _rest(self, *_: Any) -> None:
        self.off()

    def off(self) -> None:
        """Add nothing to any projection."""
        self._asked = None
        if self._run_ends is not None:
            self._run_ends.remove()
            self._run_ends = None
        for place in self._places:
            place.off()

    def remove(self) -> None:
        """Turn off, and leave the UNet."""
        self.off()
        for place in self._places:
            place.hook.remove()
        self._places = []
