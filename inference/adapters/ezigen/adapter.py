"""EZIGen (Duan et al. 2024, arXiv 2409.08091): subjects as features of the frozen UNet, with an attention of their own.

It lies between self- and cross-attention (`fuser`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from refloom.inference.adapters.adapter import Adapter
from refloom.inference.adapters.attention import Acting, split_heads
from refloom.inference.adapters.calls import Call, bare
from refloom.inference.adapters.ezigen import loops as transfer
from refloom.inference.adapters.ezigen.fuser import FeatureSlot, Fuser, check_block, lost, no_objects, project
from refloom.inference.adapters.ezigen.referenceunet import (
    ancestral,
    features,
    subject_pixels,
    transformer_blocks,
    vae_latents,
)
from refloom.inference.adapters.reference import Reference
from refloom.inference.adapters.tokens import Rows, rows_of, tree
from refloom.inference.adapters.vision import ClipVision
from refloom.schemas.errors import Refused

_LATENT_CHANNELS = 4
_ARTICLES = ("a ", "an ", "the ")


@dataclass(frozen=True, kw_only=True)
class EZIGenConfig:
    """What decides the shapes of an EZIGen adapter, and what it was trained with.

    Attributes:
        layers: width by path of every transformer block, in the order in which they run: down, middle, up.
        resolution: side in pixels of the squares that subjects are read in.
        subject_timestep: noise level of the subjects, the last of denoising.
    """

    layers: dict[str, int]
    resolution: int = 512
    subject_timestep: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EZIGenConditioning:
    """What the references of one or more prompts became. Q is 1 if all prompts share them, else the number of prompts.

    Attributes:
        features: (Q, N, T, C) by path of the block, of N pictures.
        strengths: (Q, N) fp32 >= 0, factor of the attention that each picture gets; 0 hides it, and padding.
        amount: (Q,) fp32, factor of all that the adapter does; 0 leaves a prompt untouched.
    """

    features: Mapping[str, Tensor]
    strengths: Tensor
    amount: Tensor

    def __post_init__(self) -> None:
        prompts, pictures = self.strengths.shape
        for path, value in self.features.items():
            if value.ndim != 4 or value.shape[:2] != (prompts, pictures):
                raise Refused(f"features of {path} are {tuple(value.shape)}, not ({prompts}, {pictures}, T, C)")
        if self.amount.shape != (prompts,):
            raise Refused(f"amount is {tuple(self.amount.shape)}, not ({prompts},)")


class SubjectAttention(nn.Module):
    """Projections of one attention, named as in the published checkpoint."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])


