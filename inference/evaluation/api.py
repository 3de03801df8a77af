"""`refloom.evaluate(...)`: what `refloom evaluate` does, as a function."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from refloom.inference.assembly import Assembly, check_device
from refloom.inference.evaluation import benchmarks, encoders, evaluation, metrics
from refloom.inference.evaluation.evaluation import Plan
from refloom.inference.evaluation.generation import Making
from refloom.inference.evaluation.outcome import Outcome
from refloom.ingest.engine.pool import Pool
from refloom.ingest.engine.showing import Show, showing
from refloom.schemas.errors import Refused
from refloom.schemas.storage import absolute_url
from refloom.schemas.storeerrors import store_errors_stop

CASE_TIMEOUT_S = 3600.0
OF_DATASETS = ("groups", "cross")
"""Benchmarks whose cases are samples of a dataset, wherever that lies."""


@store_errors_stop()
def evaluate(
    benchmark: str,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str],
    adapter: str | os.PathLike[str],
    kind: str | None = None,
    image_encoder: str | os.PathLike[str] | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    face_model: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    scale: float = 1.0,
    settings: Sequence[str] = (),
    metrics: str | None = None,
    clip: str = "auto",
    dino: str = "auto",
    detector: str = "auto",
    limit: int | None = None,
    seed: int = 0,
    references: int | None = None,
    batch: int = 1,
    negative_prompt: str | None = None,
    height: int | None = None,
    width: int | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    workers: int | None = None,
    address: str | None = None,
    item_timeout: float = CASE_TIMEOUT_S,
    show: bool | Show = False,
) -> Outcome:
    """Make the pictures of a benchmark, measure them, and set the published numbers beside. Resumes.

        found = refloom.evaluate("groups", "DATASET", "OUT", base="SDXL", adapter="RUN/adapter", limit=50)
        {line.metric.name: line.value for line in found.lines}

    Args:
        benchmark: concept101 (arXiv 2212.04488, in MIP-Adapter's selection), ms-bench (2406.07209), dreambench
            (2208.12242), dreamedit (2306.12624), or groups, cross: held-out samples of a dataset.
        data: folder of the benchmark's published files; of groups and cross a dataset.
        out: new folder of the evaluation, or the one to go on with.
        base, adapter, kind, image_encoder, tokenizer, variant, face_model: as for `ReferencePipeline.from_pretrained`.
        device: cpu, cuda, or auto for a GPU if there is one.
        dtype: fp32, bf16, fp16, or auto for bf16 on a GPU and else fp32.
        scale: strength of all references.
        settings: `KEY=VALUE` of the adapter or of its generation.
        metrics: which, such as `clip_t,dino`; all without.
        clip, dino: encoders of the scores, names of `refloom models`, `auto` or `none`.
        detector: finds instances of the subjects, likewise.
        limit: the first so many cases; a later call may take more.
        seed: from which every picture's own follows.
        references: of a subject; the benchmark's own choice without.
        batch: pictures of a prompt made at once.
        negative_prompt: of all prompts.
        height, width: pixels, multiples of 8; the base's own without.
        steps: of denoising; the base's own without.
        guidance_scale: of the text; the base's own without.
        workers: processes; None for all GPUs, or one without; 0 for this one, without Ray.
        address: of a Ray cluster; None starts Ray on this machine.
        item_timeout: longest time for one case, seconds.
        show: True prints progress to stderr as the command does; or a function, see `refloom.ingest.engine.showing`.

    Returns:
        A number for each metric with what it was measured by; pictures that failed are counted and named in it.

    Raises:
        Refused: a name is unknown, files or models are not there, or `out` holds another evaluation.
        JobStopped: a full disk, or units that could not be done; the same call resumes.
    """
    assembly = Assembly(
        base=os.fspath(base),
        adapter=os.fspath(adapter),
        kind=kind,
        image_encoder=None if image_encoder is None else os.fspath(image_encoder),
        tokenizer=None if tokenizer is None else os.fspath(tokenizer),
        variant=variant,
        face_model=face_model,
        device=device,
        dtype=dtype,
        scale=scale,
        settings=tuple(settings),
    )
    making = {
        "seed": seed,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "height": height,
        "width": width,
        "negative_prompt": negative_prompt,
        "batch": batch,
    }
    plan = planned(benchmark, data, assembly, making, references, metrics, clip, dino, limit, detector)
    with showing(show) as display:
        pool = pool_on(plan.device, workers, address, item_timeout)
        return evaluation.evaluate(plan, absolute_url(out), pool, display)


def planned(
    benchmark: str,
    data: str | os.PathLike[str],
    assembly: Assembly,
    making: dict[str, Any],
    references: int | None,
    wanted: str | None,
    clip: str,
    dino: str,
    limit: int | None,
    detector: str = "auto",
) -> Plan:
    """What is asked for, checked before any model is read.

    Args:
        benchmark, data, references, clip, dino, limit, detector: as for `evaluate`.
        assembly: the models.
        making: the fields of `Making`, but for `references`.
        wanted: names of metrics.

    Raises:
        Refused: as `evaluate` does.
    """
    device = check_device(assembly.device)
    chosen = encoders.choose({"clip": clip, "dino": dino, "face": assembly.face_model}, detector)
    url = absolute_url(data)
    if benchmark not in OF_DATASETS and "://" in url:
        raise Refused(f"--data {data}: benchmarks are read from a local folder; copy it here first")
    read = benchmarks.read(benchmark, url)
    made = Making(**making, references=read.references if references is None else references)
    chosen_metrics = metrics.choose(wanted)
    assembly = replace(assembly, device=device)
    assembly.look_ahead(edits=read.cases[0].source is not None, arguments=made.arguments())
    return Plan(read, assembly, made, chosen_metrics, chosen, device, limit)


def pool_on(device: str, workers: int | None, address: str | None, item_timeout: float) -> Pool:
    """One worker a GPU; without GPUs one in all, for each holds the whole pipeline.

    Args:
        device: that models are asked to be on.
        workers, address, item_timeout: as for `evaluate`.

    Raises:
        Refused: one GPU is named for several workers.
    """
    if device.startswith("cuda:") and workers != 0:
        raise Refused(f"--device {device} is for --workers 0: with workers give cuda, and each takes a GPU of its own")
    gpus = 1.0 if device.startswith("cuda") and workers != 0 else 0.0
    return Pool(workers if workers is not None or gpus else 1, address, gpus=gpus, item_timeout_s=item_timeout)
