"""One generation, and what each of its UNet calls says: which rows are whose, how large the latents are, which step."""

import sys
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline

from refloom.schemas.errors import Refused

Half = Literal["negative", "references", "positive"]
"""Parts of a batch: no condition, the references without the text (only in `guidance`), and all conditions."""

GUIDED: tuple[Half, ...] = ("negative", "positive")
UNGUIDED: tuple[Half, ...] = ("positive",)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the UNet, read before it runs.

    Attributes:
        rows: size of the batch M: halves x prompts x images of a prompt, in this order.
        size: height and width of the latents.
        device, dtype: of the latents.
        halves: parts of the batch, in order.
        step: of the executed timesteps, counted from 0.
        steps: how many there are, if a pipeline says so.
        kwargs: the UNet's keyword arguments; an adapter may put its own copy of an entry in.
    """

    rows: int
    size: tuple[int, int]
    device: torch.device
    dtype: torch.dtype
    halves: tuple[Half, ...]
    step: int
    steps: int | None
    kwargs: dict[str, Any]

    def row_index(self, prompts: int) -> tuple[list[int], list[int]]:
        """Half and prompt of every row.

        Args:
            prompts: number of prompts that have conditions of their own; 1 if all prompts share them.

        Raises:
            Refused: the batch cannot be divided so.
        """
        return row_index(self.rows, self.halves, prompts)


def row_index(rows: int, halves: tuple[Half, ...], prompts: int) -> tuple[list[int], list[int]]:
    """Half and prompt of every row of a batch; see `Call.row_index`."""
    each = rows // (len(halves) * prompts)
    if each * len(halves) * prompts != rows or not each:
        raise Refused(
            f"a batch of {rows} rows is not {len(halves)} halves ({', '.join(halves)}) of {prompts} conditioned "
            "prompts: give references once, or once a prompt, and name the pipeline that runs in generation(..., pipe=)"
        )
    of_half = [half for half in range(len(halves)) for _ in range(prompts * each)]
    return of_half, [prompt for prompt in range(prompts) for _ in range(each)] * len(halves)


@dataclass(slots=True)
class Generation:
    """One run of a pipeline, or one training step.

    Attributes:
        conditioning: what the adapter's `encode` made.
        pipe: the pipeline that runs, unless the call comes from another one around the same UNet; it knows whether
            there is a negative half and how many steps.
        halves: parts of the batch, where no pipeline says so.
    """

    conditioning: Any
    pipe: Any = None
    halves: tuple[Half, ...] | None = None
    calls: int = field(default=0, init=False)
    """Of the UNet so far, in all runs."""
    _step: int = field(default=0, init=False)

    def read(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        halves: tuple[Half, ...] | None = None,
        running: Any = None,
    ) -> Call:
        """What this call says; the step counter moves on.

        A second run of the pipeline inside one generation starts again at step 0, and so does one of another pipeline.

        Args:
            args, kwargs: of the call.
            halves: parts of this call's batch, where they are known.
            running: of `running_pipeline`.

        Raises:
            Refused: the pipeline that runs does not say whether there is a negative half.
        """
        sample = args[0] if args else kwargs["sample"]
        if running is not None and running is not self.pipe:
            self.pipe, self._step = running, 0
        steps = getattr(self.pipe, "num_timesteps", None)
        if steps is not None and self._step >= steps:
            self._step = 0
        step, self._step = self._step, self._step + 1
        self.calls += 1
        halves = self.halves if halves is None else halves
        if halves is None:
            halves = pipeline_halves(self.pipe, runs=running is not None)
        return Call(
            rows=sample.shape[0],
            size=(sample.shape[-2], sample.shape[-1]),
            device=sample.device,
            dtype=sample.dtype,
            halves=halves,
            step=step,
            steps=steps,
            kwargs=kwargs,
        )


def pipeline_halves(pipe: Any, *, runs: bool = False) -> tuple[Half, ...]:
    """Parts of the batch of a pipeline's UNet calls, in order; without a pipeline all rows are positive.

    Perturbed attention guidance appends the positive half once more.

    Args:
        pipe: a pipeline, or anything else.
        runs: whether it is certain that this is the one that runs.

    Raises:
        Refused: it runs and does not say whether there is a negative half.
    """
    if runs and not hasattr(pipe, "do_classifier_free_guidance"):
        raise Refused(
            f"a {type(pipe).__name__} does not say whether its batches have a negative half: name the parts in "
            "generation(..., halves=('negative', 'positive'))"
        )
    halves = GUIDED if getattr(pipe, "do_classifier_free_guidance", False) else UNGUIDED
    return (*halves, "positive") if getattr(pipe, "do_perturbed_attention_guidance", False) else halves


def running_pipeline(unet: Any) -> Any:
    """The pipeline that calls this UNet, several of which may share it; None where it is called by something else.

    Pipelines do not tell a UNet who they are, and what they say of guidance and steps is that of their own last run, so
    the callers are looked through for one.
    """
    core = bare(unet)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "__call__" and frame.f_code.co_varnames[:1] == ("self",):
            caller = frame.f_locals["self"]
            if isinstance(caller, DiffusionPipeline) and bare(getattr(caller, "unet", None)) is core:
                return caller
        frame = frame.f_back
    return None


def bare(module: Any) -> Any:
    """A module without the wrapper of `torch.compile(module)`."""
    return getattr(module, "_orig_mod", module)
