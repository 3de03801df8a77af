"""An ingest from plan to exchange: what is there, what is refused, and what is left for workers to do."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from refloom.ingest import idsets
from refloom.ingest.engine import pool as engine
from refloom.ingest.engine.pool import Pool, Status, Task
from refloom.ingest.source import Plan, Source, UnitPlan
from refloom.ingest.sourcekinds import SOURCES
from refloom.ingest.worker import STAGE, STAGE_VERSION, IngestJob
from refloom.schemas import card, exchange
from refloom.schemas.dataset import Dataset, refuse_foreign
from refloom.schemas.errors import Refused
from refloom.schemas.index import is_dataset
from refloom.schemas.lease import Lease
from refloom.schemas.manifest import Manifest, differing, flatten
from refloom.schemas.storage import Folder
from refloom.schemas.takedownlist import refuse_unfinished
from refloom.schemas.upkeep import collect_garbage, drop_orphans
from refloom.schemas.wording import some


@dataclass(frozen=True, slots=True)
class Options:
    """How to run an ingest.

    Attributes:
        link: keep pointers to the source's bytes instead of the bytes.
        retry_failed: do the units again that hold failed items.
        replace: do the units of this key again that were made with other settings or from another input.
    """

    link: bool = False
    retry_failed: bool = False
    replace: bool = False


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What an ingest would do.

    Attributes:
        plans: of the source.
        todo: units to do now.
        done: units that are there already.
        dropped: committed units of the same keys that the plan no longer has (only with --replace).
        keys: unit name to its plan.
        replaced: keys whose units take the places of others, all at once when the last of them is whole.
        ready: units of these that are whole and wait; part of `done`.
    """

    plans: tuple[Plan, ...]
    todo: tuple[UnitPlan, ...]
    done: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    keys: dict[str, Plan] = field(default_factory=dict)
    replaced: frozenset[str] = frozenset()
    ready: tuple[str, ...] = ()

    def waits(self, unit: str) -> bool:
        """Whether a unit waits for others, when it is whole, to take its place with them."""
        return self.keys[unit].key in self.replaced

    @property
    def notes(self) -> list[str]:
        """What a person should know about the source."""
        return [note for plan in self.plans for note in plan.notes]


def look_ahead(source: Source, dataset: Dataset | None, options: Options) -> IngestPlan:
    """Plan an ingest against what the dataset holds.

    Args:
        source: what to ingest.
        dataset: where it goes; None if it does not exist yet.
        options: how.

    Raises:
        Refused: the same key was made with other settings, or ids are held under another key.
    """
    plans = [replace(plan, config=plan.config | _whose(source)) for plan in source.plans()]
    held = dataset.manifests(STAGE) if dataset is not None else {}
    if dataset is not None and held:
        plans = idsets.set_apart(plans, source, dataset)
    if dataset is not None:
        dataset.damage.look(held.values())
    waiting = exchange.waiting(dataset.folder, STAGE) if dataset is not None and options.replace else {}
    todo, done, dropped, owners, replaced, ready = [], [], [], {}, set(), []
    for plan in plans:
        own = {unit: manifest for unit, manifest in held.items() if manifest.key == plan.key}
        planned = {unit.name for unit in plan.units}
        due = []
        for unit in plan.units:
            owners[unit.name] = plan
            manifest = own.get(unit.name)
            differences = _differences(manifest, plan, unit, options) if manifest else []
            retried = options.retry_failed and manifest is not None and manifest.failed > 0
            if retried:  # what was missing may be there now, so the input may differ; the settings may not
                differences = [found for found in differences if not found.startswith("input")]
            broken = manifest is not None and dataset is not None and not dataset.is_whole(manifest)
            if manifest is None or ((retried or broken) and not differences):
                due.append(unit)
            elif not differences:
                done.append(unit.name)
            elif options.replace:
                due.append(unit)
                replaced.add(plan.key)
            else:
                told = some(differences, between="; ")
                raise Refused(f"{plan.key} was ingested with other settings ({told}): {_way_out(differences)}")
        gone = sorted(own.keys() - planned)
        if gone and not options.replace:
            raise Refused(
                f"{plan.key} holds units that this plan has not, e.g. {gone[0]}: "
                "the source shrank; do it again with --replace"
            )
        if gone:
            replaced.add(plan.key)
        dropped += gone
        for unit in due:
            if plan.key in replaced and _may_stay(waiting.get(unit.name), plan, unit, dataset, options):
                ready.append(unit)
            else:
                todo.append(unit)
    names = [unit.name for unit in ready]
    found = IngestPlan(
        tuple(plans), tuple(todo), (*done, *names), tuple(dropped), owners, frozenset(replaced), tuple(names)
    )
    new = [unit for unit in (*todo, *ready) if unit.name not in held or found.waits(unit.name)]
    idsets.refuse_shared(new, {name: plan.key for name, plan in owners.items()})
    if dataset is not None:
        idsets.refuse_held(dataset, tuple(new), {plan.key for plan in plans})
    return found


