"""What every recipe says: models, data, batches, optimiser, objective, checkpoints. Typed, frozen, checked."""

from dataclasses import dataclass, field, replace
from typing import Any

from schemas.errors import Refused
from training.data.buckets import Size, around, square
from training.data.draws import MAX_SEED
from training.data.loader import Loading, Source
from training.recipes.validation import Validation
from training.views.view import View

PRECISIONS = ("no", "bf16", "fp16")
SCHEDULES = ("constant", "linear", "cosine")
PREDICTIONS = ("epsilon", "v_prediction")


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
    variant: str | None = None
    vae: str | None = None
    image_encoder: str | None = None
    language_model: str | None = None
    start: str | None = None
    start_kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What is trained on; see `Source` and `Loading`.

    Attributes:
        sources: datasets of samples, mixed by weight.
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
    side_px: int = 512
    aspects: bool = False
    step_px: int = 64
    max_aspect: float = 2.0
    window_bytes: int = 384 << 20
    threads: int = 4
    ahead_bytes: int = 512 << 20
    group_bytes: int = 1 << 30
    cache: str | None = None
    variants: int | None = None

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

    samples: int = 32
    micro: int = 4

    def __post_init__(self) -> None:
        if self.samples < 1 or self.micro < 1:
            raise ValueError("samples and micro are 1 or more")

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

    lr: float = 1e-4
    lrs: dict[str, float] = field(default_factory=dict)
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    decay_vectors: bool = True
    clip: float | None = 1.0
    schedule: str = "constant"
    warmup_steps: int = 0
    eight_bit: bool = False

    def __post_init__(self) -> None:
        _among("schedule", self.schedule, SCHEDULES)
        if min(self.lr, *self.lrs.values(), self.weight_decay, self.warmup_steps) < 0 or self.epsilon <= 0:
            raise ValueError("rates, weight_decay and warmup_steps are 0 or more, epsilon above 0")
        if self.clip is not None and self.clip <= 0:
            raise ValueError("clip is above 0, or null for no limit")


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

    prediction: str | None = None
    min_snr_gamma: float | None = None
    noise_offset: float = 0.0
    timesteps: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.prediction is not None:
            _among("prediction", self.prediction, PREDICTIONS)
        if (self.min_snr_gamma is not None and self.min_snr_gamma <= 0) or self.noise_offset < 0:
            raise ValueError("min_snr_gamma is above 0 or null, noise_offset 0 or more")
        if self.timesteps is not None and not 0 <= self.timesteps[0] < self.timesteps[1]:
            raise ValueError("timesteps is null, or a lowest one, 0 or more, and a larger one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """When the run is saved, and what is kept.

    Attributes:
        every: steps between two checkpoints; the last step is saved in any case.
        keep_last: the newest ones that are kept.
        keep_every: steps of which every multiple is kept for good; None for none.
    """

    every: int = 1000
    keep_last: int = 3
    keep_every: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1 or self.keep_last < 1 or (self.keep_every is not None and self.keep_every < 1):
            raise ValueError("every, keep_last and keep_every are 1 or more")


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
    steps: int = 1000
    seed: int = 0
    precision: str = "bf16"
    ema: float | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    channels_last: bool = False
    log_every: int = 50
    max_bad_steps: int = 20
    trackers: tuple[str, ...] = ("tensorboard",)

    def __post_init__(self) -> None:
        _among("precision", self.precision, PRECISIONS)
        if self.steps < 1 or self.log_every < 1 or self.max_bad_steps < 1:
            raise ValueError("steps, log_every and max_bad_steps are 1 or more")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed is 0 to {MAX_SEED}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError("ema is between 0 and 1, or null")

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


def _among(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r}")
