"""What `refloom evaluate` does, between the command line and the library."""

import argparse
from dataclasses import replace

from refloom.inference.assembly import Assembly, check_device
from refloom.inference.evaluation import benchmarks, encoders, metrics
from refloom.inference.evaluation.evaluation import Left, Plan, evaluate, look_ahead
from refloom.inference.evaluation.generation import Making
from refloom.inference.evaluation.outcome import Outcome
from refloom.inference.evaluation.report import NAMES, number
from refloom.ingest.engine.pool import Pool
from refloom.ingest.engine.progress import Stages
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder, absolute_url


def run(options: argparse.Namespace) -> int:
    """`refloom evaluate`: 0, or 1 if some pictures failed."""
    plan = _plan(options)
    url = absolute_url(options.out)
    if options.dry_run:
        _say(plan, look_ahead(plan, Folder(url)), url)
        return 0
    for kind, one in plan.encoders.items():
        print(f"{kind}: {one.identity}" if one.entry is not None else f"note: {kind} scores are null: {one.why}")
    with Stages() as show:
        found = evaluate(plan, url, pool(options, plan.device), show)
    return _tell(found, url)


def _plan(options: argparse.Namespace) -> Plan:
    device = check_device(options.device)
    chosen = encoders.choose({"clip": options.clip, "dino": options.dino, "face": options.face_model})
    benchmark = benchmarks.read(options.benchmark, _data(options))
    making = Making(
        seed=options.seed,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
        height=options.height,
        width=options.width,
        negative_prompt=options.negative_prompt,
        references=benchmark.references if options.references is None else options.references,
        batch=options.batch,
    )
    wanted = metrics.choose(options.metrics)
    assembly = replace(Assembly.of(options), device=device)
    assembly.look_ahead(edits=benchmark.cases[0].source is not None, arguments=making.arguments())
    return Plan(benchmark, assembly, making, wanted, chosen, device, options.limit)


def _data(options: argparse.Namespace) -> str:
    data = absolute_url(options.data)
    if options.benchmark != "groups" and "://" in data:
        raise Refused(f"--data {options.data}: benchmarks are read from a local folder; copy it here first")
    return data


def pool(options: argparse.Namespace, device: str) -> Pool:
    """One worker a GPU; without GPUs one in all, for each holds the whole pipeline."""
    if device.startswith("cuda:") and options.workers != 0:
        raise Refused(f"--device {device} is for --workers 0: with workers give cuda, and each takes a GPU of its own")
    gpus = 1.0 if device.startswith("cuda") and options.workers != 0 else 0.0
    workers = options.workers if options.workers is not None or gpus else 1
    return Pool(workers, options.address, gpus=gpus, item_timeout_s=options.item_timeout)


def _say(plan: Plan, left: Left, url: str) -> None:
    benchmark = plan.benchmark
    print(f"{benchmark.title}: {len(plan.exhibits):,} of {len(benchmark.cases):,} cases, {left.asked:,} pictures")
    print(f"{left.pictures:,} pictures to make in {len(left.making):,} units; {len(left.scoring):,} units to measure")
    references = "all" if plan.making.references is None else str(plan.making.references)
    for metric in plan.metrics:
        chosen = plan.chosen[metric.encoder]
        why = chosen.why or metrics.lacks(metric, benchmark)
        known_by = encoders.protocol(metric, chosen, benchmark.average, references)
        print(f"  {metric.name:14} {known_by if why is None else f'null: {why}'}")
    print(f"nothing was written to {url}")


def _tell(found: Outcome, url: str) -> int:
    for line in found.lines:
        said = number(line.value) if line.value is not None else f"null: {line.why}"
        print(
            f"  {line.metric.name:14} {said:>8}" + (f"  {line.pictures:,} pictures" if line.value is not None else "")
        )
    print(f"{found.measured:,} of {found.asked:,} pictures measured; {', '.join(NAMES)} in {url}")
    for name, why in list(found.failures.items())[:3]:
        print(f"  failed {name}: {why}")
    if found.failures:
        print(f"{len(found.failures):,} failed: the same command tries again")
    return 1 if found.failures else 0
