"""Composing one unit: which samples it gives, read from its tables, with the pictures' bytes streamed in."""

import posixpath
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from refloom.curation.annotate.decoded import shrink
from refloom.curation.compose import records
from refloom.curation.compose import samples as compose
from refloom.curation.compose.frames import image_frames, video_frames, videos
from refloom.curation.compose.imagestore import PictureStore
from refloom.curation.compose.samples import ComposeInputs, Draft
from refloom.curation.compose.settings import Compose
from refloom.curation.objects import found_objects, made_masks
from refloom.ingest.admission import settle
from refloom.ingest.engine.watch import Watch
from refloom.schemas import masks, pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Failed, Rejected
from refloom.schemas.ids import image_of, is_found
from refloom.schemas.takedownlist import TakedownList
from refloom.schemas.unit import UnitWriter

_OBJECT_COLUMNS = (
    "object_id",
    "image_id",
    "track_id",
    "kind",
    "category",
    "phrase",
    "box",
    "confidence",
    "predicted_iou",
    "mask",
)
_FACE_COLUMNS = ("face_id", "image_id", "object_id", "box", "landmarks", "det_score")


def compose_unit(
    dataset: Dataset, unit: str, others: tuple[str, ...], config: Compose, out: UnitWriter, watch: Watch
) -> None:
    """Every sample of a unit: of its groups, its videos, the pictures that are in neither, and stills of its videos.

    Args:
        dataset, unit: where.
        others: units that hold further members of this unit's groups.
        config: settings.
        out: the unit's writer.
        watch: for progress.
    """
    store = PictureStore(dataset)
    own = store.open(unit)
    for other in others:
        store.open(other)
    inputs = read_inputs(dataset, (unit, *others), store, config)
    splits = _splits(dataset, (unit, *others))
    groups = [row for row in dataset.read("groups", unit=unit).to_pylist() if row["kind"] != "track"]
    grouped = {
        image_of(member)
        for one in (unit, *others)
        for row in dataset.read("groups", ["kind", "members"], unit=one).to_pylist()
        if row["kind"] == "folder"  # a picture of an identity or a look is also one of its own
        for member in row["members"]
    }

    choices = {row["sample_id"]: row for row in dataset.read("choices", unit=unit).to_pylist()}
    copies = {row["id"]: row["by"] for row in dataset.read("duplicates", ["id", "by"], unit=unit).to_pylist()}

    away = frozenset(TakedownList.load(dataset.folder).samples)

    def settle_sample(kind: str, item_id: str, draft: Callable[[], Draft]) -> None:
        choice = choices.get(f"{kind}/{item_id}")
        try:
            watch.begin(item_id)
            if f"{kind}/{item_id}" in away:
                raise Rejected("taken_down")
            if choice is not None and choice["verdict"] == "reject":
                raise Rejected(choice["reason"], choice["why"])
            made = draft()
            if choice is not None:
                made.row["why"] += f"; {choice['why']}"
            row = made.row | {"images": [_image(image_id, store, watch) for image_id in made.image_ids]}
            if config.max_side_px is not None:
                row = shrunk(row, config.max_side_px, config.jpeg_quality)
        except (Rejected, Failed) as problem:
            settle(out, kind, item_id, problem)
            return
        weight = sum(len(image["bytes"]) for image in row["images"])
        out.add("samples", row, weight=weight, below=splits[made.image_ids[0]])
        out.keep(kind)

    stills: list[str] = []
    for video_id, frames in videos([image_id for image_id in own if image_id not in copies], inputs).items():
        stills += image_frames(frames, inputs, config)
        windows = video_frames(frames, inputs, config)
        out.expect("video", max(1, len(windows)))
        if not windows:
            out.reject("video", video_id, "no_subject", "fewer than two frames hold a kept object")
        for number, window in enumerate(windows):
            settle_sample(
                "video",
                f"{video_id}/{number}",
                lambda: compose.video_sample(video_id, number, window, inputs, config),  # noqa: B023
            )
    out.expect("group", len(groups))
    asked = records.by_group(dataset.read("source_groups", unit=unit).to_pylist() if groups else [])
    for group in groups:
        sided = compose.on_one_side(group, splits)
        record = asked.get(records.record_of(group["group_id"]))
        settle_sample(
            "group",
            group["group_id"],
            lambda: records.with_record(compose.group_sample(sided, inputs, config), record),  # noqa: B023
        )
    singles = [image_id for image_id in own if not inputs.images[image_id]["video_id"] and image_id not in grouped]
    out.expect("image", len(singles) + len(stills))
    for image_id in singles + stills:
        if image_id in copies:
            out.reject("image", image_id, "leak" if copies[image_id] == "leak" else "near_copy")
            continue
        settle_sample("image", image_id, lambda: compose.image_sample(image_id, inputs, config))  # noqa: B023


