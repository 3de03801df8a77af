"""EasyRef (Zong et al. 2024, arXiv 2412.09618): a language model reads a group of references; spec part A."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn

from refloom.inference.adapters.attention import attentions
from refloom.inference.adapters.calls import Call, Half
from refloom.inference.adapters.easyref.qwen import QwenConfig, ReferenceReader, reader_keys
from refloom.inference.adapters.easyref.qweninputs import ChatInputs, chat_inputs, check_aspect
from refloom.inference.adapters.ip_adapter.adapter import JointSlot
from refloom.inference.adapters.lora import LowRankSwitch, low_rank_layers
from refloom.inference.adapters.reference import Pixels, Reference
from refloom.inference.adapters.tokens import TokenAdapter, TokenConditioning, TokenSlot, layers_of
from refloom.inference.checkpoints.modelfolder import TOKENIZER_ERRORS, without_tokenizer
from refloom.inference.checkpoints.weights import load_strict
from refloom.schemas.errors import Refused

Combine = Literal["joint", "concatenate", "average"]

TOKENIZER_FOLDER = "tokenizer"

BLACK_SIDE = 512
"""Of the picture that stands for no reference."""


@dataclass(frozen=True, kw_only=True)
class EasyRefConfig:
    """What decides the shapes; the defaults are the published model's.

    Attributes:
        context_width: of the UNet's text states.
        layers: width by path of every cross-attention, in the UNet's order.
        self_layers: width by path of every self-attention, which only the LoRA needs.
        qwen: the language model.
        tokens: that the references become.
        lora_rank: 0 for none, as after the first training stage.
        side: of the square that a square reference becomes before it is read, in pixels.
        final_attention: of the final layer, `causal` or `bidirectional`. Published weights are causal (spec A1.3).
        combine: the references `joint` in one reading; or each read alone, and their tokens side by side
            (`concatenate`) or averaged by their scales (`average`), which are the paper's comparisons.
    """

    context_width: int
    layers: dict[str, int]
    self_layers: dict[str, int] = field(default_factory=dict)
    qwen: QwenConfig = field(default_factory=QwenConfig)
    tokens: int = 64
    lora_rank: int = 128
    side: int = 336
    final_attention: str = "causal"
    combine: str = "joint"

    def __post_init__(self) -> None:
        if self.combine not in get_args(Combine):
            raise ValueError(f"combine is one of {', '.join(get_args(Combine))}, not {self.combine!r}")
        if self.lora_rank and not self.self_layers:
            raise ValueError("a LoRA needs self_layers: give those of `config_values`, or lora_rank=0")


@dataclass(frozen=True, slots=True, kw_only=True)
class EasyRefConditioning(TokenConditioning):
    """As `TokenConditioning`, K being 1 unless references are concatenated.

    Attributes:
        promptless_tokens: of the same references read without the prompt, for `guidance.reference_guidance`; None if
            they were not made.
    """

    promptless_tokens: Tensor | None


class Projector(nn.Module):
    """States of the language model to tokens of the UNet's context."""

    def __init__(self, width: int, context_width: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, context_width), nn.LayerNorm(context_width)
        )

    def forward(self, states: Tensor) -> Tensor:
        """(B, N, width) to (B, N, context width)."""
        return self.proj(states)  # type: ignore[no-any-return]


