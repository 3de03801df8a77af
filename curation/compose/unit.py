"""Composing one unit: which samples it gives, read from its tables, with the pictures' bytes streamed in."""

from collections.abc import Callable, Mapping
from typing import Any

from refloom.curation.compose import cross, records
from refloom.curation.compose import samples as compose
from refloom.curation.compose.frames import image_frames, video_frames, videos
from refloom.curation.compose.imagestore import PictureStore
from refloom.curation.compose.inputs import ComposeInputs, Row
from refloom.curation.compose.memberships import Nearby, read_memberships
from refloom.curation.compose.samples import Draft
from refloom.curation.compose.settings import Compose
from refloom.curation.compose.shrinking import shrunk
from refloom.curation.group.directions import directions, record_of
from refloom.ingest.admission import settle
from refloom.ingest.engine.watch import Watch
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Failed, Rejected
from refloom.schemas.ids import image_of
from refloom.schemas.takedownlist import TakedownList
from refloom.schemas.unit import UnitWriter


def compose_unit(dataset: Dataset, unit: str, near: Nearby, config: Compose, out: UnitWriter, watch: Watch) -> None:
    """Every sample of a unit: of its videos, its groups, its pictures, and of those whose subjects others show too.

    Args:
        dataset, unit: where.
        near: other units that hold members of this unit's groups, or whose groups have members here.
        config: settings.
        out: the unit's writer.
        watch: for progress.
    """
    _Unit(dataset, unit, near, config, out, watch).compose()


