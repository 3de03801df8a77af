"""What `refloom evaluate` does, between the command line and the library."""

import argparse

from refloom.inference.assembly import Assembly
from refloom.inference.evaluation import encoders, outcome
from refloom.inference.evaluation.api import planned, pool_on
from refloom.inference.evaluation.evaluation import Left, Plan, evaluate, look_ahead
from refloom.inference.evaluation.outcome import Outcome
from refloom.inference.evaluation.report import NAMES, number
from refloom.ingest.engine.pool import Pool
from refloom.ingest.engine.showing import showing
from refloom.schemas.storage import Folder, absolute_url


def run(options: argparse.Namespace) -> int:
    """`refloom evaluate`: 0, or 1 if some pictures failed."""
    plan = _plan(options)
    url = absolute_url(options.out)
    if options.dry_run:
        _say(plan, look_ahead(plan, Folder(url)), url)
        return 0
    for kind, one in plan.encoders.items():
        print(f"{kind}: {one.identity}" if one.entry is not None else f"note: {_lost(plan, kind)}: {one.why}")
    with showing(True) as show:
        found = evaluate(plan, url, pool(options, plan.device), show)
    return _tell(found, url)


def _lost(plan: Plan, kind: str) -> str:
    """What an encoder or detector that is absent costs."""
    if kind != "detector":
        return f"{kind} scores are null"
    by = {"boxes": "subjects are looked for in their boxes alone", "whole": "whole pictures are compared"}
    return by.get(plan.finder.by, "scores of found subjects are null")


def _plan(options: argparse.Namespace) -> Plan:
    making = {
        "seed": options.seed,
        "steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "height": options.height,
        "width": options.width,
        "negative_prompt": options.negative_prompt,
        "batch": options.batch,
    }
    return planned(
        options.benchmark,
        options.data,
        Assembly.of(options),
        making,
        options.references,
        options.metrics,
        options.clip,
        options.dino,
        options.limit,
        options.detector,
    )


def pool(options: argparse.Namespace, device: str) -> Pool:
    """The workers that the options ask for."""
    return pool_on(device, options.workers, options.address, options.item_timeout)


def _say(plan: Plan, left: Left, url: str) -> None:
    benchmark = plan.benchmark
    print(f"{benchmark.title}: {len(plan.exhibits):,} of {len(benchmark.cases):,} cases, {left.asked:,} pictures")
    print(f"{left.pictures:,} pictures to make in {len(left.making):,} units; {len(left.scoring):,} units to measure")
    references = "all" if plan.making.references is None else str(plan.making.references)
    for metric in plan.metrics:
        chosen = plan.chosen[metric.encoder]
        why = outcome.absence(metric, benchmark, chosen, plan.finder)
        known_by = encoders.protocol(metric, chosen, benchmark.average, references, plan.finder.name)
        print(f"  {metric.name:14} {known_by if why is None else f'null: {why}'}")
    print(f"nothing was written to {url}")


def _tell(found: Outcome, url: str) -> int:
    for line in found.lines:
        if line.value is None:
            print(f"  {line.metric.name:15} null: {line.why}")
            continue
        spread = f"  {line.spread}" if line.spread else ""
        print(f"  {line.metric.name:15} {number(line.value):>8}  {line.pictures:,} pictures{spread}")
    print(f"{found.measured:,} of {found.asked:,} pictures measured; {', '.join(NAMES)} in {url}")
    for name, why in list(found.failures.items())[:3]:
        print(f"  failed {name}: {why}")
    if found.failures:
        print(f"{len(found.failures):,} failed: the same command tries again")
    return 1 if found.failures else 0
