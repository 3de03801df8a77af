"""What tests of reports share: a parsed page, and a small curated dataset to report on."""

from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from curatedata import once
from helpers import HERE, ingest, write_coco, write_ytvis

from refloom.curation.annotate.settings import Filter, Models
from refloom.curation.compose.settings import Compose
from refloom.curation.config import Curation
from refloom.curation.dedup.settings import Dedup
from refloom.curation.job import curate
from refloom.curation.select.settings import Select
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas.dataset import Dataset
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.viewing.report import write_page

CONFIG = Curation(
    models=Models(face="none", image_embedding="none", classifier="none"),
    filter=Filter(min_area_px=100, min_area_share=0.01),
    dedup=Dedup(by=()),  # drawn pictures are alike
    select=Select(min_area_share=0.08, min_short_side_px=12.0, min_quality=0.25),
    compose=Compose(frames_per_sample=2, samples_per_video=1),
)
VOID = {"br", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """A parsed page; an element that is closed out of turn is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        kept = {"style": self.styles, "script": self.scripts}.get(self.open[-1] if self.open else "", self.words)
        kept.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def titles(self) -> str:
        return "\n".join(attributes.get("title") or "" for _, attributes in self.elements)

    def count(self, name: str, kind: str) -> int:
        """Elements with a class."""
        return sum(
            element == name and kind in (attributes.get("class") or "").split() for element, attributes in self.elements
        )


def page_of(dataset: Dataset) -> Page:
    return Page(Path(write_page(dataset)).read_text("utf-8"))


def build(root: Path, *, until: str | None = None, config: Curation = CONFIG, **options: Any) -> Dataset:
    """COCO pictures and videos, curated up to a stage."""
    images, instances, captions = write_coco(root / "coco", 6, objects=4, size=(96, 80))
    out = root / "data"
    ingest(Coco(images=str(images), instances=str(instances), captions=str(captions), unit_size=4), out, **options)
    videos = write_ytvis(root / "videos", videos=2, frames=6, size=(96, 80))
    ingest(YouTubeVis(frames=str(root / "videos/JPEGImages"), annotations=str(videos)), out, **options)
    if until != "ingest":
        curate(str(out), config, HERE, until=until)
    return Dataset(str(out))


def commit(dataset: Dataset, stage: str, table: str, kind: str, rows: dict[str, list[dict[str, Any]]]) -> Dataset:
    """Rows of a stage, unit by unit; all other units of it are empty."""
    for unit in dataset.units():
        mine = rows.get(unit, [])
        with UnitWriter(dataset.folder, UnitKey(stage, unit, "x")) as out:
            out.expect(kind, len(mine))
            for row in mine:
                out.add(table, row)
            out.keep(kind, len(mine))
    return Dataset(dataset.url)


def ids(dataset: Dataset, table: str, unit: str) -> list[str]:
    key = {"images": "image_id", "objects": "object_id"}[table]
    return dataset.read(table, [key], unit=unit)[key].to_pylist()


def group(kind: str, members: Iterable[str], **more: Any) -> dict[str, Any]:
    members = sorted(members)
    similarity = {"min_similarity": 0.7, "mean_similarity": 0.75, "max_similarity": 0.8}
    return {"group_id": f"{kind}/{members[0]}", "kind": kind, "members": members} | similarity | more


@once
def reported(factory: pytest.TempPathFactory) -> Path:
    """COCO pictures and videos, curated to the end."""
    return Path(build(factory.mktemp("report")).url)
