"""`refloom fit-quality`: the weights of object quality out of what people said of objects, as a config for curate."""

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from refloom.curation.annotate.fit import Bools, Fit, Floats, fit
from refloom.curation.config import Curation
from refloom.curation.mend import settings_of
from refloom.curation.objects import float_array
from refloom.schemas import commands, labels
from refloom.schemas.components import COMPONENTS
from refloom.schemas.dataset import Dataset, Place, opened
from refloom.schemas.errors import Refused
from refloom.schemas.ids import image_of
from refloom.schemas.labels import GOOD, SCORES
from refloom.schemas.settings import build, to_dict
from refloom.schemas.storeerrors import store_errors_stop
from refloom.schemas.wording import quoted, some

OUT = "quality.yaml"
_LEAST_OF_EACH = 10
_LEAST_IMAGES = 5
_SCORE = "score"


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was fitted.

    Attributes:
        file: the config that was written.
        fit: weights, bound and how well they rank what they were not fitted to.
        good, poor: judged objects that it was fitted to.
        images: that they lie on.
        without_components: judged objects that lack a component and were left out.
        unknown: judgements of objects that the dataset does not hold.
    """

    file: str
    fit: Fit
    good: int
    poor: int
    images: int
    without_components: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Judged:
    """Judged objects of a dataset, as columns.

    Attributes:
        ids: of N objects.
        scores: (N,) 0 to 3; the mean where there are several.
        components: component to (N,) values, NaN where it is null.
        qualities: (N,) as they are stored.
        unknown: ids that the dataset does not hold.
    """

    ids: list[str]
    scores: Floats
    components: dict[str, Floats]
    qualities: Floats
    unknown: list[str]

    @property
    def good(self) -> Bools:
        """(N,) whether each is a good reference."""
        found: Bools = self.scores >= GOOD
        return found


@store_errors_stop()
def fit_quality(
    dataset: Place,
    *,
    labels: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = OUT,
    ignore_unknown: bool = False,
    replace: bool = False,
) -> Fitted:
    """Fit the weights of object quality to judgements, and write them with all other settings as a config for curate.

        fitted = fit_quality("DATASET", out="mine.yaml")
        refloom.curate("DATASET", config=fitted.file, replace=True)

    Args:
        dataset: curated up to quality: a folder, an fsspec URL, or a dataset.
        labels: file of judgements, tab-separated: `object_id` and `score`, or several columns that begin with `score`,
            whose mean counts; the dataset's own labels without.
        out: where to write the config.
        ignore_unknown: go on where the file judges objects that the dataset does not hold.
        replace: write over a file that is there.

    Raises:
        Refused: there are no labels, too few, or all of one kind; the dataset has no qualities yet; a line of the file
            is none; `out` is there.
    """
    found, file = opened(dataset), Path(out)
    if file.exists() and not replace:
        raise Refused(f"{file} is there: give another --out, or --replace to write over it")
    if not found.manifests("quality"):
        raise Refused(f"{found.url} has no qualities yet: run `refloom curate {quoted(found.url)} --until quality`")
    said = _own(found) if labels is None else read(labels)
    judged = judged_objects(found, said)
    if judged.unknown and labels is not None and not ignore_unknown:
        raise Refused(
            f"{labels} judges {len(judged.unknown):,} of {len(said):,} objects that {found.url} does not hold, "
            f"{some(judged.unknown, 3)}: give the labels of this dataset, or --ignore-unknown to go on without them"
        )
    settings = present_settings(found)
    listed = np.stack([judged.components[name] for name in settings.quality.object_components])
    known: Bools = np.asarray(~np.isnan(listed).any(axis=0), bool)
    _refuse_few(judged, known, found.url)
    images = [image_of(name) for name in judged.ids]
    fitted = fit(judged.components, judged.good, images, settings.quality)
    done = Fitted(
        file=os.fspath(out),
        fit=fitted,
        good=int(judged.good[known].sum()),
        poor=int((~judged.good[known]).sum()),
        images=len({image for image, one in zip(images, known, strict=True) if one}),
        without_components=int((~known).sum()),
        unknown=len(judged.unknown),
    )
    _write(file, settings, done)
    return done


def _own(dataset: Dataset) -> dict[str, float]:
    said = {name: float(label.score) for name, label in labels.read(dataset).items()}
    if not said:
        raise Refused(
            f"{dataset.url} holds no labels: judge objects with `refloom browse {quoted(dataset.url)} --label`, or "
            "give a file of judgements with --labels"
        )
    return said


def read(file: str | os.PathLike[str]) -> dict[str, float]:
    """Object id to its score, the mean where there are several, of a tab-separated file with a line of titles.

    Raises:
        Refused: names the file, the line and what is wrong with it.
    """
    try:
        lines = Path(file).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{file} cannot be read ({error}): give tab-separated text with object_id and score") from error
    rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    head = rows[0] if rows else []
    columns = [place for place, name in enumerate(head) if name == _SCORE or name.startswith(f"{_SCORE}_")]
    if "object_id" not in head or not columns:
        raise Refused(
            f"{file}: its first line names {some(head) or 'nothing'}: it needs object_id and score, or score_a, "
            "score_b ..., with tabs between"
        )
    key = head.index("object_id")
    found: dict[str, float] = {}
    for number, row in enumerate(rows[1:], 2):
        if not any(row):
            continue
        if len(row) != len(head):
            raise Refused(f"{file}, line {number}: {len(row)} columns, not {len(head)} as in its first line")
        if row[key] in found:
            raise Refused(f"{file}, line {number}: {row[key]} stands there twice: keep one of its lines")
        said = [row[place] for place in columns if row[place]]
        if not said or any(one not in map(str, SCORES) for one in said):
            raise Refused(f"{file}, line {number}: a score is 0, 1, 2 or 3, not {some(said) or 'empty'}")
        found[row[key]] = float(np.mean([int(one) for one in said]))
    return found


def judged_objects(dataset: Dataset, said: Mapping[str, float]) -> Judged:
    """The judged objects of a dataset that has qualities, with their components, in order of unit and row.

    Args:
        dataset: where.
        said: object id to its score.
    """
    names = [name for name in dataset.schema("object_scores").names if name in COMPONENTS]
    wanted = pa.array(sorted(said), pa.string())
    parts = []
    for unit in dataset.manifests("quality"):
        rows = dataset.read("object_scores", ["object_id", "quality", *names], unit=unit)
        parts.append(rows.filter(pc.is_in(rows["object_id"], value_set=wanted)))
    rows = pa.concat_tables(parts)
    ids = rows["object_id"].to_pylist()
    here = set(ids)
    return Judged(
        ids=ids,
        scores=np.array([said[name] for name in ids], np.float64),
        components={name: float_array(rows[name]) for name in names},
        qualities=float_array(rows["quality"]),
        unknown=[name for name in said if name not in here],
    )


def present_settings(dataset: Dataset) -> Curation:
    """The settings that a dataset was curated with; models as they were asked for, where that is on record."""
    found = settings_of(dataset)
    asked = commands.settings(dataset.folder).get("models")
    return found if asked is None else build(Curation, to_dict(found) | {"models": asked})


def _refuse_few(judged: Judged, known: Bools, url: str) -> None:
    good, poor = int(judged.good[known].sum()), int((~judged.good[known]).sum())
    images = len({image_of(name) for name, one in zip(judged.ids, known, strict=True) if one})
    if good >= _LEAST_OF_EACH and poor >= _LEAST_OF_EACH and images >= _LEAST_IMAGES:
        return
    left = f" ({int((~known).sum()):,} more lack a component)" if not known.all() else ""
    one_kind = " All are of one kind, and nothing tells them apart." if good + poor and not (good and poor) else ""
    raise Refused(
        f"{good} good and {poor} poor objects of {images} images{left} are too few: weights need {_LEAST_OF_EACH} of "
        f"each, of {_LEAST_IMAGES} images.{one_kind} Judge more with `refloom browse {quoted(url)} --label`"
    )


def _write(file: Path, settings: Curation, done: Fitted) -> None:
    """The config: all settings of the dataset, so that nothing else changes with the weights."""
    fitted, bound = done.fit, round(done.fit.min_quality, 4)
    chosen = replace(settings, quality=fitted.settings, select=replace(settings.select, min_quality=bound))
    said = [
        f"quality.weights and select.min_quality were fitted to {done.good + done.poor} judged objects of "
        f"{done.images} images.",
        f"AUC by cross-validation over images {fitted.auc}; of the settings before {fitted.auc_before}.",
        "All other settings are those that the dataset was curated with.",
    ]
    text = "".join(f"# {line}\n" for line in said) + yaml.safe_dump(to_dict(chosen), sort_keys=False)
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise Refused(f"{file} cannot be written ({error.strerror or error}): give another --out") from error