class _Unit:
    """A unit at work: what is known of it, and where its samples go."""

    def __init__(
        self, dataset: Dataset, unit: str, near: Nearby, config: Compose, out: UnitWriter, watch: Watch
    ) -> None:
        self._dataset, self._unit, self._near = dataset, unit, near
        self._config, self._out, self._watch = config, out, watch
        self._store = PictureStore(dataset)
        self._own = self._store.open(unit)
        for other in (*near.whole, *near.references):
            self._store.open(other)
        self._inputs = _read_inputs(dataset, unit, near, self._store, config)
        objects = {row["object_id"] for rows in self._inputs.objects.values() for row in rows}
        self._at_hand = objects | {face["face_id"] for faces in self._inputs.faces.values() for face in faces}
        self._choices = {row["sample_id"]: row for row in dataset.read("choices", unit=unit).to_pylist()}
        copies = dataset.read("duplicates", ["id", "by"], unit=unit).to_pylist()
        self._copies = {row["id"]: row["by"] for row in copies}
        self._away = frozenset(TakedownList.load(dataset.folder).samples)
        read = (unit, *near.whole, *near.references)
        rows = (row for one in read for row in dataset.read("splits", ["image_id", "split"], unit=one).to_pylist())
        self._splits: dict[str, str] = {row["image_id"]: row["split"] for row in rows}

    def compose(self) -> None:
        """Settle every candidate of the unit."""
        stills = self._compose_videos()
        self._compose_groups()
        singles = [image_id for image_id in self._own if not self._inputs.images[image_id]["video_id"]]
        grouped = self._grouped()
        self._compose_images([image_id for image_id in singles if image_id not in grouped] + stills)
        if self._config.makes_cross:
            self._compose_crosses(singles + stills)

    def _compose_videos(self) -> list[str]:
        """Samples of videos; returns their frames that are samples of one image."""
        stills: list[str] = []
        inputs, config = self._inputs, self._config
        own = [image_id for image_id in self._own if image_id not in self._copies]
        for video_id, frames in videos(own, inputs).items():
            stills += image_frames(frames, inputs, config)
            windows = video_frames(frames, inputs, config)
            self._out.expect("video", max(1, len(windows)))
            if not windows:
                self._out.reject("video", video_id, "no_subject", "fewer than two frames hold a kept object")
            for number, window in enumerate(windows):
                self._settle(
                    "video",
                    f"{video_id}/{number}",
                    lambda: compose.video_sample(video_id, number, window, inputs, config),  # noqa: B023
                )
        return stills

    def _compose_groups(self) -> None:
        groups = [row for row in self._dataset.read("groups", unit=self._unit).to_pylist() if row["kind"] != "track"]
        source_groups = self._dataset.read("source_groups", unit=self._unit).to_pylist() if groups else []
        targets, said = directions(source_groups), records.by_group(source_groups)
        self._out.expect("group", len(groups))
        for group in groups:
            sided = compose.on_one_side(group, self._splits)
            self._settle("group", group["group_id"], lambda: self._group(sided, targets, said))  # noqa: B023

    def _group(self, group: Row, targets: Mapping[str, str | None], said: Mapping[str, Row]) -> Draft:
        record = record_of(group["group_id"])
        draft = compose.group_sample(group, self._inputs, self._config, targets.get(record))
        return records.with_record(draft, said.get(record))

    def _grouped(self) -> set[str]:
        """Pictures of folders and records, which are no samples of their own; of an identity or a look they are."""
        return {
            image_of(member)
            for row in self._inputs.memberships.groups.values()
            if row["kind"] == "folder"
            for member in row["members"]
        }

    def _compose_images(self, image_ids: list[str]) -> None:
        self._out.expect("image", len(image_ids))
        for image_id in image_ids:
            if image_id in self._copies:
                self._out.reject("image", image_id, "leak" if self._copies[image_id] == "leak" else "near_copy")
                continue
            self._settle(
                "image",
                image_id,
                lambda: compose.image_sample(image_id, self._inputs, self._config),  # noqa: B023
            )

    def _compose_crosses(self, image_ids: list[str]) -> None:
        """Samples of targets; a candidate is an image with two subjects and more, whatever is known of them."""
        inputs = self._inputs
        for image_id in image_ids:
            objects, faces = inputs.objects.get(image_id, []), inputs.faces.get(image_id, [])
            groups = cross.groups_on(objects, faces, inputs.memberships, self._config)
            if len(groups) < cross.FEWEST and len(cross.sights_on(objects, faces, self._config)) < cross.FEWEST:
                continue
            self._out.expect("cross")
            if image_id in self._copies:
                self._out.reject("cross", image_id, "leak" if self._copies[image_id] == "leak" else "near_copy")
                continue
            self._settle("cross", image_id, lambda: self._cross(image_id, groups))  # noqa: B023

    def _cross(self, image_id: str, groups: dict[str, list[Row]]) -> Draft:
        choice = self._choices.get(f"cross/{image_id}")
        named = None if choice is None or choice["references"] is None else set(choice["references"])
        side = self._splits[image_id]

        def is_usable(name: str) -> bool:
            is_kept = name in self._at_hand  # groups may be older than the verdicts on their members
            return is_kept and self._splits.get(image_of(name)) == side and (named is None or name in named)

        found = cross.crossings(image_id, groups, is_usable)
        if not found:
            raise Rejected("no_reference")
        return cross.cross_sample(image_id, found, self._inputs, self._config)

    def _settle(self, kind: str, item_id: str, draft: Callable[[], Draft]) -> None:
        choice = self._choices.get(f"{kind}/{item_id}")
        try:
            self._watch.begin(item_id)
            if f"{kind}/{item_id}" in self._away:
                raise Rejected("taken_down")
            if choice is not None and choice["verdict"] == "reject":
                raise Rejected(choice["reason"], choice["why"])
            made = draft()
            if choice is not None:
                made.row["why"] += f"; {choice['why']}"
            row = made.row | {"images": [self._image(image_id) for image_id in made.image_ids]}
            if self._config.max_side_px is not None:
                row = shrunk(row, self._config.max_side_px, self._config.jpeg_quality)
        except (Rejected, Failed) as problem:
            settle(self._out, kind, item_id, problem)
            return
        weight = sum(len(image["bytes"]) for image in row["images"])
        self._out.add("samples", row, weight=weight, below=self._splits[made.image_ids[0]])
        self._out.keep(kind)

    def _image(self, image_id: str) -> dict[str, Any]:
        data, path = self._store.data(image_id)
        self._watch.read_bytes(len(data))
        return {"bytes": data, "path": path}


def _read_inputs(dataset: Dataset, unit: str, near: Nearby, store: PictureStore, config: Compose) -> ComposeInputs:
    """What is known of the pictures of a unit and of those near it; masks of kept objects only."""
    inputs = ComposeInputs(images=store.rows, memberships=read_memberships(dataset, (unit, *near.all)))
    for one in (unit, *near.whole):
        inputs.read_seen(dataset, one)
        inputs.read_words(dataset, one, config)
    wanted = inputs.memberships.of.keys()
    for one in near.references:
        inputs.read_seen(dataset, one, wanted)
        inputs.read_words(dataset, one, config)
    return inputs