def read_inputs(dataset: Dataset, units: tuple[str, ...], store: PictureStore, config: Compose) -> ComposeInputs:
    """What is known of the pictures of some units; masks of kept objects only."""
    inputs = ComposeInputs(images=store.rows)
    for unit in units:
        selection = dataset.read("selection", ["object_id", "verdict"], unit=unit).to_pylist()
        kept = {row["object_id"] for row in selection if row["verdict"] == "keep"}
        columns = ["object_id", "quality", "phrase_cosine"]
        scores = {row["object_id"]: row for row in dataset.read("object_scores", columns, unit=unit).to_pylist()}
        made = {object_id: row for object_id, row in made_masks(dataset, unit).items() if object_id in kept}
        phrases = _phrases(dataset, unit, kept, config)
        inputs.captions |= {row["image_id"]: row["caption"] for row in _optional(dataset, "captions", unit)}
        for row in _kept_objects(dataset, unit, kept, made):
            row |= {name: scores[row["object_id"]][name] for name in ("quality", "phrase_cosine")}
            if row["object_id"] in phrases:
                row["phrase"] = phrases[row["object_id"]]["phrase"]
                inputs.text_space[row["object_id"]] = np.array(phrases[row["object_id"]]["embedding"], np.float32)
            inputs.objects.setdefault(row["image_id"], []).append(row)
        for row in _optional(dataset, "faces", unit, _FACE_COLUMNS):
            inputs.faces.setdefault(row["image_id"], []).append(row)
        if dataset.manifest("embed", unit) is not None:
            table = dataset.read("embeddings", ["object_id", "embedding"], unit=unit)
            for object_id, vector in zip(table["object_id"].to_pylist(), table["embedding"], strict=True):
                if object_id in kept:
                    inputs.embeddings[object_id] = np.array(vector.values.to_numpy(), np.float32)
    return inputs


def _kept_objects(
    dataset: Dataset, unit: str, kept: set[str], made: dict[str, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Rows of `objects` with effective masks: the source's objects, then those that were found on bare pictures."""
    for batch in dataset.batches("objects", _OBJECT_COLUMNS, unit=unit):
        ids = batch.column("object_id").to_pylist()
        for position in (index for index, object_id in enumerate(ids) if object_id in kept):
            (row,) = batch.slice(position, 1).to_pylist()
            if row["object_id"] in made:
                row |= {name: made[row["object_id"]][name] for name in ("mask", "box", "predicted_iou")}
            yield row
    yield from found_objects([row for object_id, row in made.items() if is_found(object_id)])


def _phrases(dataset: Dataset, unit: str, kept: set[str], config: Compose) -> dict[str, dict[str, Any]]:
    """Rows of `phrases` that samples may use."""
    return {
        row["object_id"]: row
        for row in _optional(dataset, "phrases", unit)
        if row["object_id"] in kept
        and (
            row["origin"] == "source"
            or (row["probability"] >= config.min_phrase_probability and row["margin"] >= config.min_phrase_margin)
        )
    }


def _optional(dataset: Dataset, table: str, unit: str, columns: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
    """Rows of a table whose stage may not have been done."""
    rows: list[dict[str, Any]] = dataset.read(table, columns, unit=unit).to_pylist()
    return rows


def _splits(dataset: Dataset, units: tuple[str, ...]) -> dict[str, str]:
    return {row["image_id"]: row["split"] for unit in units for row in dataset.read("splits", unit=unit).to_pylist()}


def _image(image_id: str, store: PictureStore, watch: Watch) -> dict[str, Any]:
    data, path = store.data(image_id)
    watch.read_bytes(len(data))
    return {"bytes": data, "path": path}


def shrunk(row: dict[str, Any], max_side_px: int, jpeg_quality: int) -> dict[str, Any]:
    """A sample whose larger pictures are re-encoded upright, with boxes and masks scaled.

    Args:
        row: of `samples`; its subjects are changed in place.
        max_side_px: longer side of the result.
        jpeg_quality: of the result.
    """
    scales = []
    for picture, image in zip(row["pictures"], row["images"], strict=True):
        width, height = picture["width"], picture["height"]
        if max(width, height) <= max_side_px:
            scales.append((1.0, 1.0))
            continue
        pixels = shrink(pictures.decode(image["bytes"]), max_side_px)
        image["bytes"] = pictures.encode_jpeg(pixels, jpeg_quality)
        image["path"] = posixpath.splitext(image["path"])[0] + ".jpg"
        picture |= {"width": pixels.shape[1], "height": pixels.shape[0], "orientation": 1}
        scales.append((pixels.shape[1] / width, pixels.shape[0] / height))
    for subject in row["subjects"]:
        for appearance in subject["appearances"]:
            picture, scale = row["pictures"][appearance["picture"]], scales[appearance["picture"]]
            if scale == (1.0, 1.0):
                continue
            appearance["box"] = _scaled(appearance["box"], scale)
            if appearance["mask"] is not None:
                appearance["mask"] = masks.resize(appearance["mask"], picture["height"], picture["width"])
            if appearance["face"] is not None:
                face = appearance["face"]
                points = [[x * scale[0], y * scale[1]] for x, y in face["landmarks"]]
                appearance["face"] = face | {"box": _scaled(face["box"], scale), "landmarks": points}
    return row


def _scaled(box: list[float], scale: tuple[float, float]) -> list[float]:
    return [edge * scale[index % 2] for index, edge in enumerate(box)]
