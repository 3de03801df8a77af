"""Segment Anything (Kirillov et al. 2023, arXiv 2304.02643) as a segmenter, by the `segment-anything` package.

The network is built from numbers of the registry's entry, so that one road serves the published sizes and small ones.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.utils.amg import batched_mask_to_box
from torch import nn

from refloom.inference.checkpoints.keyreport import compare
from refloom.inference.checkpoints.tensors import contents
from refloom.inference.models.batching import MicroBatches
from refloom.inference.models.entry import Entry
from refloom.inference.models.segmenters import Pixels, Segment, check_pixels, segment_of, usable_boxes
from refloom.inference.models.threads import check_device, repeatable
from refloom.schemas import masks
from refloom.schemas.boxes import Boxes
from refloom.schemas.errors import Refused
from refloom.schemas.masks import Mask

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_PATCH_PX = 16
_MEAN, _DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of R, G and B, 0..255: `build_sam.py` of the package."""


def load(entry: Entry, device: str, precision: str) -> "SegmentAnything":
    """The model of the registry's entry.

    Raises:
        Refused: the weights do not fit the architecture, or there is no such device.
    """
    check_device(entry.name, device)
    (file,) = entry.files()
    net = build(entry.options)
    net.load_state_dict(fitting(entry, file, net), strict=True)
    return SegmentAnything(net, options=entry.options, device=device, precision=precision)


