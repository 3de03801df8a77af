"""The multimodal language model of EasyRef: Qwen2-VL whose last layer also reads learned reference tokens (spec A1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import Qwen2VLConfig
from transformers.models.qwen2_vl import modeling_qwen2_vl as library

from refloom.inference.adapters.easyref.qweninputs import FRAMES, MERGE, PATCH, ChatInputs
from refloom.schemas.errors import Refused

FinalAttention = Literal["causal", "bidirectional"]


@dataclass(frozen=True, kw_only=True)
class QwenConfig:
    """What decides the shapes; the defaults are Qwen2-VL-2B's.

    Attributes:
        vocabulary: number of token embeddings.
        width, feed_forward: of the hidden states, and inside a layer.
        layers: in all; the last one is the final layer.
        heads, key_heads: of queries, and of keys and values.
        norm_epsilon: of the RMS norms.
        rope_theta: base of the rotary positions.
        vision_depth, vision_width, vision_heads, vision_expansion: of the vision tower.
    """

    vocabulary: int = 151936
    width: int = 1536
    feed_forward: int = 8960
    layers: int = 28
    heads: int = 12
    key_heads: int = 2
    norm_epsilon: float = 1e-6
    rope_theta: float = 1e6
    vision_depth: int = 32
    vision_width: int = 1280
    vision_heads: int = 16
    vision_expansion: int = 4

    def __post_init__(self) -> None:
        if self.layers < 2:
            raise ValueError(f"layers is 2 or more, a trunk and a final one, not {self.layers}")

    @classmethod
    def of(cls, config: Any) -> "QwenConfig":
        """That of a `Qwen2VLConfig` of transformers."""
        text, vision = config.text_config, config.vision_config
        return cls(
            vocabulary=text.vocab_size,
            width=text.hidden_size,
            feed_forward=text.intermediate_size,
            layers=text.num_hidden_layers,
            heads=text.num_attention_heads,
            key_heads=text.num_key_value_heads,
            norm_epsilon=float(text.rms_norm_eps),
            rope_theta=float(text.rope_parameters["rope_theta"]),
            vision_depth=vision.depth,
            vision_width=vision.embed_dim,
            vision_heads=vision.num_heads,
            vision_expansion=int(vision.mlp_ratio),
        )

    def library(self) -> Any:
        """For transformers, without the final layer. Positions are one line, so that one section holds all of them."""
        config: Any = Qwen2VLConfig(
            text_config={
                "vocab_size": self.vocabulary,
                "hidden_size": self.width,
                "intermediate_size": self.feed_forward,
                "num_hidden_layers": self.layers - 1,
                "num_attention_heads": self.heads,
                "num_key_value_heads": self.key_heads,
                "rms_norm_eps": self.norm_epsilon,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": self.rope_theta,
                    "mrope_section": [self.width // self.heads // 2, 0, 0],
                },
            },
            vision_config={
                "depth": self.vision_depth,
                "embed_dim": self.vision_width,
                "hidden_size": self.width,
                "num_heads": self.vision_heads,
                "mlp_ratio": self.vision_expansion,
                "patch_size": PATCH,
                "spatial_merge_size": MERGE,
                "temporal_patch_size": FRAMES,
            },
        )
        parts: tuple[Any, ...] = (config, config.text_config, config.vision_config)
        for part in parts:
            part._attn_implementation = "sdpa"
        return config


class Rotary(nn.Module):
    """The library's rotary positions without their buffers, which meta devices lose and half precision rounds."""

    def __init__(self, kind: type[nn.Module], config: Any) -> None:
        super().__init__()
        self._kind, self._config = kind, config

    def forward(self, states: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, as the library's module gives them."""
        with torch.device(states.device):
            rotary = self._kind(self._config)
        return rotary(states, positions)  # type: ignore[no-any-return]


class FinalLayer(nn.Module):
    """The last decoder layer, the norm behind it, and the reference tokens that only it reads."""

    def __init__(self, config: Any, tokens: int) -> None:
        super().__init__()
        self.layer = library.Qwen2VLDecoderLayer(config, config.num_hidden_layers - 1)
        self.norm = library.Qwen2VLRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.reference_tokens = nn.Parameter(0.1 * torch.randn(tokens, config.hidden_size))


class ReferenceReader(nn.Module):
    """Pictures and a prompt in, N states that sum up the pictures out.

    The trunk is the vision tower, the embeddings and all layers but the last, with the final norm still applied, which
    the published weights expect. Positions count the tokens of a row in one line, pictures included, as in the
    published model; padding has no effect.

    Args:
        config: of the language model.
        tokens: N.
        attention: of the final layer. Published weights are `causal`, whatever their code intends (spec A1.3).
    """

    def __init__(self, config: QwenConfig, *, tokens: int, attention: FinalAttention = "causal") -> None:
        super().__init__()
        if attention not in get_args(FinalAttention):
            raise ValueError(f"final_attention is one of {', '.join(get_args(FinalAttention))}, not {attention!r}")
        self.attention = attention
        whole: Any = config.library()
        self.visual = library.Qwen2VisionTransformerPretrainedModel(whole.vision_config)
        self.visual.register_module("rotary_pos_emb", Rotary(library.Qwen2VLVisionRotaryEmbedding, whole.vision_config))
        self.trunk = library.Qwen2VLTextModel(whole.text_config)
        self.trunk.register_module("rotary_emb", Rotary(library.Qwen2VLRotaryEmbedding, whole.text_config))
        self.final = FinalLayer(whole.text_config, tokens)

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self.final.reference_tokens.device

    def see(self, inputs: ChatInputs) -> Tensor:
        """Features of all pictures, each seen alone: (tokens of all pictures, width)."""
        return self.visual(inputs.patches, grid_thw=inputs.grids).pooler_output  # type: ignore[no-any-return]

    def forward(self, inputs: ChatInputs, features: Tensor | None = None) -> Tensor:
        """The states of the reference tokens.

        Args:
            inputs: B rows.
            features: of `see`, if they are at hand.

        Returns:
            (B, N, width).

        Raises:
            Refused: the tokenizer's ids are not this model's.
        """
        inputs = inputs.to(self.device)
        known, highest = self.trunk.config.vocab_size, int(inputs.ids.max())
        if highest >= known:
            raise Refused(f"the tokenizer gives ids up to {highest}, the model knows {known}: it is another model's")
        features = self.see(inputs) if features is None else features
        embedded = self.trunk.embed_tokens(inputs.ids)
        if torch.is_autocast_enabled(embedded.device.type):
            embedded = embedded.float()  # what layers add up stays whole where only their weights are in half
        of_pictures = (inputs.ids == inputs.image_id)[..., None].expand_as(embedded)
        embedded = embedded.masked_scatter(of_pictures, features.to(embedded.dtype))
        tokens = self.final.reference_tokens
        count = len(tokens)
        present = torch.nn.functional.pad(inputs.present, (0, count), value=True)
        # counted from the first token that is there: padding moves nothing
        positions = (present.long().cumsum(dim=1) - 1).clamp_min(0)
        length = inputs.ids.shape[1]
        context = self.trunk(
            inputs_embeds=embedded,
            attention_mask={"full_attention": attention_mask(present[:, :length], causal=True)},
            position_ids=positions[None, :, :length].expand(3, -1, -1),
            use_cache=False,
        ).last_hidden_state
        states = torch.cat([context, tokens.to(context.dtype).expand(len(context), -1, -1)], dim=1)
        states = self.final.layer(
            states,
            attention_mask=attention_mask(present, causal=self.attention == "causal"),
            position_embeddings=self.trunk.rotary_emb(states, positions[None].expand(3, -1, -1)),
        )
        return self.final.norm(states[:, -count:])  # type: ignore[no-any-return]


def attention_mask(present: Tensor, *, causal: bool) -> Tensor:
    """Where tokens may look, written out: the library's flags depend on its version and on padding.

    Args:
        present: (B, L) boolean, False for padding.
        causal: only back.

    Returns:
        (B, 1, L, L) boolean; padding looks at itself, since a row without any key has no softmax.
    """
    length = present.shape[1]
    allowed = present[:, None, None].expand(-1, 1, length, -1)
    if causal:
        allowed = allowed.tril()
    return allowed | torch.eye(length, dtype=torch.bool, device=present.device)


def reader_keys(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The state of a `ReferenceReader`, but for its tokens, from that of transformers' whole model.

    Args:
        tensors: of `Qwen2VLForConditionalGeneration`.
        layers: of the whole model.
    """
    renamed: dict[str, Tensor] = {}
    last = f"model.language_model.layers.{layers - 1}."
    for key, tensor in tensors.items():
        if key.startswith("model.visual."):
            renamed[key.removeprefix("model.")] = tensor
        elif key.startswith(last):
            renamed[f"final.layer.{key.removeprefix(last)}"] = tensor
        elif key.startswith("model.language_model."):
            renamed[f"trunk.{key.removeprefix('model.language_model.')}"] = tensor
            if key == "model.language_model.norm.weight":
                renamed["final.norm.weight"] = tensor
        elif key != "lm_head.weight":
            renamed[key] = tensor
    return renamed
