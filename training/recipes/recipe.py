"""What every recipe says: models, data, batches, optimiser, objective, checkpoints. Typed, frozen, checked."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from refloom.schemas.errors import Refused
from refloom.schemas.ranges import Number, Text, Whole, Word, check_fields
from refloom.training.data.buckets import Size, around, square
from refloom.training.data.draws import MAX_SEED
from refloom.training.data.loader import KINDS, Loading, Source
from refloom.training.recipes.validation import Validation
from refloom.training.views.view import View

PRECISIONS = ("no", "bf16", "fp16")
SCHEDULES = ("constant", "linear", "cosine")
PREDICTIONS = ("epsilon", "v_prediction")
SIDE_PX = Whole(8, 8192, step=8, remedy="latents are 8 times smaller")
RATE = Number(0, 10)
_BETA = Number(0, 1, below=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What is loaded; each a folder, or OWNER/NAME on a Hub.

    Attributes:
        base: a diffusers pipeline, frozen.
        variant: of the base's files, such as fp16.
        vae: in place of the base's own.
        image_encoder: CLIP, for methods that read references with it.
        language_model: Qwen2-VL, with which EasyRef's first stage starts.
        start: an adapter to go on from, of an earlier stage or a published one; None starts as the method does.
        start_kind: method of a published checkpoint; of refloom's own folders it is known.
    """

    base: str = ""
    variant: Annotated[str | None, Text(none=True)] = None
    vae: Annotated[str | None, Text(none=True)] = None
    image_encoder: Annotated[str | None, Text(none=True)] = None
    language_model: Annotated[str | None, Text(none=True)] = None
    start: Annotated[str | None, Text(none=True)] = None
    start_kind: Annotated[str | None, Text(none=True)] = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What is trained on; see `Source` and `Loading`.

    Attributes:
        sources: datasets of samples, mixed by weight.
        kinds: of samples (image, video, group, cross), of those sources that do not say their own; all by default.
        side_px: of the target's square, or of the square as large as each bucket.
        aspects: many aspects of that area; squares alone otherwise.
        step_px: sides of buckets are multiples of it.
        max_aspect: longer over shorter side of a bucket.
        window_bytes: of rows that are mixed with each other.
        threads: of each process, that read and decode.
        ahead_bytes: of finished examples that wait, of each process.
        group_bytes: of row groups that are kept, of each process.
        cache: folder for what the view accepts of each dataset.
        variants: crops, flips, references and captions of each target among which every epoch draws, instead of making
            new ones; None makes new ones, or takes those of the sources' features.
    """

    sources: tuple[Source, ...] = ()
    kinds: tuple[Annotated[str, Word(KINDS)], ...] | None = None
    side_px: Annotated[int, SIDE_PX] = 512
    aspects: bool = False
    step_px: Annotated[int, SIDE_PX] = 64
    max_aspect: Annotated[float, Number(1, 16)] = 2.0
    window_bytes: Annotated[int, Whole(1)] = 384 << 20
    threads: Annotated[int, Whole(0, 1024)] = 4
    ahead_bytes: Annotated[int, Whole(0)] = 512 << 20
    group_bytes: Annotated[int, Whole(0)] = 1 << 30
    cache: Annotated[str | None, Text(none=True)] = None
    variants: Annotated[int | None, Whole(1, 4096, none=True)] = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kinds is not None:
            own = (one if one.kinds is not None else replace(one, kinds=self.kinds) for one in self.sources)
            object.__setattr__(self, "sources", tuple(own))

    @property
    def buckets(self) -> tuple[Size, ...]:
        """(height, width) of the targets, pixels."""
        if self.aspects:
            return around(self.side_px, step_px=self.step_px, max_aspect=self.max_aspect)
        return square(self.side_px)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How many samples are trained on at once.

    Attributes:
        samples: of an optimiser step, over all processes; what the result depends on.
        micro: of one forward pass on one device; what fits into memory.
    """

    samples: Annotated[int, Whole(1)] = 32
    micro: Annotated[int, Whole(1)] = 4

    def __post_init__(self) -> None:
        check_fields(self)

    def accumulation(self, world: int) -> int:
        """Forward passes of each process in an optimiser step.

        Raises:
            Refused: this many processes cannot share the batch evenly.
        """
        passes, rest = divmod(self.samples, world * self.micro)
        if rest or not passes:
            share, left = divmod(self.samples, world)
            fits = [one for one in range(1, share + 1) if share % one == 0 and one <= self.micro] if not left else []
            remedy = f"batch.micro={fits[-1]}" if fits else f"batch.samples as a multiple of {world * self.micro}"
            raise Refused(
                f"a batch of {self.samples} samples is not shared evenly by {world} processes with {self.micro} at a "
                f"time: set {remedy}"
            )
        return passes


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """AdamW, its learning rates and their schedule.

    Attributes:
        lr: learning rate.
        lrs: other rates, by the beginning of parameters' names; the longest that fits is taken.
        betas, epsilon, weight_decay: of AdamW; weight decay leaves vectors (biases, norms) alone.
        decay_vectors: decay them too, as the published trainers do.
        clip: largest norm of all gradients; None for no limit.
        schedule: constant, linear (to 0) or cosine (to 0).
        warmup_steps: in which the rate rises from 0.
        eight_bit: keep the optimiser's state in 8 bits, where bitsandbytes is installed.
    """

    lr: Annotated[float, RATE] = 1e-4
    lrs: dict[str, Annotated[float, RATE]] = field(default_factory=dict)
    betas: tuple[Annotated[float, _BETA], Annotated[float, _BETA]] = (0.9, 0.999)
    epsilon: Annotated[float, Number(0, 1, above=True)] = 1e-8
    weight_decay: Annotated[float, Number(0, 10)] = 0.01
    decay_vectors: bool = True
    clip: Annotated[float | None, Number(0, above=True, none=True)] = 1.0
    schedule: Annotated[str, Word(SCHEDULES)] = "constant"
    warmup_steps: Annotated[int, Whole(0)] = 0
    eight_bit: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is minimised: the squared error of what the UNet predicts.

    Attributes:
        prediction: epsilon or v_prediction; None for what the base's scheduler says.
        min_snr_gamma: weigh timesteps by min(SNR, gamma) (arXiv 2303.09556); None weighs all alike.
        noise_offset: share of a further noise that is one number for each channel.
        timesteps: lowest, and the one above the highest, of those that are drawn, all alike; None for all. References
            tell most where there is much noise.
    """

    prediction: Annotated[str | None, Word(PREDICTIONS, none=True)] = None
    min_snr_gamma: Annotated[float | None, Number(0, above=True, none=True)] = None
    noise_offset: Annotated[float, Number(0, 1)] = 0.0
    timesteps: tuple[Annotated[int, Whole(0)], Annotated[int, Whole(1)]] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.timesteps is not None and self.timesteps[0] >= self.timesteps[1]:
            raise ValueError("timesteps is null, or a lowest one, 0 or more, and a larger one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """When the run is saved, and what is kept.

    Attributes:
        every: steps between two checkpoints; the last step is saved in any case.
        keep_last: the newest ones that are kept.
        keep_every: steps of which every multiple is kept for good; None for none.
    """

    every: Annotated[int, Whole(1)] = 1000
    keep_last: Annotated[int, Whole(1)] = 3
    keep_every: Annotated[int | None, Whole(1, none=True)] = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run. Each method has its own subclass, with its own `view` and `adapter` (`kinds`).

    Attributes:
        method: what is trained.
        view: what of a sample is trained on.
        adapter: sizes of the adapter, where the base does not decide them.
        models, data, batch, optimizer, objective, checkpoints, validation: see there.
        tuned: what is trained: beginnings of names of the adapter's parameters.
        steps: of the optimiser.
        seed: of order, draws, noise, timesteps and new weights.
        precision: no (fp32), bf16 or fp16; trained weights are fp32 in any case.
        ema: decay of the moving average of the weights, which is then what is exported; None for none.
        gradient_checkpointing: compute activations twice to save memory.
        compile: compile the UNet's blocks.
        channels_last: keep the UNet's and the VAE's convolutions in the layout that tensor cores read.
        log_every: steps between two lines of the log.
        max_bad_steps: steps without a finite gradient that are skipped before the run stops.
        trackers: of accelerate.
    """

    method: str
    view: View
    adapter: Any
    models: Models = field(default_factory=Models)
    data: Data = field(default_factory=Data)
    batch: Batch = field(default_factory=Batch)
    optimizer: Optimizer = field(default_factory=Optimizer)
    objective: Objective = field(default_factory=Objective)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    validation: Validation = field(default_factory=Validation)
    tuned: tuple[str, ...] = ()
    steps: Annotated[int, Whole(1)] = 1000
    seed: Annotated[int, Whole(0, MAX_SEED)] = 0
    precision: Annotated[str, Word(PRECISIONS)] = "bf16"
    ema: Annotated[float | None, Number(0, 1, above=True, below=True, none=True)] = None
    gradient_checkpointing: bool = False
    compile: bool = False
    channels_last: bool = False
    log_every: Annotated[int, Whole(1)] = 50
    max_bad_steps: Annotated[int, Whole(1)] = 20
    trackers: tuple[str, ...] = ("tensorboard",)

    def __post_init__(self) -> None:
        check_fields(self)

    def starting_from(self, folder: str) -> "Recipe":
        """The same, going on from what a run has saved."""
        start = replace(self.models, start=folder, start_kind=None, language_model=None)
        return replace(self, models=start)

    @property
    def stored(self) -> bool:
        """Whether some of its sources name features that stand for what frozen models make."""
        return any(source.features is not None for source in self.data.sources)

    def held_out(self, split: str = "validation") -> "Recipe":
        """The same on the validation splits, for which nothing is stored."""
        sources = tuple(replace(source, split=split, features=None) for source in self.data.sources)
        return replace(self, data=replace(self.data, sources=sources, variants=None))

    @property
    def loading(self) -> Loading:
        """What the loader is given."""
        data = self.data
        return Loading(
            global_batch=self.batch.samples,
            buckets=data.buckets,
            seed=self.seed,
            window_bytes=data.window_bytes,
            variants=data.variants,
            threads=data.threads,
            ahead_bytes=data.ahead_bytes,
            group_bytes=data.group_bytes,
            cache=data.cache,
        )
