"""What must hold of samples: bytes, places inside the sample, targets, and one side of the split."""

from collections import defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas.dataset import Dataset
from refloom.schemas.findings import Findings

Row = dict[str, Any]

_FEWEST = 2
"""Subjects of a cross sample."""


def check(dataset: Dataset, unit: str, findings: Findings) -> None:
    """Samples hold real bytes; subjects and targets point at pictures that are there, mentions into their captions."""
    for batch in dataset.batches("samples", unit=unit):
        for row in batch.to_pylist():
            findings.checked["samples"] += 1
            findings.problems += [f"{row['sample_id']}: {problem}" for problem in sample_problems(row)]


def sample_problems(row: Row) -> list[str]:
    """What is wrong with a row of `samples`.

    Args:
        row: with all columns.
    """
    count = len(row["pictures"])
    if count != len(row["images"]) or any(not image["bytes"] for image in row["images"]):
        return ["a picture has no bytes"]
    problems = []
    if not row["subjects"]:
        problems.append("no subject")
    for subject in row["subjects"]:
        if any(not 0 <= appearance["picture"] < count for appearance in subject["appearances"]):
            problems.append(f"{subject['subject_id']} appears on a picture that is not there")
        for mention in subject["mentions"]:
            caption = row["pictures"][mention["picture"]]["captions"][mention["caption"]]
            if not 0 <= mention["start"] < mention["end"] <= len(caption):
                problems.append(f"{subject['subject_id']} is mentioned outside its caption")
    return [*problems, *_target_problems(row, count), *(_cross_problems(row) if row["kind"] == "cross" else [])]


def _target_problems(row: Row, count: int) -> list[str]:
    target, roles = row["target"], [picture["role"] for picture in row["pictures"]]
    problems = []
    if target is not None and not 0 <= target < count:
        problems.append(f"its target is picture {target} of {count}")
    elif roles != ([None] * count if target is None else _roles(target, count)):
        problems.append(f"its target is {target}, and the roles of its pictures say otherwise: {roles}")
    for one in row["instructions"] or []:
        if any(not 0 <= place < count or place == target for place in one["references"] or []):
            problems.append("an instruction names a picture that is no reference of it")
    return problems


def _roles(target: int, count: int) -> list[str]:
    return ["target" if place == target else "reference" for place in range(count)]


def _cross_problems(row: Row) -> list[str]:
    problems = []
    if row["target"] != 0 or row["sample_id"] != f"cross/{row['pictures'][0]['image_id']}":
        problems.append("its first picture is not its target")
    if len(row["subjects"]) < _FEWEST:
        problems.append(f"{len(row['subjects'])} subjects, where a cross sample has two and more")
    for subject in row["subjects"]:
        places = [appearance["picture"] for appearance in subject["appearances"]]
        if places[:1] != [0] or len(places) < _FEWEST or 0 in places[1:]:
            problems.append(f"{subject['subject_id']} is not seen on the target first and then on others")
    return problems


def check_sides(dataset: Dataset, findings: Findings) -> None:
    """Target and references of cross samples lie on one side of the split."""
    columns = ["sample_id", "kind", "pictures.list.element.image_id"]
    pictures: dict[str, list[str]] = {}
    for batch in dataset.batches("samples", columns):
        for row in batch.filter(pc.equal(batch.column("kind"), "cross")).to_pylist():
            pictures[row["sample_id"]] = [picture["image_id"] for picture in row["pictures"]]
    wanted = pa.array(sorted({name for names in pictures.values() for name in names}), pa.string())
    sides: dict[str, str] = {}
    for batch in dataset.batches("splits", ["image_id", "split"]) if pictures else ():
        found = batch.filter(pc.is_in(batch.column("image_id"), value_set=wanted))
        sides |= zip(found.column("image_id").to_pylist(), found.column("split").to_pylist(), strict=True)
    for sample_id, names in pictures.items():
        findings.checked["sides of cross samples"] += 1
        by_side: dict[str | None, list[str]] = defaultdict(list)
        for name in names:
            by_side[sides.get(name)].append(name)
        if len(by_side) > 1:
            findings.problems.append(f"{sample_id}: its pictures lie on several sides of the split")
