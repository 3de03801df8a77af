"""A curation from plan to commit: which stages of which units are due, in what order, and what is refused."""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from refloom.curation.annotate.settings import ROLES
from refloom.curation.config import Curation
from refloom.curation.datasetstages import PASSES
from refloom.curation.datasetstages import tasks as wave_tasks
from refloom.curation.group.groups import Ties, ties
from refloom.curation.passes.passes import StageContext, fingerprint_of
from refloom.curation.stage import Stage
from refloom.curation.stages import ALL, BY_NAME, CurationRun
from refloom.curation.worker import CurateJob, Visit
from refloom.inference.models import registry
from refloom.ingest.engine.pool import Pool, Status, Task, WorkerPool
from refloom.schemas import card, commands, strict
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Damaged, Refused
from refloom.schemas.lease import Lease
from refloom.schemas.settings import to_dict
from refloom.schemas.storage import Folder
from refloom.schemas.takedownlist import refuse_unfinished
from refloom.schemas.upkeep import collect_garbage, drop_orphans
from refloom.schemas.wording import quoted, some

Show = Callable[[str, str], Callable[[Status], None]]
"""Makes the progress display of some tasks, given their title and what they count."""


@dataclass(slots=True)
class CurationPlan:
    """What a curation would do, or has done.

    Attributes:
        models: role to the identity of its model.
        due: stage to units that are due as far as can be told before it runs.
        without_model: stages that are left out because no model of their role is there.
    """

    models: dict[str, str] = field(default_factory=dict)
    due: dict[str, list[str]] = field(default_factory=dict)
    without_model: list[str] = field(default_factory=list)


def choose_models(config: Curation) -> dict[str, str]:
    """Role to the identity of the models that are there; chosen once, on the driver."""
    entries = {role: registry.resolve(role, getattr(config.models, role)) for role in ROLES}
    return {role: entry.identity_at(config.models.precision) for role, entry in entries.items() if entry is not None}


def choose_stages(only: str | None, until: str | None, models: dict[str, str]) -> tuple[list[Stage], list[str]]:
    """The stages to do, in order, and the names of those that have no model.

    Raises:
        Refused: a name that is no stage of curation.
    """
    names = [stage.name for stage in ALL]
    for name in (only, until):
        if name is not None and name not in names:
            raise Refused(f"{name} is no stage of curation; stages: {', '.join(names)}")
    chosen = [stage for stage in ALL if only in (None, stage.name)]
    if until is not None:
        chosen = [stage for stage in chosen if names.index(stage.name) <= names.index(until)]
    absent = [
        stage.name
        for stage in chosen
        if stage.roles and not stage.runs_without and models.keys().isdisjoint(stage.roles)
    ]
    return [stage for stage in chosen if stage.name not in absent], absent


def curate(
    url: str,
    config: Curation,
    pool: Pool,
    *,
    only: str | None = None,
    until: str | None = None,
    replace: bool = False,
    retry_failed: bool = False,
    dry_run: bool = False,
    names: Collection[str] | None = None,
    show: Show | None = None,
) -> CurationPlan:
    """Bring a dataset's curation up to date; resumes what an earlier run left.

    Args:
        url: of the dataset.
        config: settings.
        pool: workers.
        only, until: one stage, or all up to one.
        replace: do units again whose settings differ, and what follows from them.
        retry_failed: do units again that hold failed items.
        dry_run: only say what is due.
        names: of the stages that may be done; all by default.
        show: for progress.

    Raises:
        Refused: settings differ from those that units were made with, and `replace` is not given.
        JobStopped: see `WorkerPool.run`.
    """
    models = choose_models(config)
    stages, absent = choose_stages(only, until, models)
    stages = [stage for stage in stages if names is None or stage.name in names]
    recipe = CurationRun(config, models, tuple(stage.name for stage in stages), replace, retry_failed)
    dataset = Dataset(url, lenient=True)
    _refuse_damaged_units(dataset)
    if not dataset.units():
        raise Refused(f"{url} holds no pictures yet: take some in with `refloom ingest ... --out {quoted(url)}`")
    _refuse_gaps(dataset, stages)
    plan = CurationPlan(models=models, without_model=absent)
    if dry_run:
        _refuse_other_settings(dataset, recipe, stages)
        plan.due = {stage.name: _due(dataset, recipe, stage) for stage in stages}
        return plan
    with Lease(dataset.folder) as lease:
        refuse_unfinished(dataset.folder)
        _drop_damaged(dataset)
        collect_garbage(dataset)
        drop_orphans(dataset)
        _refuse_other_settings(dataset, recipe, stages)
        with WorkerPool(CurateJob(url, recipe, lease.id), _sized(pool, config)) as pool_of_workers:
            for title, phase in _phases(stages):
                dataset.refresh()
                due = {stage.name: _due(dataset, recipe, stage) for stage in phase}
                plan.due |= due
                for leg in _legs(dataset, recipe, title, phase, due):
                    on_status = show(leg.title, leg.item) if show is not None else None

                    def watch_lease(status: Status, shown: Callable[[Status], None] | None = on_status) -> None:
                        lease.check()
                        if shown is not None:
                            shown(status)

                    pool_of_workers.run(f"curate: {leg.title}", leg.tasks, notes=leg.notes, on_status=watch_lease)
        dataset.refresh()
        if any(plan.due.values()):
            commands.record_settings(dataset.folder, to_dict(config))
        card.renew(dataset, any(plan.due.values()))
    return plan


