"""Every stage reads the tables that it declares, and no others: what is out of date hangs on it."""

from dataclasses import replace

import curatedata
import pytest
from helpers import HERE

from refloom.curation.config import Curation
from refloom.curation.group.looks import Looks
from refloom.curation.job import curate
from refloom.curation.select.balance import Balance
from refloom.curation.stages import ALL
from refloom.curation.worker import CurateWorker
from refloom.ingest.engine.tasks import Task
from refloom.ingest.engine.watch import Watch
from refloom.schemas.manifest import Manifest

PHRASE = "phrase"
SHARED = {"measure": {"objects"}}
"""What is read for the neighbours of a stage: one pass over the pixels serves them all, and objects come with it."""
SOMETIMES = {
    "quality": {"phrases"},
    "select": {"images"},
    "balance": {"embeddings"},
    "compose": {"phrases", "captions"},
}
"""What is read only where models were at work that no package brings, phrases, and objects found on bare images; and
embeddings where there are bounds on pairs."""


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Stage to the tables that its workers asked for, on units with videos, folders and photographs.

    What the driver reads to plan a run, such as which units share a source group, decides who works on what, not what
    comes out.
    """
    # small toys look alike here, so that there are groups over the whole dataset to read faces for
    looks = Looks(strictness=0.6, cut_out_margin=0.0, max_cosine=None, min_side_px=0.0)
    limited = replace(Curation(), balance=Balance(max_samples=9), looks=looks)
    place = curatedata.copy(curatedata.ingested(tmp_path_factory), tmp_path_factory.mktemp("reads"))
    found: dict[str, set[str]] = {}
    with pytest.MonkeyPatch.context() as patch:
        asked: set[str] = set()
        working: list[bool] = []
        files_of, run = Manifest.files_of, CurateWorker.run

        def recorded(self: Manifest, directory: str):
            if working:
                asked.add(directory)
            return files_of(self, directory)

        def at_work(self: CurateWorker, task: Task, watch: Watch) -> None:
            working.append(True)
            run(self, task, watch)
            working.clear()

        patch.setattr(Manifest, "files_of", recorded)
        patch.setattr(CurateWorker, "run", at_work)
        for stage in ALL:
            if stage.name == PHRASE:
                continue
            asked.clear()
            curate(str(place), limited, HERE, only=stage.name)
            found[stage.name] = set(asked)
    return found


@pytest.mark.parametrize("stage", ALL, ids=lambda stage: stage.name)
def test_a_stage_reads_what_it_declares(reads: dict[str, set[str]], stage) -> None:
    declared = {name.removesuffix("/*") for name in stage.reads}
    if stage.name == PHRASE:
        pytest.skip("its models are in no package")
    assert reads[stage.name] - SHARED.get(stage.name, set()) <= declared, (
        "the stage reads what its manifests do not know"
    )
    assert declared - SOMETIMES.get(stage.name, set()) <= reads[stage.name], (
        "the stage is out of date when something changes that it does not read"
    )
