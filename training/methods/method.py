"""What training asks of a method: how its adapter is made, and what its conditions are of examples with drops."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from refloom.inference.adapters import kinds
from refloom.inference.adapters.adapter import Adapter
from refloom.inference.adapters.reference import Pixels
from refloom.inference.basefacts import check_schedule, check_side, read_scheduler, vae_factor
from refloom.inference.checkpoints import weights
from refloom.inference.checkpoints.hub import configs, locate
from refloom.inference.loading import load_adapter, load_unet_shapes
from refloom.schemas.errors import Refused
from refloom.training.methods.trainable import Trainable
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import optimizer
from refloom.training.run.frozen import DTYPES, ENCODERS, hold_frozen, load_frozen, read_encoder_widths
from refloom.training.run.objective import Diffusion
from refloom.training.run.step import TrainingStep
from refloom.training.views.example import Example

Conditions = TypeVar("Conditions")


class Method(Trainable):
    """An adapter on a frozen base.

    Attributes:
        kind: of its adapter.
        fresh: beginnings of names of weights that an adapter to start from may lack.
        kinds: of adapters that it may start from.
        generation: what `ReferencePipeline.generate` is told besides when pictures are made of what is trained.
        reads_frozen: whether what reads references is frozen, so that its features can be kept; else only the
            target's latents and the texts are.
        pools_phrases: whether it reads the first text encoder's pooled state of phrases.
    """

    fresh: ClassVar[tuple[str, ...]] = ()
    kinds: ClassVar[tuple[str, ...]] = ()
    generation: ClassVar[Mapping[str, Any]] = {}
    reads_frozen: ClassVar[bool] = True
    pools_phrases: ClassVar[bool] = False

    def reads_clip(self, recipe: Recipe) -> str | None:
        """What of CLIP references are read with: `pooled`, `patches`, or None for no CLIP."""
        return None

    def check(self, recipe: Recipe) -> None:
        """See `Trainable.check`."""
        if not recipe.models.base:
            raise Refused("there is no base: set models.base to a folder of a diffusers pipeline, or an OWNER/NAME")
        self.check_encoder(recipe)
        self._check_base(recipe)

    def _check_base(self, recipe: Recipe) -> None:
        """Refuse sizes and an objective that the configs of the base rule out; of a repository they come first."""
        models, base = recipe.models, configs(locate(recipe.models.base, "base model"))
        if base is None:
            return
        scheduler, until = read_scheduler(base), recipe.objective.timesteps
        if until is None or until[1] >= scheduler.get("num_train_timesteps", 0):
            check_schedule(scheduler, recipe.objective.prediction)
        vae = base / "vae" if models.vae is None else configs(locate(models.vae, "VAE"))
        if vae is None or not vae.is_dir():
            return
        for height, width in recipe.data.buckets:
            check_side("height of data.side_px", height, vae_factor(vae))
            check_side("width of data.side_px", width, vae_factor(vae))

    def check_encoder(self, recipe: Recipe) -> None:
        """Refuse a recipe that lacks the image encoder.

        Raises:
            Refused: with the remedy.
        """
        if self.reads_clip(recipe) and recipe.models.image_encoder is None:
            raise Refused(f"{self.kind} reads references with CLIP: set models.image_encoder")

    def shapes(self, recipe: Recipe) -> Adapter:
        """See `Trainable.shapes`; an image encoder of another width than the adapter reads is refused, too."""
        config = self.config(recipe, load_unet_shapes(recipe.models.base))
        reads, name = self.reads_clip(recipe), recipe.models.image_encoder
        if reads is not None and name is not None:
            width = read_encoder_widths(name)[reads]
            if width != recipe.adapter.image_width:
                raise Refused(
                    f"the image encoder {name} gives {reads} features of width {width}, the recipe wants "
                    f"{recipe.adapter.image_width}: it is the wrong one, or set adapter.image_width={width}"
                )
        made: Adapter = kinds.adapter_class(self.kind).on_meta(config)
        return made

    @contextmanager
    def ready(self, recipe: Recipe, device: torch.device, *, frozen: Path | None = None) -> Iterator[Adapter]:
        """See `Trainable.ready`: the adapter, on the base's pipeline.

        What of it is not trained is in the recipe's precision, as autocast would make it in every step, and whole in
        the run's file; what is trained is in fp32.
        """
        # pictures of a validation are made with all of the pipeline
        spared = ENCODERS if recipe.stored and recipe.validation.every is None else ()
        pipe, vision = load_frozen(recipe, device, without=spared)
        adapter: Any = self.make(recipe, pipe)
        try:
            optimizer.tune(adapter, recipe.tuned)
            if frozen is not None:
                adapter.save_frozen(frozen)
            hold_frozen(adapter, DTYPES[recipe.precision])
            adapter.to(device)
            adapter.image_encoder = vision
            yield adapter
        finally:
            adapter.detach()

    def step(self, trained: Adapter, recipe: Recipe) -> TrainingStep:
        """See `Trainable.step`."""
        return TrainingStep(self.conditions, trained, Diffusion(trained.pipe.scheduler, recipe.objective), recipe.seed)

    def save(self, trained: Adapter, folder: Path, run: Path) -> None:
        """See `Trainable.save`; a language model that is not trained lies there once for all checkpoints."""
        trained.save_pretrained(folder, frozen=run / weights.FROZEN_FILE)

    def export(self, trained: Adapter, folder: Path, run: Path) -> None:
        """See `Trainable.export`; what is not trained is the run's file, which is whole."""
        self.save(trained, folder, run)
        weights.join(folder)

    @abstractmethod
    def config(self, recipe: Recipe, unet: Any) -> Any:
        """The adapter's config.

        Args:
            recipe: to train.
            unet: of the base; only its shapes are read, so it may be on the meta device.

        Raises:
            Refused: the base is of another family.
        """

    @abstractmethod
    def initialise(self, adapter: Any, recipe: Recipe, pipe: Any) -> None:
        """Give a new adapter the weights that training starts with, where there is nothing to start from."""

    @abstractmethod
    def conditions(self, adapter: Any, examples: Sequence[Example], seed: int) -> Any:
        """What `Adapter.generation` takes for a micro-batch, with gradients.

        Args:
            adapter: on the pipeline.
            examples: one for each row.
            seed: of the run, for what the method draws itself.
        """

    def feature_settings(self, recipe: Recipe) -> dict[str, Any]:
        """What of the recipe `features` depends on besides models and view, json."""
        reads = self.reads_clip(recipe)
        return {} if reads is None else {"reads": reads}

    def features(self, recipe: Recipe, pipe: Any, vision: Any, images: Sequence[Pixels]) -> Tensor:
        """What frozen models make of pictures of references, to be kept; of `reads_frozen` methods.

        Args:
            recipe: to train.
            pipe: the base, without its UNet.
            vision: the image encoder, if the recipe names one.
            images: (H, W, 3) uint8 each, B of them.

        Returns:
            (B, ...).
        """
        raise NotImplementedError(f"{self.kind} keeps no features of references")

    def blank(self, recipe: Recipe, vision: Any) -> Tensor | None:
        """The features of a dropped reference, (1, ...), where some are needed."""
        return None

    def words(self, phrases: Sequence[str | None]) -> list[str]:
        """Texts of references whose text states the method reads."""
        return []

    def make(self, recipe: Recipe, pipe: Any) -> Adapter:
        """The adapter as training starts with it, in fp32 and on the pipeline.

        Its new weights depend on the recipe's seed alone.

        Raises:
            Refused: what it starts from does not fit.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            adapter: Adapter = kinds.adapter_class(self.kind)(self.config(recipe, pipe.unet))
        adapter.attach(pipe)
        start = recipe.models.start
        if start is None:
            self.initialise(adapter, recipe, pipe)
        else:
            other = load_adapter(start, kind=recipe.models.start_kind, unet=lambda: pipe.unet)
            if other.kind not in (self.kind, *self.kinds):
                raise Refused(f"{self.kind} does not start from an adapter of kind {other.kind} ({start})")
            self.take(adapter, other, start)
        self.prepare(adapter, recipe)
        return adapter.float()

    def take(self, adapter: Any, other: Adapter, source: str) -> None:
        """Start from the weights of another adapter.

        Raises:
            Refused: they do not fit.
        """
        take(adapter, other.state_dict(), source, fresh=self.fresh)

    def prepare(self, adapter: Any, recipe: Recipe) -> None:
        """Set what is neither a tensor nor a size."""
        adapter.train()

    def settings_of(self, folder: str | Path) -> Mapping[str, Any]:
        """The config of an adapter to start from, if it is a folder of refloom's; empty otherwise."""
        path = Path(folder)
        return weights.read_config(path) if (path / weights.CONFIG_FILE).is_file() else {}