def fitting(entry: Entry, file: Path, net: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a file, all of which and only which the network has.

    Raises:
        Refused: they do not fit, or have values that are no numbers.
    """
    try:
        found = contents(file)
        report = compare(net, found.shapes)
        if report.clean:
            return found.take()
    except Refused as error:
        raise entry.damaged(str(error)) from error
    raise entry.damaged(f"{file.name} does not fit: {report}")


def build(options: Mapping[str, float]) -> Sam:
    """SAM with random weights, as `segment_anything.sam_model_registry` builds it for the same numbers.

    Args:
        options: `image_px`, the side of the encoder's input; `encoder_dim`, `encoder_depth` and `encoder_heads` of the
            image encoder, a fourth of whose blocks see the whole picture; `window` of the others, in patches of 16 px;
            `prompt_dim`, `decoder_depth`, `decoder_heads`, `decoder_mlp_dim` and `iou_dim` of the rest.
    """
    image_px, depth, prompt_dim = int(options["image_px"]), int(options["encoder_depth"]), int(options["prompt_dim"])
    patches = image_px // _PATCH_PX
    encoder = ImageEncoderViT(
        depth=depth,
        embed_dim=int(options["encoder_dim"]),
        img_size=image_px,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=int(options["encoder_heads"]),
        patch_size=_PATCH_PX,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=[(quarter + 1) * depth // 4 - 1 for quarter in range(4)],
        window_size=int(options["window"]),
        out_chans=prompt_dim,
    )
    prompts = PromptEncoder(
        embed_dim=prompt_dim,
        image_embedding_size=(patches, patches),
        input_image_size=(image_px, image_px),
        mask_in_chans=16,
    )
    decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(
            depth=int(options["decoder_depth"]),
            embedding_dim=prompt_dim,
            mlp_dim=int(options["decoder_mlp_dim"]),
            num_heads=int(options["decoder_heads"]),
        ),
        transformer_dim=prompt_dim,
        iou_head_depth=3,
        iou_head_hidden_dim=int(options["iou_dim"]),
    )
    return Sam(encoder, prompts, decoder, pixel_mean=list(_MEAN), pixel_std=list(_DEVIATION)).eval()


class SegmentAnything:
    """A `segmenters.Segmenter`.

    Args:
        net: SAM with its weights; it is changed in place.
        options: `work_side_px`, larger pictures are shrunk to it, and masks grown back: SAM sees 1024 px and draws
            256, while its full-size logits of one batch take gigabytes; `points_per_side`, `min_predicted_iou`,
            `min_stability`, `max_box_iou` of automatic masks; `stability_offset`, how far the two thresholds lie from
            SAM's own, in logits; `cpu_batch_size` and `cuda_batch_size`, prompts in a pass.
        device: cpu, cuda or cuda:<n>.
        precision: of the image encoder: fp32, or bf16 or fp16 by autocast. Prompts and masks stay in fp32: bf16 would
            move the corners of a box by whole pixels.
    """

    has_automatic = True

    def __init__(self, net: Sam, *, options: Mapping[str, float], device: str, precision: str) -> None:
        net.image_encoder = _Encoder(net.image_encoder, _DTYPES.get(precision))
        self._threshold, self._offset = float(net.mask_threshold), float(options["stability_offset"])
        self._work_side_px = int(options["work_side_px"])
        self._least_share = 0.5 / int(options["image_px"])
        limit = int(options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])
        self._prompts = MicroBatches(limit)
        self._generator = _Generator(
            net.to(device).eval(),
            points_per_side=int(options["points_per_side"]),
            points_per_batch=limit,
            pred_iou_thresh=float(options["min_predicted_iou"]),
            stability_score_thresh=float(options["min_stability"]),
            stability_score_offset=self._offset,
            box_nms_thresh=float(options["max_box_iou"]),
            output_mode="uncompressed_rle",
        )
        self._predictor: SamPredictor = self._generator.predictor

    def segment(self, pixels: Pixels, boxes: Boxes) -> list[Segment | None]:
        """See `segmenters.Segmenter.segment`. One mask a box; its pixels may lie outside the box."""
        height, width = check_pixels(pixels)
        clipped, usable = usable_boxes(boxes, width, height)
        out: list[Segment | None] = [None] * len(clipped)
        if not usable.any() or self._too_thin(height, width):
            return out
        work = self._shrunk(pixels)
        scales = np.tile((work.shape[1] / width, work.shape[0] / height), 2).astype(np.float32)
        prompts = self._predictor.transform.apply_boxes(clipped[usable] * scales, work.shape[:2])
        with self._ready():
            self._predictor.set_image(work)
            found = self._prompts.run(self._masks, prompts)
        for index, (mask, predicted_iou, stability) in zip(np.flatnonzero(usable), found, strict=True):
            out[index] = segment_of(mask, height, width, predicted_iou, stability)
        return out

    def segment_everything(self, pixels: Pixels) -> list[Segment]:
        """See `segmenters.Segmenter.segment_everything`: a grid of points, three masks each, filtered and thinned."""
        height, width = check_pixels(pixels)
        if self._too_thin(height, width):
            return []
        work = self._shrunk(pixels)
        with self._ready():
            records = self._generator.generate(work)
        found, _ = masks.read([record["segmentation"] for record in records], *work.shape[:2])
        segments = [
            segment_of(mask, height, width, record["predicted_iou"], record["stability_score"])
            for mask, record in zip(found, records, strict=True)
            if isinstance(mask, dict)
        ]
        return sorted((segment for segment in segments if segment is not None), key=_certainty)

    def _masks(self, prompts: npt.NDArray[np.float64]) -> list[tuple[Mask, float, float]]:
        """Mask, predicted IoU and stability of each prompt (N, 4), in pixels of the encoder's input."""
        tensor = torch.as_tensor(prompts, dtype=torch.float32, device=self._predictor.device)
        # a box is hardly ambiguous: SAM's own examples ask for one mask then
        logits, quality, _ = self._predictor.predict_torch(
            None, None, boxes=tensor, multimask_output=False, return_logits=True
        )
        stability = stability_scores(logits[:, 0], self._threshold, self._offset).tolist()
        marked = logits[:, 0] > self._threshold
        del logits
        corners = batched_mask_to_box(marked).cpu().tolist()
        height, width = marked.shape[1:]
        out = []
        for index, (x0, y0, x1, y1) in enumerate(corners):  # inclusive ends; one empty pixel for an empty mask
            part = marked[index, y0 : y1 + 1, x0 : x1 + 1].cpu().numpy()
            mask = masks.encode_box(part, (x0, y0, x1 + 1, y1 + 1), height, width)
            out.append((mask, float(quality[index, 0]), stability[index]))
        return out

    def _shrunk(self, pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        scale = self._work_side_px / max(height, width)
        if scale >= 1:
            return np.ascontiguousarray(pixels)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _too_thin(self, height: int, width: int) -> bool:
        """Whether the shorter side vanishes when the longer one is brought to the encoder's."""
        return min(height, width) < self._least_share * max(height, width)

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """Computing as it should, and no picture is left behind."""
        with repeatable():
            try:
                yield
            finally:
                self._predictor.reset_image()


def stability_scores(logits: torch.Tensor, threshold: float, offset: float) -> torch.Tensor:
    """IoU of the masks at `threshold` + `offset` and - `offset`, as SAM scores its own (its paper, appendix B).

    The package's function counts a row in 16 bits.

    Args:
        logits: (N, H, W).
        threshold, offset: in logits.

    Returns:
        (N,) 0 to 1; NaN where even the lower threshold leaves nothing.
    """
    inner = (logits > threshold + offset).flatten(1).sum(1)
    outer = (logits > threshold - offset).flatten(1).sum(1)
    return inner / outer


class _Encoder(nn.Module):
    """The image encoder in another precision, with features in fp32."""

    def __init__(self, encoder: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.encoder, self.dtype, self.img_size = encoder, dtype, encoder.img_size

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        with torch.autocast(pictures.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            features: torch.Tensor = self.encoder(pictures)
        return features.float()


class _Predictor(SamPredictor):  # type: ignore[misc]
    """The package's predictor, which says `out_of_memory` where a picture does not fit."""

    def set_image(self, image: Pixels, image_format: str = "RGB") -> None:
        encode = super().set_image
        MicroBatches(1).run(lambda part: [encode(*part, image_format)], [image])


class _Generator(SamAutomaticMaskGenerator):  # type: ignore[misc]
    """The package's generator with point prompts in batches that fit into memory."""

    def __init__(self, net: Sam, *, points_per_batch: int, **settings: Any) -> None:
        super().__init__(net, points_per_batch=points_per_batch, **settings)
        self.predictor = _Predictor(net)
        self._batches = MicroBatches(points_per_batch)

    def _process_batch(self, points: npt.NDArray[np.float64], *frame: Any) -> Any:
        ask = super()._process_batch
        first, *others = self._batches.run(lambda part: [ask(part, *frame)], points)
        for other in others:
            first.cat(other)
        return first


def _certainty(segment: Segment) -> tuple[float, float, list[float], str]:
    return (
        -(segment.predicted_iou or 0),
        -(segment.stability_score or 0),
        segment.box.tolist(),
        segment.mask["counts"],
    )