def _may_stay(made: Manifest | None, plan: Plan, unit: UnitPlan, dataset: Dataset | None, options: Options) -> bool:
    """Whether a unit that waits, of a run that was cut off, is what this run would make."""
    if made is None or dataset is None or (options.retry_failed and made.failed):
        return False
    return not _differences(made, plan, unit, options) and dataset.is_whole(made)


def _whose(source: Source) -> dict[str, Any]:
    """What manifests keep of a source that a plugin brings: whose it is, in which version; nothing of ours."""
    for name in SOURCES:
        if name not in SOURCES.own and SOURCES[name].reader_class is type(source):
            return {"plugin": SOURCES.record([name])[name]}
    return {}


def _way_out(differences: list[str]) -> str:
    if any(found.startswith("source:") for found in differences):
        return "another kind of source has this key, so give this one another --name"
    if any(found.startswith("input") for found in differences):
        return (
            "if this is another set, give it a --name of its own; if it is the same set and has changed, do it again "
            "with --replace"
        )
    return "use the same settings, or do it again with --replace"


def _differences(manifest: Manifest, plan: Plan, unit: UnitPlan, options: Options) -> list[str]:
    new = flatten(
        {**plan.config, "link": options.link, "stage_version": STAGE_VERSION, "models": {}, "input": unit.identity}
    )
    return differing(manifest.settings() | flatten({"input": manifest.source}), new)


def ingest(
    source: Source,
    url: str,
    options: Options,
    pool: Pool,
    on_status: Callable[[Status], None] | None = None,
) -> IngestPlan:
    """Ingest a source into a dataset; resumes what an earlier run left.

    Args:
        source: what to ingest.
        url: of the dataset; made if it does not exist.
        options: how.
        pool: workers.
        on_status: for progress.

    Returns:
        What was planned.

    Raises:
        Refused, JobStopped: see `look_ahead` and `engine.run`.
    """
    place = Folder(url)
    early = None
    if not is_dataset(place):
        refuse_foreign(place)
        early = look_ahead(source, None, options)  # a source that is refused leaves no empty dataset behind
    dataset = Dataset(url, create=True, lenient=True)
    with Lease(dataset.folder) as lease:
        refuse_unfinished(dataset.folder)
        collect_garbage(dataset)
        damaged = bool(dataset.damaged)
        plan = early if early is not None and not dataset.units() else look_ahead(source, dataset, options)
        del early
        coming = [*plan.ready, *(unit.name for unit in plan.todo if plan.waits(unit.name))]
        keys = {plan.key for plan in plan.plans}
        left = exchange.waiting(dataset.folder, STAGE).items()  # of a run that was killed
        exchange.forget(dataset.folder, STAGE, [unit for unit, one in left if one.key in keys and unit not in coming])
        # the payloads are the annotation files: each is needed once, by its own task
        tasks = [
            Task(
                unit.name,
                (unit, plan.keys[unit.name].key, plan.keys[unit.name].config),
                max(1, unit.items.get("image", 1)),
            )
            for unit in plan.todo
        ]
        done = replace(
            plan,
            todo=tuple(replace(unit, payload=b"") for unit in plan.todo),
            plans=tuple(replace(plan, units=()) for plan in plan.plans),
        )
        del plan
        if tasks:

            def watch_lease(status: Status) -> None:
                lease.check()
                if on_status is not None:
                    on_status(status)

            job = IngestJob(source, url, lease.id, options.link, frozenset(coming))
            engine.run("ingest", job, tasks, pool=pool, notes=dataset.new_run(), on_status=watch_lease)
        if coming or done.dropped:
            lease.check(look=True)
            exchange.exchange(dataset.folder, STAGE, coming, done.dropped)
        dataset.refresh()
        drop_orphans(dataset)
        if damaged:
            collect_garbage(dataset)  # what a damaged manifest named, which its unit does not any more
        # a source that has moved is found again by taking it in from its new place
        told = source.roots() if options.link else {}
        is_moved = dataset.set_roots({key: url for key, url in told.items() if key in dataset.index.get("roots", {})})
        card.renew(dataset, tasks or coming or done.dropped or is_moved)
    return done