class EasyRef(TokenAdapter):
    """EasyRef on a stock pipeline. It starts in evaluation mode, in which `encode` keeps no gradients.

    Three things belong to it: the reader, which makes tokens of all references at once; image keys and values; and a
    LoRA on every attention of the UNet. `scale` is the strength of the last two together. With `faithful` it is that of
    the tokens alone, so that even at 0 the LoRA acts in every generation, as in the published code.

    Attributes:
        reader: the language model.
        image_proj: from its states to tokens.
        lora: the UNet's LoRA, absent with rank 0.
        tokenizer: of Qwen2-VL; saved and read with the weights.
        lora_scale: factor of the LoRA beside `scale`.
        fuse_lora: sum the LoRA with the UNet's weights during a generation; that needs memory for a second copy of the
            attentions, about 1.9 GB in half precision. While gradients are kept it is live anyway.
        promptless: make the tokens that `guidance.reference_guidance` needs, too; set it before `encode`.
        limit: most tokens of a reading; None for no limit. Training stages 1 and 2 were published with 256.
    """

    kind = "easyref"
    reads = frozenset({"prompt"})
    Config = EasyRefConfig

    def __init__(self, config: EasyRefConfig) -> None:
        super().__init__(config)
        self.reader = ReferenceReader(config.qwen, tokens=config.tokens, attention=config.final_attention)  # type: ignore[arg-type]
        self.image_proj = Projector(config.qwen.width, config.context_width)
        if config.lora_rank:
            contexts = dict.fromkeys(config.layers, config.context_width)
            self.lora = low_rank_layers(self.lora_widths, contexts, config.lora_rank)
        self.tokenizer: Any = None
        self.lora_scale = 1.0
        self.fuse_lora = True
        self.promptless = False
        self.limit: int | None = None
        self._switch: LowRankSwitch | None = None
        self._null: tuple[tuple[Any, ...], Tensor] | None = None
        self.eval()

    @property
    def lora_widths(self) -> dict[str, int]:
        """Width by path of every attention that has a LoRA."""
        return {**self.config.self_layers, **self.config.layers} if self.config.lora_rank else {}

    def start_from_model(self, model: Any, unet: Any, tokenizer: Any) -> None:
        """Take the weights that training starts with (spec A1.1).

        Args:
            model: transformers' `Qwen2VLForConditionalGeneration`; its weights are copied.
            unet: whose text keys and values are copied.
            tokenizer: of the model.
        """
        tensors = reader_keys(model.state_dict(), self.config.qwen.layers)
        tensors["final.reference_tokens"] = self.reader.final.reference_tokens.detach()
        load_strict(self.reader, tensors, "the language model", "only Qwen2-VL fits")
        self.start_from_text(unet)
        self.tokenizer = tokenizer

    def make_slot(self, attn: Any, layer: Any) -> TokenSlot:
        """See `TokenAdapter.make_slot`."""
        return JointSlot(self._acting, layer, attn.heads)

    def install(self, unet: Any) -> None:
        """See `Adapter.install`."""
        super().install(unet)
        if self.config.lora_rank:
            try:
                self._switch = LowRankSwitch(unet, self.lora, self.lora_widths)
            except Refused:
                super().uninstall(unet)
                raise

    def check(self, unet: Any, *, first: bool) -> None:
        """See `Adapter.check`."""
        super().check(unet, first=first)
        if self._switch is not None and first:
            self._switch.check(f"the {self.kind} adapter")

    def uninstall(self, unet: Any) -> None:
        """See `Adapter.uninstall`."""
        if self._switch is not None:
            self._switch.remove()
            self._switch = None
        super().uninstall(unet)

    def inputs(self, rows: Sequence[tuple[Sequence[Pixels], str]]) -> ChatInputs:
        """What the reader takes: pictures and the prompt of each row. It can be made by workers that hold no weights.

        Raises:
            Refused: there is no tokenizer, or see `chat_inputs`.
        """
        if self.tokenizer is None:
            raise Refused(
                "the easyref adapter has no tokenizer: set adapter.tokenizer = AutoTokenizer.from_pretrained(...) of "
                "Qwen2-VL"
            )
        return chat_inputs(rows, self.tokenizer, side=self.config.side, limit=self.limit, faithful=self.faithful)

    def tokens(self, inputs: ChatInputs) -> Tensor:
        """Reference tokens of each row, with gradients where they are wanted: (B, N, context width)."""
        states = self.reader(inputs)
        return self.image_proj(states.to(self.image_proj.proj[0].weight.dtype))  # type: ignore[no-any-return]

    @classmethod
    def judge(cls, references: Sequence[Reference], prompts: Sequence[str], settings: Mapping[str, Any]) -> None:
        """See `Adapter.judge`; thin pictures are none for the language model."""
        for reference in _with_strength(references):
            for image in reference.images if reference.crop is None else ():
                check_aspect(*image.shape[:2])

    def encode(self, references: Sequence[Reference], *, prompt: str | None = None) -> EasyRefConditioning:
        """See `Adapter.encode`; `tokens.stack` makes a batch. Phrases and places are not read.

        The prompt is read after the references, so tokens belong to it; None reads the instruction alone. The order of
        references matters a little, as words of a text do. Those of scale 0 are left out; other joint ones cannot
        differ in scale, being one reading.

        Raises:
            Refused: no references, all have scale 0, or joint ones differ in scale.
        """
        if not references:
            raise Refused("there are no references: give at least one, or use the pipeline without an adapter")
        given = _with_strength(references)
        scales = torch.tensor([[reference.scale for reference in given]])
        if self.config.combine == "joint" and bool((scales != scales[0, 0]).any()):
            raise Refused(
                f"joint references have one scale, not {scales[0].tolist()}: EasyRef reads them at once; with "
                "combine='concatenate' each is read alone and has its own"
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.training):
            tokens = self._read(given, scales, prompt or "")
            promptless = self._read(given, scales, "") if self.promptless and prompt else None
            null = self.null_tokens()
        if self.config.combine != "concatenate":
            scales = scales.mean(dim=1, keepdim=True)
        return EasyRefConditioning(
            tokens=tokens,
            negative_tokens=null[None].expand_as(tokens),
            strengths=scales,
            present=torch.ones_like(scales, dtype=torch.bool),
            promptless_tokens=tokens if not prompt else promptless,
        )

    def _read(self, references: Sequence[Reference], scales: Tensor, prompt: str) -> Tensor:
        """(1, K, N, context width) for the way that references are combined."""
        images = [reference.images for reference in references]
        if self.config.combine == "joint":
            images = [tuple(image for pictures in images for image in pictures)]
        tokens = self.tokens(self.inputs([(pictures, prompt) for pictures in images]))[None]
        if self.config.combine == "average":
            weight = (scales / scales.sum()).to(tokens)
            tokens = (tokens * weight[..., None, None]).sum(dim=1, keepdim=True)
        return tokens

    def null_tokens(self) -> Tensor:
        """Tokens of no reference, (1, N, context width): of a black picture with the instruction alone.

        They are computed once for the weights as they are, and again when these change or have gradients.
        """
        weights = [*self.reader.parameters(), *self.image_proj.parameters()]
        state = (self.limit, self.faithful, *map(_state, weights))
        if torch.is_grad_enabled() or self._null is None or self._null[0] != state:
            black = np.zeros((BLACK_SIDE, BLACK_SIDE, 3), np.uint8)
            tokens = self.tokens(self.inputs([((black,), "")]))
            if torch.is_grad_enabled():
                return tokens
            self._null = state, tokens
        return self._null[1]

    def variants(self, conditioning: TokenConditioning) -> dict[Half, Tensor]:
        """See `TokenAdapter.variants`; references without the text are those read without the prompt."""
        if not isinstance(conditioning, EasyRefConditioning):
            raise Refused("EasyRef needs conditions of its own: use what its encode returns")
        variants = super().variants(conditioning)
        if conditioning.promptless_tokens is not None:
            variants["references"] = conditioning.promptless_tokens
        return variants

    def before(self, call: Call, conditioning: TokenConditioning, *, acts: bool) -> None:
        """See `Adapter.before`."""
        if "references" in call.halves and acts and "references" not in self.variants(conditioning):
            raise Refused(
                "reference guidance needs the references read without the prompt: set adapter.promptless = True and "
                "encode them again"
            )
        super().before(call, conditioning, acts=acts)
        if self._switch is None:
            return
        if self.faithful:
            strength = self.lora_scale if call.step in self.window.resolve(call.steps) else 0.0
        else:
            strength = self.lora_scale * self.scale if acts else 0.0
        last = call.steps is not None and call.step == call.steps - 1
        self._switch.set(strength, fuse=self.fuse_lora and not torch.is_grad_enabled(), last=last)

    def after(self) -> None:
        """See `Adapter.after`."""
        super().after()
        if self._switch is not None:
            self._switch.off()

    def save_pretrained(self, folder: str | Path, *, frozen: Path | None = None) -> None:
        """See `Adapter.save_pretrained`; the tokenizer is in a folder of its own."""
        super().save_pretrained(folder, frozen=frozen)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(Path(folder) / TOKENIZER_FOLDER)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, dtype: torch.dtype | None = None) -> Self:
        """See `Adapter.from_pretrained`."""
        adapter = super().from_pretrained(folder, dtype=dtype)
        tokenizer = Path(folder) / TOKENIZER_FOLDER
        if tokenizer.is_dir():
            from transformers import AutoTokenizer

            try:
                adapter.tokenizer = AutoTokenizer.from_pretrained(
                    tokenizer, local_files_only=True, trust_remote_code=False
                )
            except TOKENIZER_ERRORS as error:
                why = without_tokenizer(tokenizer)
                raise Refused(f"the tokenizer {tokenizer} of the adapter cannot be loaded: {why}") from error
        return adapter


def _state(weight: Tensor) -> tuple[Any, ...]:
    """Another one when the weight has another value."""
    version = 0 if weight.is_inference() else weight._version
    return weight.data_ptr(), version, weight.device, weight.dtype


def config_values(unet: Any) -> dict[str, Any]:
    """What a config takes from the UNet that an adapter is made for."""
    cross = layers_of(unet)
    return {
        "context_width": int(unet.config.cross_attention_dim),
        "layers": cross,
        "self_layers": {path: attn.inner_dim for path, attn in attentions(unet).items() if path not in cross},
    }


def _with_strength(references: Sequence[Reference]) -> list[Reference]:
    given = [reference for reference in references if reference.scale]
    if not given:
        raise Refused("all references have scale 0: set adapter.scale = 0, or use the pipeline without an adapter")
    return given
