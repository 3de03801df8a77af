"""The subject folders: `subjects/<name>/00.jpg` and so on, each with one held-out subject in several places.

As in DreamBooth, `prompts_and_classes.txt` says what class each of them is.
"""

import numpy as np

from refloom.ingest.sampledata import casting, categories, cutouts, subjects
from refloom.ingest.sampledata.casting import Brief
from refloom.ingest.sampledata.identities import Identities
from refloom.ingest.sampledata.subjects import Subject
from refloom.schemas.storage import Folder

_BRIEF = Brief(code=4, sizes=((512, 512), (640, 480), (480, 640)), fewest=0, most=0, view_share=0.0, real_share=0.0)
_TOYS = 4
_PICTURES = (4, 5)


def write(out: Folder, seed: int, identities: Identities) -> int:
    """Write the tree; returns the number of folders."""
    toys: list[Subject] = [subjects.known_toy(seed, number, held_out=True) for number in range(_TOYS)]
    chosen = [*toys, *cutouts.placeable(held_out=True)]
    classes = ["Classes", "", "subject_name,class"]
    for number, subject in enumerate(chosen):
        name = f"{subject.kind}{number + 1}"
        classes.append(f"{name},{categories.nouns(subject.kind)[0][0]}")
        identities.folders[f"subjects/{name}"] = subject.number
        count = int(np.random.default_rng([seed, _BRIEF.code, number]).integers(_PICTURES[0], _PICTURES[1] + 1))
        for picture in range(count):
            still = casting.still(_BRIEF, seed, number * 10 + picture, held_out=True, only=subject)
            out.write(f"subjects/{name}/{picture:02d}.jpg", still.jpeg)
    out.write("subjects/prompts_and_classes.txt", "\n".join([*classes, ""]).encode())
    return len(chosen)
