"""Folders of weights in the true formats: each loader's own architecture, tiny and random.

Model libraries are imported where one is built: a test of one loader does not pay for the others.
"""

import json
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from refloom.inference.models import registry
from refloom.inference.models.entry import WEIGHTS_VARIABLE, Entry

if TYPE_CHECKING:
    import pytest

SAM = registry.by_name("segmenter", "sam_vit_b")
FACES = registry.by_name("face", "buffalo_l")
DINOV2 = registry.by_name("image_embedding", "dinov2-base")
CLIP_NAME = "open-clip-vit-b-32-laion2b"
BLIP = registry.by_name("captioner", "blip-large")
GROUNDING = registry.by_name("detector", "grounding-dino-tiny")

# -- Segment Anything ------------------------------------------------------------------------------------------------

TINY_SAM = {
    "image_px": 128,
    "encoder_dim": 16,
    "encoder_depth": 8,
    "encoder_heads": 2,
    "window": 3,
    "prompt_dim": 32,
    "decoder_heads": 2,
    "decoder_mlp_dim": 32,
    "iou_dim": 16,
    "work_side_px": 200,
    "points_per_side": 4,
    "min_predicted_iou": 0,
    "min_stability": 0,
    "max_box_iou": 0.999,
}


def some_sam(seed: int = 0) -> torch.nn.Module:
    """A tiny SAM whose masks are neither empty nor full, and whose quality lies between 0 and 1."""
    from refloom.inference.models import sam

    torch.manual_seed(seed)
    net = sam.build(dict(SAM.options) | TINY_SAM)
    with torch.no_grad():
        for parameter in net.mask_decoder.output_hypernetworks_mlps.parameters():
            parameter.mul_(4)
        net.mask_decoder.iou_prediction_head.layers[-1].bias.fill_(0.5)
    return net


def sam_entry(**options: float) -> Entry:
    """The catalog's entry of ViT-B with the numbers of a tiny SAM."""
    return replace(SAM, options=dict(SAM.options) | TINY_SAM | options)


def put_sam(folder: Path) -> Path:
    """Its weights in a weights folder, once."""
    file = folder / SAM.weights[0].path
    if not file.exists():
        file.parent.mkdir(parents=True)
        torch.save(some_sam().state_dict(), file)
    return file


# -- insightface -----------------------------------------------------------------------------------------------------

GRAPHS = ("det_10g.onnx", "w600k_r50.onnx", "1k3d68.onnx")


def put_faces(folder: Path) -> Path:
    """Graphs that take red squares for faces, under the names of buffalo_l's."""
    from onnxgraphs import save_detector, save_identity, save_points

    (folder / FACES.name).mkdir()
    for name, save in zip(GRAPHS, (save_detector, save_identity, save_points), strict=True):
        save(folder / FACES.name / name)
    return folder / FACES.name


# -- open_clip -------------------------------------------------------------------------------------------------------


def clip_config(context_length: int = 24) -> dict[str, Any]:
    """What open_clip writes beside the weights."""
    text = {"context_length": context_length, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    return {
        "model_cfg": {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.48, 0.45, 0.40], "std": [0.27, 0.26, 0.28]},
    }


def some_clip(config: Mapping[str, Any]) -> torch.nn.Module:
    import open_clip

    torch.manual_seed(0)
    return open_clip.CLIP(**config["model_cfg"]).eval()


def put_clip(folder: Path, config: Mapping[str, Any] | None = None) -> Path:
    """The two files of a CLIP in a weights folder."""
    from safetensors.torch import save_file

    known = config or clip_config()
    place = folder / CLIP_NAME
    place.mkdir(exist_ok=True)
    (place / "open_clip_config.json").write_text(json.dumps(known))
    save_file(some_clip(known).state_dict(), place / "open_clip_model.safetensors")
    return place


# -- DINOv2 ----------------------------------------------------------------------------------------------------------