class SubjectLayer(nn.Module):
    """The adapter's weights in one transformer block, named as in the published checkpoint."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.adapter = SubjectAttention(width)
        self.adapter_norm = nn.LayerNorm(width)


class EZIGen(Adapter):
    """EZIGen on a stock Stable Diffusion 1 or 2 pipeline; spec A.

    References of one prompt are looked at together, with the picture's own states, in one attention. Their `phrase`
    is what the frozen UNet is told of them; places are not read. A reference's `scale` is a factor of the attention
    that it gets; where all are 0, nothing of the method is left.

    With `faithful`, to be set before `encode`, the published code's ways are reproduced: subjects are squashed to
    squares, a phrase is the whole text that the frozen UNet is told, dropped subjects stay as zeros, and what
    `transfer` and `splits` name.

    Attributes:
        in_negative: give the negative half the subjects too, as the method does: guidance then strengthens the text
            alone. Without, and inside `guidance.reference_guidance`, it does not have them.
        image_encoder: CLIP, which judges when pictures stop changing; ViT-B/32 in the method.
    """

    kind = "ezigen"
    reads = frozenset()  # a phrase is told to the frozen UNet and need not be in the prompt
    Config = EZIGenConfig

    def __init__(self, config: EZIGenConfig) -> None:
        super().__init__(config)
        self.layers = tree({path: SubjectLayer(width) for path, width in config.layers.items()})
        self.learnable_weights = nn.Parameter(torch.ones(len(config.layers)))
        self.in_negative = True
        self.image_encoder: ClipVision | None = None
        self._acting = Acting()
        self._slots: dict[str, FeatureSlot] = {}
        self._seats: list[tuple[str, Any, FeatureSlot]] = []  # path, block, slot
        self._bound: tuple[Any, ...] | None = None

    def layer(self, path: str) -> Any:
        """The adapter's weights in the block at this path."""
        return self.layers.get_submodule(path)

    def encode(
        self, references: Sequence[Reference], *, prompt: str | None = None, generator: torch.Generator | None = None
    ) -> EZIGenConditioning:
        """See `Adapter.encode`. The prompt is not read.

        Args:
            references: at least one; all their images are looked at, each with its own phrase.
            prompt: ignored.
            generator: of the VAE's sample and of the noise; None takes the same for every call, so that the same
                pictures are always the same features.
        """
        if not references:
            raise Refused("there are no references: give at least one, or use the pipeline without an adapter")
        pipe = self.pipe
        if getattr(pipe, "vae", None) is None:
            raise Refused("the ezigen adapter is on a UNet alone, without VAE and text encoder: use condition()")
        pictures = [(image, reference) for reference in references for image in reference.images]
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        pixels = subject_pixels([image for image, _ in pictures], self.config.resolution, squash=self.faithful)
        latents = vae_latents(pipe, pixels, generator)
        texts = [subject_text(reference.phrase, verbatim=self.faithful) for _, reference in pictures]
        text_states = pipe.encode_prompt(texts, pipe._execution_device, 1, False)[0]
        strengths = torch.tensor([[reference.scale for _, reference in pictures]])
        return self.condition(latents[None], text_states[None], strengths=strengths, generator=generator)

    def condition(
        self,
        latents: Tensor,
        text_states: Tensor,
        *,
        strengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> EZIGenConditioning:
        """Conditions from what VAE and text encoder made, for training from caches.

        Args:
            latents: (Q, N, 4, h, w), scaled, without noise; N pictures for each of Q prompts.
            text_states: (Q, N, S, context width).
            strengths: (Q, N) >= 0; None for 1. 0 hides a picture, so that prompts may have different numbers.
            generator: of the noise, which is one for all pictures; None takes torch's own.
            noise: (Q, 4, h, w), one for all pictures of each prompt; None draws it.

        Raises:
            Refused: the adapter is inside a generation or on no pipeline, or a strength is below 0.
        """
        if self._generation is not None:
            raise Refused("the ezigen adapter cannot read references inside a generation: encode them before")
        site = self._attached_site()
        strengths = torch.ones(latents.shape[:2]) if strengths is None else strengths.float().cpu()
        if bool((strengths < 0).any()):
            raise Refused("a reference's scale is the share of attention that it gets here: 0 or more")
        if noise is None:
            device = generator.device if generator is not None else latents.device
            noise = torch.randn(latents[:1, 0].shape, generator=generator, device=device, dtype=latents.dtype)
        timestep = torch.tensor([self.config.subject_timestep], device=latents.device)
        flat, noise = latents.flatten(0, 1), noise[:, None].to(latents).expand_as(latents).flatten(0, 1)
        schedule = ancestral(getattr(site.pipe, "scheduler", None))
        noisy = schedule.add_noise(flat, noise, timestep.expand(len(flat)))
        seen = features(site.unet, noisy, self.config.subject_timestep, text_states.flatten(0, 1))
        return EZIGenConditioning(
            features={path: value.reshape(*latents.shape[:2], *value.shape[1:]) for path, value in seen.items()},
            strengths=strengths,
            amount=(strengths > 0).any(dim=1).float(),
        )

    def without_subjects(self, conditioning: EZIGenConditioning, which: Tensor) -> EZIGenConditioning:
        """The same conditions, with the subjects of some prompts dropped, as training does; the adapter still acts.

        With `faithful` they become zeros, which attention still sees; otherwise they are not seen at all (spec A.2.2).

        Args:
            conditioning: of Q prompts.
            which: (Q,) boolean.
        """
        if self.faithful:
            kept = {
                path: value.masked_fill(which.to(value.device)[:, None, None, None], 0)
                for path, value in conditioning.features.items()
            }
            return replace(conditioning, features=kept)
        strengths = conditioning.strengths.masked_fill(which.cpu()[:, None], 0)
        return replace(conditioning, strengths=strengths)

    def install(self, unet: Any) -> None:
        """See `Adapter.install`."""
        blocks = transformer_blocks(unet)
        if unet.config.in_channels != _LATENT_CHANNELS:
            raise Refused(f"this UNet takes {unet.config.in_channels} channels, as inpainting does: use a plain base")
        for path in sorted(set(self.config.layers) ^ set(blocks)):
            owner = "the adapter" if path in self.config.layers else "this UNet"
            raise Refused(f"the ezigen adapter is made for another base: only {owner} has a block {path}")
        for path, block in blocks.items():
            width = block.attn1.inner_dim
            if width != self.config.layers[path]:
                raise Refused(
                    f"the ezigen adapter is made for another base: {path} is {width} wide in this UNet, and "
                    f"{self.config.layers[path]} in the adapter"
                )
            if isinstance(getattr(block, "fuser", None), nn.Module):
                raise Refused(f"{path} is GLIGEN's, whose place EZIGen needs: use a base without it")
            if not isinstance(getattr(block, "fuser", Fuser()), Fuser):
                raise Refused(f"{path} has a fuser of another kind, a {type(block.fuser).__name__}: take it off first")
            check_block(path, bare(block))
        for path, block in blocks.items():
            if not hasattr(block, "fuser"):
                block.fuser = Fuser()
            self._slots[path] = FeatureSlot(self._acting, self.layer(path), block.attn1.heads)
            block.fuser.slots.append(self._slots[path])
        bare(unet).position_net = no_objects
        self._seats = [(path, bare(block), self._slots[path]) for path, block in blocks.items()]

    def check(self, unet: Any, *, first: bool) -> None:
        """See `Adapter.check`."""
        for path, block, slot in self._seats:
            fuser = getattr(block, "fuser", None)
            if type(fuser) is not Fuser or slot not in fuser.slots:
                raise Refused(lost(f"{path}.fuser", fuser))
            check_block(path, block)
        if getattr(unet, "position_net", None) is not no_objects:
            raise Refused(lost("the UNet's position_net", getattr(unet, "position_net", None)))

    def uninstall(self, unet: Any) -> None:
        """See `Adapter.uninstall`. What others have put in place of the adapter's stays."""
        base, left = bare(unet), False
        for _, block, slot in self._seats:
            fuser = getattr(block, "fuser", None)
            if isinstance(fuser, Fuser):
                fuser.slots = [other for other in fuser.slots if other is not slot]
                if not fuser.slots:
                    del block.fuser
                left = left or bool(fuser.slots)
        if not left and getattr(base, "position_net", None) is no_objects:
            del base.position_net
        self._slots, self._seats = {}, []
        self.after()

    def before(self, call: Call, conditioning: EZIGenConditioning, *, acts: bool) -> None:
        """See `Adapter.before`. Subject keys and values are computed in the first step that acts, and on changes."""
        self._acting.acts = acts and bool(conditioning.amount.any())
        if not self._acting.acts:
            return
        # an entry that is there makes the blocks call their fusers
        call.kwargs["cross_attention_kwargs"] = {**(call.kwargs.get("cross_attention_kwargs") or {}), "gligen": {}}
        layout = (call.rows, call.halves, call.device, call.dtype, self.scale, self.in_negative)
        # while training every step has weights of its own, and its own graph
        if layout != self._bound or torch.is_grad_enabled():
            self._bind(call, conditioning)
            self._bound = layout

    def after(self) -> None:
        """See `Adapter.after`."""
        self._acting.acts, self._bound = False, None
        for slot in self._slots.values():
            slot.clear()

    def _bind(self, call: Call, conditioning: EZIGenConditioning) -> None:
        if self.learnable_weights.device != call.device:
            raise Refused(
                f"the ezigen adapter is on {self.learnable_weights.device}, the latents are on {call.device}: move it "
                "with adapter.to(device)"
            )
        prompts = len(conditioning.strengths)
        # where the references are guided by themselves, the negative half is what neither they nor the text touch
        rows = rows_of(call, prompts, positive_only=not self.in_negative or "references" in call.halves)
        self._acting.start = rows.start
        amount = rows.pick(conditioning.amount)[:, None, None] * self.scale
        changed = bool((amount != 1).any())  # before it moves: a GPU would have to be waited for
        amount = amount.to(call.device)
        plain = bool((conditioning.strengths == 1).all())
        for at, (path, slot) in enumerate(self._slots.items()):
            seen = conditioning.features[path].to(call.device)
            weighted = (seen * self.learnable_weights[at].to(seen.dtype)).flatten(1, 2).to(call.dtype)
            key, value = project(slot.layer.adapter.to_k, weighted), project(slot.layer.adapter.to_v, weighted)
            slot.key, slot.value = (_laid(rows, split_heads(states, slot.heads)) for states in (key, value))
            slot.amount = amount if changed else None
            slot.bias = None
            if not plain:
                strengths = rows.pick(conditioning.strengths).repeat_interleave(seen.shape[2], dim=1)
                slot.bias = strengths.log()[:, None, None].to(call.device)

    @torch.no_grad()
    def start_from_self_attention(self, unet: Any) -> None:
        """Set all weights to the blocks' own self-attention and norm, which is how training starts (spec A.1.4)."""
        for path, block in transformer_blocks(unet).items():
            layer = self.layer(path)
            layer.adapter.load_state_dict(block.attn1.state_dict())
            layer.adapter_norm.load_state_dict(block.norm1.state_dict())
        self.learnable_weights.fill_(1)

    generate = transfer.generate
    edit = transfer.edit


def config_values(unet: Any) -> dict[str, Any]:
    """What a config takes from the UNet that an adapter is made for."""
    return {"layers": {path: block.attn1.inner_dim for path, block in transformer_blocks(unet).items()}}


def subject_text(phrase: str | None, *, verbatim: bool = False) -> str:
    """What the frozen UNet is told of a subject, in training and after it (spec A.2.4).

    Args:
        phrase: its name.
        verbatim: the phrase is the text, as the published script's `--subject_prompt` (spec A.4.4).
    """
    if not phrase or verbatim:
        return phrase or ""
    return f"a photo of {phrase}." if phrase.lower().startswith(_ARTICLES) else f"a photo of a {phrase}."


def _laid(rows: Rows, values: Tensor) -> Tensor:
    """What each row has of values per prompt; a view where all prompts share them, because these are large."""
    return values.expand(len(rows.prompt), *values.shape[1:]) if len(values) == 1 else rows.pick(values)
