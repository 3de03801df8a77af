"""What verify says of a dataset as a whole: manifests, what belongs to nothing, derived files; and how to mend it."""

from contextlib import suppress

import pyarrow as pa

from refloom.schemas import card, commands
from refloom.schemas.damage import note
from refloom.schemas.dataset import LABEL, STAGES, Dataset
from refloom.schemas.errors import Damaged, RefloomError
from refloom.schemas.findings import Findings
from refloom.schemas.index import INDEX, dumped
from refloom.schemas.lineage import Lineage
from refloom.schemas.manifest import Manifest
from refloom.schemas.upkeep import orphans, strays
from refloom.schemas.wording import quoted


def check_whole(dataset: Dataset, findings: Findings, *, derived: bool) -> None:
    """Manifests that cannot be read; if `derived`, derived files and what belongs to nothing."""
    for (stage, unit), why in sorted(dataset.damaged.items()):
        findings.problems.append(f"{stage}/{unit}: {why}")
        findings.damaged.add((stage, unit))
    lost = orphans(dataset) if derived else []
    for stage, unit in lost:
        findings.problems.append(f"{stage}/{unit}: its unit is not in ingest any more")
    unnamed = strays(dataset) if derived else []
    findings.problems += [f"{path}: no manifest names it, and readers of the folder would read it" for path in unnamed]
    findings.problems += _tags(dataset) if derived else []
    differing = _differing(dataset) if derived and not dataset.damaged else []
    findings.problems += differing
    findings.remedies += remedies(dataset, findings)
    if not findings.damaged and (lost or unnamed or differing):
        findings.remedies.append(f"mend it with `refloom mend {quoted(dataset.url)}`")


def _tags(dataset: Dataset) -> list[str]:
    """Files of tags that are gone or cut, as far as a look can tell: `refloom verify` of a tag itself reads them."""
    problems = []
    for name in dataset.tags():
        try:
            tag = Dataset(dataset.url, tag=name, lenient=True)
        except Damaged as error:
            problems.append(str(error))
            continue
        manifests = [manifest for stage in STAGES for manifest in tag.manifests(stage).values()]
        tag.damage.look(manifests)
        wrong = [why for manifest in manifests if (why := tag.damage.of(manifest)) is not None]
        problems += [f"tags/{name}: {why}" for why in (*tag.damaged.values(), *wrong)]
    return problems


def _differing(dataset: Dataset) -> list[str]:
    """What is wrong with the files that are derived from the manifests."""
    if dataset.index_problem is not None:
        return [dataset.index_problem]
    try:
        Lineage.load(dataset.folder)
    except Damaged as error:
        return [str(error)]
    problems = []
    try:
        expected = {INDEX: dumped(dataset.derived_index()), **card.files(dataset)}
    except (OSError, pa.ArrowException, RefloomError):  # a unit cannot be read, of which is said elsewhere
        return []
    for name, data in expected.items():
        if name != INDEX and not dataset.folder.exists(name):
            continue  # some copies leave the card out
        if dataset.folder.read(name) != data:
            problems.append(f"{name}: says other things than the manifests")
    return problems


def remedies(dataset: Dataset, findings: Findings) -> list[str]:
    """What to do about damaged units, as sentences: which source to ingest again, and the command for all others."""
    found = commands.again(dataset, [unit for stage, unit in sorted(findings.damaged) if stage == "ingest"])
    if any(stage not in ("ingest", LABEL) for stage, _ in findings.damaged):
        found.append(f"mend it with `refloom mend {quoted(dataset.url)}`")
    if any(stage == LABEL for stage, _ in findings.damaged):
        found.append(f"labels: {dataset.remedy(LABEL)}")
    return found


def note_damage(dataset: Dataset, findings: Findings) -> None:
    """Write down what is damaged, where that is possible: the next run then does it again."""
    manifests = []
    for stage, unit in findings.damaged:
        manifest = dataset.manifest(stage, unit)
        # a file that is noted makes its unit due by itself, and is made anew to the same bytes, manifest and all
        if manifest is not None and findings.files.isdisjoint(file.path for file in manifest.files):
            manifests.append(Manifest.path(stage, unit))
    if dataset.folder.read_only:
        return
    with suppress(OSError, RefloomError):
        note(dataset.folder, findings.files, manifests)