DINOV2_PIXELS = {
    "crop_size": {"height": 28, "width": 28},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def some_dinov2() -> Any:
    """Position embeddings for 56 px, so that those of 28 px are interpolated, as 518 px are for 224."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
        initializer_range=0.2,
    )
    return Dinov2Model(config).eval()


def put_dinov2(folder: Path) -> Path:
    """The three files of a model in a weights folder."""
    some_dinov2().save_pretrained(folder / DINOV2.name)
    (folder / DINOV2.name / "preprocessor_config.json").write_text(json.dumps(DINOV2_PIXELS))
    return folder / DINOV2.name


# -- BLIP ------------------------------------------------------------------------------------------------------------

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [*SPECIAL, *re.findall(r"\S+", "a the man woman cat dog ##s red ##dish table on in with , sit ##ting")]


def blip_tokenizer() -> Any:
    """BERT's kind of tokenizer, with few words."""
    from tokenizers import Tokenizer, decoders, models

    made = Tokenizer(models.WordPiece({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.decoder = decoders.WordPiece(cleanup=True)
    made.add_special_tokens(SPECIAL)
    return made


def blip_processor() -> Any:
    from transformers import BlipImageProcessor

    return BlipImageProcessor(size={"height": 32, "width": 32})


def some_blip(liking: Mapping[str, float] | None = None) -> Any:
    """As in the published model, the first token of a caption is one that the tokenizer does not know.

    Args:
        liking: words to what is added to their logits.
    """
    from transformers import BlipConfig, BlipForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = sizes | {"image_size": 32, "patch_size": 8, "initializer_range": 0.3}
    text = sizes | {
        "vocab_size": len(WORDS) + 2,
        "encoder_hidden_size": 32,
        "max_position_embeddings": 32,
        "bos_token_id": len(WORDS),
        "eos_token_id": 2,
        "pad_token_id": 0,
        "sep_token_id": 3,
        "initializer_range": 0.5,
    }
    net = BlipForConditionalGeneration(BlipConfig(vision_config=vision, text_config=text)).eval()
    with torch.no_grad():
        for word, logit in (liking or {}).items():
            net.text_decoder.get_output_embeddings().bias[WORDS.index(word)] += logit
    return net


def put_blip(folder: Path, liking: Mapping[str, float] | None = None) -> Path:
    """The four files of a model in a weights folder."""
    some_blip(liking).save_pretrained(folder / BLIP.name)
    blip_processor().save_pretrained(folder / BLIP.name)
    blip_tokenizer().save(str(folder / BLIP.name / "tokenizer.json"))
    return folder / BLIP.name


# -- Grounding DINO --------------------------------------------------------------------------------------------------

_BERT_ENDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
"""Where BERT's vocabulary has them: Grounding DINO knows the ends of phrases by these numbers."""
GROUNDING_PIXELS = {
    "size": {"shortest_edge": 72, "longest_edge": 104},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def grounding_tokenizer() -> Any:
    """BERT's kind of tokenizer, with few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["a", "the", "red", "cat", "dog", "cup", "toy", "box", "##s"]
    numbers = {word: at for at, word in enumerate(words, start=200)}
    made = Tokenizer(models.WordPiece(_BERT_ENDS | numbers, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    return made


def some_grounding() -> Any:
    """Its boxes have the sizes that the published model proposes before training: 5 % of the picture and more."""
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=32,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_indices=[2, 3, 4],
        initializer_range=0.2,
    )
    bert = BertConfig(vocab_size=1100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    sizes = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    known = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "d_model": 32, "num_queries": 12, "max_text_len": 16}
    config = GroundingDinoConfig(backbone_config=swin.to_dict(), text_config=bert.to_dict(), **sizes, **known)
    return GroundingDinoForObjectDetection(config).eval()


def grounding_processor() -> Any:
    from transformers import GroundingDinoImageProcessor

    return GroundingDinoImageProcessor(**GROUNDING_PIXELS)


def put_grounding(folder: Path) -> Path:
    """The four files of a model in a weights folder."""
    some_grounding().save_pretrained(folder / GROUNDING.name)
    grounding_processor().save_pretrained(folder / GROUNDING.name)
    grounding_tokenizer().save(str(folder / GROUNDING.name / "tokenizer.json"))
    return folder / GROUNDING.name


# -- what can be wrong with a folder ---------------------------------------------------------------------------------

Spoil = Callable[[Path], object]
"""Damages a model's folder."""


class Touches:
    """What a malicious file of weights may hold: unpickling it runs code."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.file,)


def pickled(name: str = "model.safetensors") -> Spoil:
    """A pickle under the name of the safetensors; what it would run must not run: it makes the file `ran`."""
    return lambda folder: (folder / name).write_bytes(pickle.dumps(Touches(folder / "ran")))


def cut(name: str = "model.safetensors", count: int = 100) -> Spoil:
    """A download that ended early."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-count])


def replaced(name: str, text: str) -> Spoil:
    """Another content."""
    return lambda folder: (folder / name).write_text(text)


def edited(name: str, *path: str, **changes: object) -> Spoil:
    """Other values in a json file.

    Args:
        name: of the file.
        path: keys from the top to the object whose values change.
        changes: of its values.
    """

    def spoil(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        inner = document
        for key in path:
            inner = inner[key]
        inner.update(changes)
        (folder / name).write_text(json.dumps(document))

    return spoil


def use(folder: Path, monkeypatch: "pytest.MonkeyPatch") -> Path:
    """Make a folder the weights folder."""
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(folder))
    return folder