def take(adapter: Adapter, tensors: Mapping[str, Tensor], source: str, *, fresh: tuple[str, ...]) -> None:
    """Give an adapter another's weights; what only it has keeps its own.

    Args:
        adapter: that is filled.
        tensors: of the other one.
        source: of them, for messages.
        fresh: beginnings of names that the other may lack.

    Raises:
        Refused: other keys are missing, unknown or of another shape.
    """
    own = adapter.state_dict()
    new = {key: own[key] for key in own if key not in tensors and any(part in f".{key}" for part in fresh)}
    weights.load_strict(adapter, {**new, **tensors}, source, "it was trained for another base or in other sizes")


def split(conditions: Conditions, counts: Sequence[int]) -> list[Conditions]:
    """Conditions of all references of a micro-batch, (1, sum of counts, ...), as those of each example.

    Args:
        conditions: a dataclass; tensors whose second dimension is not that of the references are for all.
        counts: references of each example.
    """
    total, out, start = sum(counts), [], 0
    for count in counts:
        part = {
            field.name: value[:, start : start + count]
            for field in fields(conditions)  # type: ignore[arg-type]
            if isinstance(value := getattr(conditions, field.name), Tensor) and value.shape[1] == total
        }
        out.append(replace(conditions, **part))  # type: ignore[type-var]
        start += count
    return out


def references_of(examples: Sequence[Example]) -> tuple[list[Any], list[int], list[bool]]:
    """All references of a micro-batch, how many each example has, and which are dropped."""
    references = [one for example in examples for one in example.references]
    counts = [len(example.references) for example in examples]
    dropped = [example.drops.image for example in examples for _ in example.references]
    return references, counts, dropped
