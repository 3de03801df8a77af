"""MS-Diffusion (Wang et al. 2024, arXiv 2406.07209): several references, each in its place; spec part B."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from refloom.inference.adapters import layout, merge, phrases
from refloom.inference.adapters.calls import UNGUIDED, Call, Half, bare, pipeline_halves, row_index
from refloom.inference.adapters.counts import for_each
from refloom.inference.adapters.ip_adapter.heads import strengths
from refloom.inference.adapters.ms_diffusion.conditioning import Known, MSDiffusionConditioning, fine_masks
from refloom.inference.adapters.ms_diffusion.grounding import GroundingResampler
from refloom.inference.adapters.ms_diffusion.slot import LayoutActing, MaskedSlot
from refloom.inference.adapters.reference import FULL_PICTURE, Box, Pixels, Reference
from refloom.inference.adapters.tokens import TokenAdapter, TokenConditioning, TokenSlot, layers_of, rows_of, stack
from refloom.inference.adapters.vision import ClipVision, clip_pixels
from refloom.schemas.errors import Refused

_SQUASH = 512
"""Side that references are resized to before CLIP sees them, whatever their aspect."""

_CONTEXT = 77


@dataclass(frozen=True, kw_only=True)
class MSDiffusionConfig:
    """What decides the shapes; the defaults are the published model's.

    Attributes:
        context_width: of the UNet's text states.
        layers: width by path of every cross-attention, in the UNet's order.
        image_width: of the image encoder's hidden states.
        phrase_width: of the first text encoder's pooled state.
        tokens: of a reference.
        width, depth, heads, head_width, expansion: of the grounding resampler.
        dummy_tokens: of the published file; they change nothing.
    """

    context_width: int
    layers: dict[str, int]
    image_width: int = 1664
    phrase_width: int = 768
    tokens: int = 16
    width: int = 1280
    depth: int = 4
    heads: int = 20
    head_width: int = 64
    expansion: int = 4
    dummy_tokens: int = 4


class MSDiffusion(TokenAdapter):
    """MS-Diffusion on a stock pipeline.

    The negative half is never conditioned, as in the method, so guidance strengthens references with the text.
    A reference without a place may act anywhere, and its phrase and box give way to the learned null latents.

    With `faithful`, to be set before `encode`, the defects of the published code are back (spec B.6): such a reference
    keeps its phrase, with a box of zeros, and does not act until pseudo-masks take over; boxes and what is computed of
    them are in fp16; phrases are found by `phrases.published_spans`, and one that is not found is nowhere; auto layout
    once used goes on, with its maps, where a later run sets no threshold; ControlNets see the tokens as if they were
    text.

    Attributes:
        image_proj: the grounding resampler.
        image_encoder: what reads the references, ViT-bigG/14; None takes the pipeline's own.
        mask_threshold: None for the given places alone. A number in 0..1, 0.5 recommended, for auto layout: from
            `start_step` on, the places are where the text attention of each layer looks for the phrases.
        start_step: the first step, counted from 1, whose own maps are followed.
    """

    kind = "ms_diffusion"
    Config = MSDiffusionConfig

    def __init__(self, config: MSDiffusionConfig) -> None:
        super().__init__(config)
        self._acting: LayoutActing = LayoutActing()
        self.image_proj = GroundingResampler(
            image_width=config.image_width,
            phrase_width=config.phrase_width,
            context_width=config.context_width,
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            head_width=config.head_width,
            tokens=config.tokens,
            expansion=config.expansion,
        )
        self.dummy_image_tokens: Tensor
        self.register_buffer("dummy_image_tokens", torch.randn(1, config.dummy_tokens, config.context_width))
        self.image_encoder: ClipVision | None = None
        self.mask_threshold: float | None = None
        self.start_step = 5
        self._recorded = 0
        self._last_layout: tuple[float, int] | None = None

    def make_slot(self, attn: Any, layer: Any) -> TokenSlot:
        """See `TokenAdapter.make_slot`."""
        return MaskedSlot(self._acting, layer, attn.heads)

    @classmethod
    def judge(cls, references: Sequence[Reference], prompts: Sequence[str], settings: Mapping[str, Any]) -> None:
        """See `Adapter.judge`; auto layout looks for the phrases in each prompt."""
        named = _phrases_of(references)
        if settings.get("mask_threshold") is None or settings.get("faithful"):
            return
        for prompt in prompts:
            for name, place in zip(named, phrases.places(prompt, named), strict=True):
                if place is None:
                    raise _not_in(prompt, name)

    def encode(
        self,
        references: Sequence[Reference],
        *,
        prompt: str | None = None,
        drop_grounding_tokens: bool | Sequence[bool] = False,
        drop_images: bool | Sequence[bool] = False,
        known: Known | None = None,
    ) -> MSDiffusionConditioning:
        """See `Adapter.encode`.

        Args:
            references: with phrases, and with boxes or masks where they have a place.
            prompt: needed for auto layout; it must contain the phrases.
            drop_grounding_tokens: null latents in place of phrases and boxes, for all or each. Places are still kept
                to.
            drop_images: zero pixels in place of pictures, for all or each, as training does.
            known: what the frozen models make of pictures and phrases, where that was computed before.

        Raises:
            Refused: no references, one without a phrase, or a phrase that is not in the prompt.
        """
        if not references:
            raise Refused("there are no references: give at least one, or use the pipeline without an adapter")
        dropped = _flags(drop_images, len(references), "drop_images")
        if known is None:
            features, counts = self._features(references, dropped)
            pooled = self.pooled_phrases(references)
        else:
            counts = [len(one) for one in known.features]
            blanked = [
                known.blank.expand_as(one) if drop else one
                for one, drop in zip(known.features, dropped.tolist(), strict=True)
            ]
            features, pooled = torch.cat(blanked), known.pooled
        of_image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        weight = self.image_proj.proj_in.weight
        hulls = torch.tensor([reference.hull or (0.0,) * 4 for reference in references])
        placed = torch.tensor([self.faithful or reference.hull is not None for reference in references])
        grounded = placed & ~_flags(drop_grounding_tokens, len(counts), "drop_grounding_tokens")
        queries = self.image_proj.queries(
            pooled.to(weight.device, weight.dtype),
            self._rounded(hulls).to(weight.device),
            grounded.to(weight.device),
        )
        tokens = self.image_proj(features.to(weight.device, weight.dtype), queries[of_image.to(weight.device)])
        scales, present = strengths(references)
        return MSDiffusionConditioning(
            tokens=torch.stack([subject.mean(dim=0) for subject in torch.split(tokens, counts)])[None],
            negative_tokens=None,
            strengths=scales,
            present=present,
            boxes=self._rounded(self._places(references))[None],
            masks=fine_masks(references)[None],
            spans=None if prompt is None else self.spans(prompt, references)[None],
        )

    def for_prompts(
        self, conditioning: MSDiffusionConditioning, references: Sequence[Reference], prompts: Sequence[str]
    ) -> MSDiffusionConditioning:
        """See `Adapter.for_prompts`; auto layout looks for the phrases in each prompt."""
        if self.mask_threshold is None:
            return conditioning
        return stack([replace(conditioning, spans=self.spans(prompt, references)[None]) for prompt in prompts])

    def vision(self) -> ClipVision:
        """The image encoder, checked against the resampler.

        Raises:
            Refused: there is none, or it is another one than the resampler was trained with.
        """
        vision = self.image_encoder
        if vision is None:
            model = getattr(self.pipe, "image_encoder", None)
            if model is None:
                raise Refused("MS-Diffusion reads references with CLIP: set adapter.image_encoder = ClipVision(model)")
            vision = ClipVision(model)
        vision.check("MS-Diffusion", self.config.image_width, pooled=False)
        return vision

    def _features(self, references: Sequence[Reference], dropped: Tensor) -> tuple[Tensor, list[int]]:
        """Image features of all pictures, zero pixels in place of those of dropped references; and how many of each."""
        vision = self.vision()
        counts = [len(reference.images) for reference in references]
        pixels = reference_pixels([image for reference in references for image in reference.images], vision)
        pixels[torch.repeat_interleave(dropped, torch.tensor(counts))] = 0
        return vision.patches(pixels), counts

    def pooled_phrases(self, references: Sequence[Reference]) -> Tensor:
        """The first text encoder's pooled state of each phrase, (K, phrase width).

        Raises:
            Refused: a reference has no phrase.
        """
        return pooled_texts(self.pipe, _phrases_of(references))

    def spans(self, prompt: str, references: Sequence[Reference]) -> Tensor:
        """Weights (K, 77) of each phrase's tokens in the prompt, for `merge.phrase_maps`.

        Raises:
            Refused: the prompt does not contain a phrase.
        """
        named = [reference.phrase or "" for reference in references]
        weights = torch.zeros(len(named), _CONTEXT)
        for row, name, span in zip(weights, named, self.phrase_spans(prompt, named), strict=True):
            if span is None and self.faithful:
                continue
            if span is None:
                raise _not_in(prompt, name)
            row[span[0] : span[1]] = 1 / max(span[1] - span[0], 1)
        return weights

    def phrase_spans(self, prompt: str, named: Sequence[str]) -> list[phrases.Span | None]:
        """See `Adapter.phrase_spans`."""
        if not self.faithful:
            return super().phrase_spans(prompt, named)
        found = phrases.published_spans(self.pipe.tokenizer, prompt, named)
        return [span if span != phrases.NOWHERE and span[0] < _CONTEXT else None for span in found]

    @contextmanager
    def generation(
        self, conditioning: Any, *, pipe: Any = None, halves: tuple[Half, ...] | None = None
    ) -> Iterator[None]:
        """See `Adapter.generation`."""
        with super().generation(conditioning, pipe=pipe, halves=halves):
            hooks = self._lead_controlnets(pipe or self.pipe, conditioning) if self.faithful else []
            try:
                yield
            finally:
                for hook in hooks:
                    hook.remove()

    def before(self, call: Call, conditioning: TokenConditioning, *, acts: bool) -> None:
        """See `Adapter.before`."""
        if call.step == 0 and (self.mask_threshold is not None or not self.faithful):
            self.reset_layout()
        super().before(call, conditioning, acts=acts)
        auto = self._auto_layout()
        if acts and auto is not None:
            self._acting.maps = self._acting.maps + 1
            self._recorded += 1
            self._acting.follows = self._recorded >= auto[1]

    def uninstall(self, unet: Any) -> None:
        """See `Adapter.uninstall`."""
        super().uninstall(unet)
        self._last_layout = None
        self.reset_layout()

    def reset_layout(self) -> None:
        """Forget where the text attention looked; done by itself at the start of every run, unless `faithful`."""
        self._recorded = 0
        self._acting.maps, self._acting.follows = torch.zeros(()), False
        for slot in self._slots.values():
            slot.maps = None

    def after(self) -> None:
        """See `Adapter.after`."""
        super().after()
        if not self.faithful:
            self.reset_layout()
        self._acting.allowances, self._acting.spans = {}, None

    def bind(self, call: Call, conditioning: TokenConditioning) -> None:
        """See `TokenAdapter.bind`."""
        if not isinstance(conditioning, MSDiffusionConditioning):
            raise Refused("MS-Diffusion needs conditions with places: use what its own encode returns")
        super().bind(call, conditioning)
        acting = self._acting
        rows = rows_of(call, len(conditioning.tokens), positive_only=True)
        acting.spans, self._last_layout = None, self._auto_layout()
        if self._last_layout is not None:
            if conditioning.spans is None:
                raise Refused("auto layout finds phrases in the prompt: encode(references, prompt=...)")
            acting.spans, acting.threshold = rows.pick(conditioning.spans).to(call.device), self._last_layout[0]
        acting.allowances = {}
        grids = layout.grids(call.size)
        for path, slot in self._slots.items():
            level = layout.level_of(path, len(bare(self._attached_site().unet).down_blocks))
            slot.tokens = None if level is None else list(grids)[min(level, len(grids) - 1)]
        for tokens, grid in grids.items():
            masks = layout.box_masks(conditioning.boxes, grid).any(dim=2)
            masks = (masks | layout.picture_masks(conditioning.masks, grid)) & conditioning.present[..., None]
            acting.allowances[tokens] = merge.allowance(rows.pick(masks).to(call.device), self.config.tokens)

    def _auto_layout(self) -> tuple[float, int] | None:
        """Threshold and start step; None for the given places alone."""
        if self.mask_threshold is not None:
            return self.mask_threshold, self.start_step
        return self._last_layout if self.faithful else None

    def _lead_controlnets(self, pipe: Any, conditioning: MSDiffusionConditioning) -> list[RemovableHandle]:
        """Hooks that append the tokens to the text of ControlNets, zeros in the negative half."""
        controlnet = getattr(pipe, "controlnet", None)
        if controlnet is None:
            return []
        dummy = self.dummy_image_tokens.expand(len(conditioning.tokens), -1, -1)
        tokens = torch.cat([dummy, conditioning.tokens.flatten(1, 2).to(dummy)], dim=1)

        def append(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
            if self.scale == 0:
                return None
            states = kwargs["encoder_hidden_states"]
            halves = UNGUIDED if kwargs.get("guess_mode") else pipeline_halves(pipe)
            of_half, of_prompt = row_index(len(states), halves, len(tokens))
            appended = tokens[of_prompt].to(states)
            appended[: of_half.index(1) if "negative" in halves else 0] = 0
            return args, kwargs | {"encoder_hidden_states": torch.cat([states, appended], dim=1)}

        nets = getattr(controlnet, "nets", [controlnet])
        return [net.register_forward_pre_hook(append, with_kwargs=True) for net in nets]

    def _places(self, references: Sequence[Reference]) -> Tensor:
        """(K, M, 4), boxes of zeros as padding; the whole picture where a reference may be anywhere."""
        anywhere: tuple[Box, ...] = () if self.faithful else (FULL_PICTURE,)
        places = [reference.boxes or (() if reference.mask is not None else anywhere) for reference in references]
        padded = torch.zeros(len(places), max(1, *map(len, places)), 4)
        for row, boxes in zip(padded, places, strict=True):
            for at, box in enumerate(boxes):
                row[at] = torch.tensor(box)
        return padded

    def _rounded(self, boxes: Tensor) -> Tensor:
        return boxes.half() if self.faithful else boxes


@torch.no_grad()
def pooled_texts(pipe: Any, texts: Sequence[str]) -> Tensor:
    """The first text encoder's pooled state of K texts, (K, phrase width)."""
    tokenizer, encoder = pipe.tokenizer, pipe.text_encoder
    ids = tokenizer(
        list(texts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    device = getattr(pipe, "_execution_device", encoder.device)
    return encoder(ids.to(device)).pooler_output  # type: ignore[no-any-return]


def reference_pixels(images: Sequence[Pixels], vision: ClipVision) -> Tensor:
    """Pictures as the image encoder gets them, (B, 3, side, side): squashed to a square first."""
    return clip_pixels(images, vision.side, squash=_SQUASH)


def config_values(unet: Any) -> dict[str, Any]:
    """What a config takes from the UNet that an adapter is made for."""
    return {"context_width": int(unet.config.cross_attention_dim), "layers": layers_of(unet)}


def _flags(given: bool | Sequence[bool], count: int, name: str) -> Tensor:
    """(count,) boolean; one for all is one for each."""
    return torch.tensor(for_each(given, count, f"{name} flag", "reference"))


def _phrases_of(references: Sequence[Reference]) -> list[str]:
    named = [reference.phrase or "" for reference in references]
    if not all(named):
        raise Refused("MS-Diffusion asks the image for its phrase: give each reference one, such as 'dog'")
    return named


def _not_in(prompt: str, name: str) -> Refused:
    return Refused(
        f"auto layout looks for {name!r}, which the prompt {prompt!r} does not contain as often as there are "
        "references of that name: use its words, or leave mask_threshold out and give boxes"
    )
