"""Making features: a job of the engine whose unit is a row group of samples, one set of frozen models a worker."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from refloom.ingest.engine.tasks import Task
from refloom.ingest.engine.watch import Watch
from refloom.schemas.errors import Failed, JobStopped, RefloomError, Rejected
from refloom.schemas.lease import holds
from refloom.schemas.manifest import Manifest
from refloom.schemas.storage import Folder
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.training.data.buckets import Buckets
from refloom.training.data.index import RowGroupKey, read_group
from refloom.training.data.sample import Sample
from refloom.training.features.encoders import Encoders
from refloom.training.features.tables import SCHEMAS, STAGE, VERSION, pack
from refloom.training.recipes.recipe import Recipe
from refloom.training.views.example import Example
from refloom.training.views.variants import variant
from refloom.training.views.view import targets_of


@dataclass(frozen=True, slots=True)
class CacheJob:
    """What workers make features with; travels to them.

    Attributes:
        url: of the features.
        samples: url of the dataset.
        lease_id: checked before every commit.
        recipe: whose features they are.
        settings: what the features follow from.
        variants: of each target.
        batch: pictures that go through a model at once.
        device: of the models.
        manifests: folder that those of the units go into, below `manifests/`.
        beside: folder of manifests whose files stay; None if there are none.
    """

    url: str
    samples: str
    lease_id: str
    recipe: Recipe
    settings: dict[str, Any]
    variants: int
    batch: int
    device: str
    manifests: str = STAGE
    beside: str | None = None

    def start(self) -> "CacheWorker":
        """One worker per process."""
        return CacheWorker(self)


class CacheWorker:
    """Makes and commits the features of row groups."""

    def __init__(self, job: CacheJob) -> None:
        self._job = job
        self._folder, self._samples = Folder(job.url), Folder(job.samples)
        self._buckets = Buckets(job.recipe.data.buckets)
        self._encoders = Encoders(job.recipe, torch.device(job.device), job.batch)

    def run(self, task: Task, watch: Watch) -> None:
        """One unit: `task.payload` is its row group and the sha256 of the file. A damaged sample costs its row."""
        key, sha256 = task.payload
        unit = UnitKey(
            stage=STAGE,
            unit=task.unit,
            key="features",
            config=self._job.settings | {"variants": self._job.variants},
            stage_version=VERSION,
            inputs={key.path: sha256},
        )
        beside = self._job.beside
        writer = UnitWriter(
            self._folder,
            unit,
            on_verdict=watch.verdict,
            before_commit=self._fence,
            schemas=SCHEMAS,
            place=Manifest.path(self._job.manifests, task.unit),
            beside=Manifest.path(beside, task.unit) if beside is not None else None,
        )
        with writer as out:
            self._fill(key, out, watch)

    def _fence(self) -> None:
        if not holds(self._folder, self._job.lease_id):
            raise JobStopped(f"another run took over {self._job.url}; run again to resume")

    def _fill(self, key: RowGroupKey, out: UnitWriter, watch: Watch) -> None:
        written: set[str] = set()

        for number, sample, targets in _accepted(read_group(self._samples, key), self._job.recipe.view):
            sample_id = sample.row["sample_id"]
            out.expect("sample")
            problem: str | None = None
            try:
                watch.begin(sample_id)
                examples = self._variants(sample, targets)
                rows, tensors = self._encoders.encode(list(examples.values()), written)
            except Rejected as error:
                problem = str(error)
                out.reject("sample", sample_id, error.reason, error.detail)
            except RefloomError:
                raise  # a full disk is not the sample's fault
            except torch.OutOfMemoryError as error:
                raise JobStopped(
                    f"the device has too little memory for {self._job.batch} pictures at once: give a smaller --batch "
                    "and run the command again, it resumes"
                ) from error
            except Failed as error:
                problem = str(error)
                out.fail("sample", sample_id, error.reason, error.detail)
            except Exception as error:  # whatever it is, it costs this sample; the traceback goes to runs/
                failed = watch.unexpected(sample_id, error)
                problem = str(failed)
                out.fail("sample", sample_id, failed.reason, failed.detail)
            if problem is not None:
                out.add("examples", {"row": number, "sample_id": sample_id, "problem": problem})
                continue
            for name, tensor in tensors.items():
                written.add(name)
                packed = pack(name, tensor)
                out.add("tensors", packed, weight=len(packed["data"]))
            for (target, variant_number), row in zip(examples, rows, strict=True):
                about = {"row": number, "sample_id": sample_id, "picture": target, "variant": variant_number}
                out.add("examples", about | row)
            out.keep("sample")

    def _variants(self, sample: Sample, targets: Sequence[int]) -> dict[tuple[int, int], Example]:
        """Of each target and number the variant."""
        pictures, sizes = sample.row["pictures"], self._buckets.sizes
        return {
            (target, number): variant(
                self._job.recipe.view,
                sample,
                target,
                sizes[self._buckets.of(pictures[target]["width"], pictures[target]["height"])],
                number,
            )
            for target in targets
            for number in range(self._job.variants)
        }


def _accepted(table: pa.Table, view: Any) -> Iterator[tuple[int, Sample, list[int]]]:
    """Accepted rows of a row group with their number and targets."""
    rest, images = table.drop_columns(["images"]), table.column("images")
    for number in range(table.num_rows):
        (row,) = rest.slice(number, 1).to_pylist()
        targets = targets_of(view, row)
        if not isinstance(targets, str):
            yield number, Sample(row, [one.as_buffer() for one in images[number].values.field("bytes")]), targets