def _phases(stages: list[Stage]) -> list[tuple[str, list[Stage]]]:
    """Runs of stages over single units, which one task does together, parted by stages over the whole dataset."""
    phases: list[tuple[str, list[Stage]]] = []
    for stage in stages:
        if phases and stage.over == "unit" and phases[-1][1][-1].over == "unit" and not stage.across:
            phases[-1][1].append(stage)
        else:
            phases.append((stage.name, [stage]))
    return [("look" if len(phase) > 1 else title, phase) for title, phase in phases]


def _due(dataset: Dataset, recipe: CurationRun, stage: Stage) -> list[str]:
    """Units of which a stage is due, or may become due because something before it is."""
    for name in ("ingest", *BY_NAME):
        dataset.manifests(name)  # one listing each instead of a look-up per unit
    dataset.damage.look(dataset.manifests(stage.name).values())
    return [unit for unit in dataset.units() if recipe.is_due(stage, dataset, unit)]


@dataclass(frozen=True, slots=True)
class _Leg:
    """Tasks that are done together.

    Attributes:
        title: what is done.
        item: what is counted.
        tasks: to do.
        notes: folder of the run.
    """

    title: str
    item: str
    tasks: list[Task]
    notes: Folder


def _legs(
    dataset: Dataset, recipe: CurationRun, title: str, phase: list[Stage], due: dict[str, list[str]]
) -> Iterator[_Leg]:
    """One list of tasks after another; each is done when the next is asked for."""
    run = dataset.new_run()
    if phase[0].over == "unit":
        if tasks := _tasks(dataset, phase, due):
            yield _Leg(title, "candidate" if title == "compose" else "image", tasks, run)
        return
    (stage,) = phase
    fingerprint, inputs = fingerprint_of(dataset, recipe, stage)
    context = StageContext(dataset, recipe, stage, fingerprint, due=due[stage.name])
    if due[stage.name]:
        context.scratch.begin(inputs)
        notes: list[Folder] = []
        for one_pass in PASSES[stage.name]:
            if tasks := wave_tasks(context, one_pass):
                notes.append(run.below(one_pass.name))
                yield _Leg(f"{title} {one_pass.name}", one_pass.item, tasks, notes[-1])
        _sum_up(f"curate: {title}", notes, run)
    context.scratch.remove()


def _sum_up(command: str, notes: list[Folder], run: Folder) -> None:
    """One record of what the passes of a stage took; its items are those of the last pass, which writes units."""
    records = {folder.url.rsplit("/", 1)[1]: json.loads(folder.read("run.json")) for folder in notes}
    last = list(records.values())[-1]
    total = {name: sum(record[name] for record in records.values()) for name in ("seconds", "bytes", "restarts")}
    whole = last | total | {"command": command, "workers": max(record["workers"] for record in records.values())}
    whole["waves"] = {name: record["seconds"] for name, record in records.items()}
    run.write("run.json", strict.dumps(whole, indent=1).encode() + b"\n")


def _tasks(dataset: Dataset, phase: list[Stage], due: dict[str, list[str]]) -> list[Task]:
    names = tuple(stage.name for stage in phase)
    units = sorted({unit for found in due.values() for unit in found})
    tied = ties(dataset) if units and not {"group", "compose"}.isdisjoint(names) else {}
    rows = {unit: manifest.tables["images"].rows for unit, manifest in dataset.manifests("ingest").items()}
    # the largest first, so that no worker is left alone with one at the end
    units.sort(key=lambda unit: (-rows[unit], unit))
    return [Task(unit, Visit(names, tied.get(unit, Ties())), max(1, rows[unit])) for unit in units]


def _refuse_damaged_units(dataset: Dataset) -> None:
    """What ingest wrote can only come from its source again."""
    held = dataset.manifests("ingest")
    dataset.damage.look(held.values())
    wrong = {unit: why for (stage, unit), why in dataset.damaged.items() if stage == "ingest"}
    wrong |= {unit: why for unit, manifest in held.items() if (why := dataset.damage.of(manifest)) is not None}
    if wrong:
        raise Damaged(f"{some(wrong.values(), between='; ')}: {'; '.join(commands.again(dataset, sorted(wrong)))}")


def _drop_damaged(dataset: Dataset) -> None:
    """Remove manifests of curation that cannot be read: their units are due, as those that never were."""
    for name in BY_NAME:
        dataset.manifests(name)
    for stage, unit in list(dataset.damaged):
        dataset.drop(stage, unit)
    dataset.refresh()


def _refuse_gaps(dataset: Dataset, stages: list[Stage]) -> None:
    """A stage whose input nobody has made yet would reject everything: refused, naming what to run."""
    coming = {stage.name for stage in stages} | {"ingest"}
    for stage in stages:
        for needed in stage.needs:
            if needed not in coming and not set(dataset.units()) <= dataset.manifests(needed).keys():
                raise Refused(
                    f"{stage.name} needs {needed}, which is not done: run "
                    f"`refloom curate {quoted(dataset.url)} --until {stage.name}`"
                )


def _refuse_other_settings(dataset: Dataset, recipe: CurationRun, stages: list[Stage]) -> None:
    """The same stage with other settings: refused, naming the keys."""
    if recipe.replace:
        return
    for stage in stages:
        for manifest in dataset.manifests(stage.name).values():
            if differences := recipe.differences(stage, manifest):
                raise Refused(
                    f"{stage.name} was done with other settings ({some(differences, between='; ')}): use the same "
                    "settings, or do it again, with what follows from it, with --replace"
                )


def _sized(pool: Pool, config: Curation) -> Pool:
    if config.models.device != "cuda":
        return pool
    return Pool(pool.workers, pool.address, pool.cpus, config.models.gpus_per_worker, pool.item_timeout_s)
