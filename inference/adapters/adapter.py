"""What every reference adapter is: weights of its own, a place on a stock pipeline, one generation at a time."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from refloom.inference.adapters import guidance, phrases
from refloom.inference.adapters.calls import Call, Generation, Half, bare, running_pipeline
from refloom.inference.adapters.counts import check_conditions
from refloom.inference.adapters.reading import Mask, Pixels
from refloom.inference.adapters.reference import Reference
from refloom.inference.adapters.windows import StepWindow, Window
from refloom.inference.checkpoints import weights
from refloom.inference.ranges import check_adapter
from refloom.schemas import settings
from refloom.schemas.errors import Refused

FORMAT = 1
"""Of the folders that `save_pretrained` writes."""


@dataclasses.dataclass(slots=True)
class Site:
    """Where an adapter is attached. No module: the UNet must not become a part of the adapter."""

    pipe: Any
    unet: nn.Module
    hook: RemovableHandle


class Adapter(nn.Module, ABC):
    """A method that conditions a diffusion model on references.

    Subclasses are one small module per method. They give `kind`, `Config`, `encode`, `install`, `uninstall`, `before`,
    and construct their modules from the config alone, so that a folder of config and tensors is the whole adapter.

    Attributes:
        reads: what changes the conditions besides the pictures: `phrase` and `place` of references, and `prompt` where
            `encode` reads it with them, so that references must be encoded for each prompt.
        config: a frozen dataclass.
        scale: strength of the references; 0 is the untouched pipeline, bit for bit.
        window: the steps in which the adapter acts.
        faithful: reproduce those defects of the published code that change results, for comparison with it.
    """

    kind: ClassVar[str]
    Config: ClassVar[type]
    reads: ClassVar[frozenset[str]] = frozenset({"phrase", "place"})

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.scale: float = 1.0
        self.window: Window = StepWindow()
        self.faithful = False
        self._site: Site | None = None
        self._generation: Generation | None = None

    @classmethod
    def judge(cls, references: Sequence[Reference], prompts: Sequence[str], settings: Mapping[str, Any]) -> None:
        """Refuse references that `encode` and `for_prompts` would refuse, by what is known before any model is there.

        Args:
            references: at least one.
            prompts: that they go with.
            settings: of the adapter, by name; what is absent has its default.

        Raises:
            Refused: with the remedy.
        """

    @abstractmethod
    def encode(self, references: Sequence[Reference], *, prompt: str | None = None) -> Any:
        """Turn the references of one prompt into what `generation` takes; once for any number of generations.

        Args:
            references: at least one.
            prompt: the prompt they go with, where the method reads it.

        Raises:
            Refused: no references, or they lack what the method needs.
        """

    def for_prompts(self, conditioning: Any, references: Sequence[Reference], prompts: Sequence[str]) -> Any:
        """What `generation` takes for these prompts. Where the prompt is not read, all share what `encode` made.

        Args:
            conditioning: what `encode` made of the references without a prompt; it is not changed.
            references: the same ones.
            prompts: of the batch.

        Raises:
            Refused: a prompt lacks what the method looks for in it.
        """
        return conditioning

    def phrase_spans(self, prompt: str, named: Sequence[str]) -> list[phrases.Span | None]:
        """Where the adapter finds each phrase in a prompt, in tokens; None where it does not. See `phrases.spans`.

        Args:
            prompt: the whole prompt.
            named: one phrase of each subject.
        """
        return phrases.spans(self.pipe.tokenizer, prompt, named)

    def generate(self, conditioning: Any, *arguments: Any, **options: Any) -> Any:
        """One run of the pipeline with these conditions; an adapter with a loop of its own has it here.

        `ReferencePipeline` gives everything by name, and takes the names of an override for the options there are.

        Args:
            conditioning: of `for_prompts`.
            arguments, options: the pipeline's own.

        Returns:
            An object with `images`, as the pipeline returns it.

        Raises:
            Refused: the conditions are of another number of prompts.
        """
        prompt = options.get("prompt", arguments[0] if arguments else None)
        if prompt is not None:
            check_conditions(conditioning, 1 if isinstance(prompt, str) else len(prompt))
        with self.generation(conditioning):
            return self.pipe(*arguments, **options)

    def edit(self, conditioning: Any, source: Pixels, mask: Mask, *arguments: Any, **options: Any) -> Any:
        """Put the references into a picture, where the method has a way of its own to do so.

        Args:
            conditioning: of `for_prompts`.
            source: (H, W, 3) uint8.
            mask: (H, W), True where the picture may change.
            arguments, options: as for `generate`.

        Returns:
            An object with `images`.

        Raises:
            Refused: the method has none.
        """
        raise Refused(
            f"the {self.kind} adapter has no editing of its own: use an adapter that has (ezigen), or an inpainting "
            "pipeline as the base, and generate(..., image=source, mask_image=mask)"
        )

    @abstractmethod
    def install(self, unet: Any) -> None:
        """Put the adapter's plain objects into the UNet.

        Raises:
            Refused: the UNet is not the one that the adapter is made for; nothing was changed.
        """

    @abstractmethod
    def uninstall(self, unet: Any) -> None:
        """Take out what `install` put in, and put the stock objects back."""

    def check(self, unet: Any, *, first: bool) -> None:
        """See that what `install` put in is still there, and put it back where that changes nothing else.

        It is called before every call of the UNet in which the adapter has a strength, and must not wait for a device.

        Args:
            unet: that the adapter is on.
            first: whether a generation starts here, or a run of the pipeline inside one.

        Raises:
            Refused: something has displaced or removed it; the message says what, where, and the remedy.
        """

    @abstractmethod
    def before(self, call: Call, conditioning: Any, *, acts: bool) -> None:
        """Get ready for one call of the UNet.

        Args:
            call: what the call says.
            conditioning: what `encode` made.
            acts: whether the adapter acts in this step; if not, the UNet must compute what it would without it.
        """

    def after(self) -> None:
        """Forget what belongs to a generation that has ended."""

    @property
    def pipe(self) -> Any:
        """The pipeline that the adapter is attached to.

        Raises:
            Refused: it is attached to none.
        """
        return self._attached_site().pipe

    @property
    def attached(self) -> bool:
        """Whether it is on a pipeline."""
        return self._site is not None

    def attach(self, pipe: Any) -> Self:
        """Put the adapter on a pipeline, or on a UNet alone. Nothing moves between devices.

        Args:
            pipe: a stock diffusers pipeline with a `UNet2DConditionModel`, or such a model, compiled or not.

        Raises:
            Refused: it is on another pipeline, or does not fit this one.
        """
        unet = getattr(pipe, "unet", pipe)
        if self._site is not None:
            if bare(self._site.unet) is not bare(unet):
                raise Refused(f"this {self.kind} adapter is on another pipeline: call detach() first")
            if self._site.pipe is pipe:
                return self
            raise Refused(
                f"this {self.kind} adapter is on the same UNet through another pipeline: call either of them inside "
                "generation(), or call detach() first"
            )
        self.install(unet)
        # where the UNet is compiled from now on the hook breaks the graph, instead of being compiled for every step
        before = torch.compiler.disable(self._before)  # type: ignore[no-untyped-call]
        hook = unet.register_forward_pre_hook(before, with_kwargs=True)
        self._site = Site(pipe, unet, hook)
        return self

    def detach(self) -> Self:
        """Take the adapter off; the pipeline is again the very one it was. Does nothing where it is not attached."""
        if self._site is not None:
            self._site.hook.remove()
            self.uninstall(self._site.unet)
            self._site = None
        return self

    def check_installed(self, pipe: Any = None) -> None:
        """See that the adapter is on the pipeline as `attach` left it, which every generation begins with.

        What displaces it without changing what it computes, such as attention slicing, is taken in.

        Args:
            pipe: that will run; None for the one that the adapter is attached to.

        Raises:
            Refused: references would have no effect, or not the whole; the message names what has displaced the
                adapter, where, and the remedy. `detach` works all the same.
        """
        site = self._attached_site()
        self._check_site(site.pipe if pipe is None else pipe)
        if self._has_strength:
            self.check(site.unet, first=True)

    def _check_site(self, pipe: Any) -> None:
        site = self._attached_site()
        unet = getattr(pipe, "unet", pipe)
        if bare(unet) is not bare(site.unet):
            raise Refused(
                f"the {type(pipe).__name__} has another UNet than the one that the {self.kind} adapter is on: call "
                "detach(), and attach(pipe) to the pipeline as it is now"
            )
        if site.hook.id not in site.unet._forward_pre_hooks:
            raise Refused(
                f"the hook of the {self.kind} adapter was taken off the UNet: call detach(), and attach(pipe) again"
            )

    def _attached_site(self) -> Site:
        if self._site is None:
            raise Refused(f"the {self.kind} adapter is on no pipeline: call attach(pipe) first")
        return self._site

    @property
    def _has_strength(self) -> bool:
        """Whether it may change anything. If not, it may as well have been displaced."""
        return self.scale != 0 or self.faithful

    @contextmanager
    def generation(
        self, conditioning: Any, *, pipe: Any = None, halves: tuple[Half, ...] | None = None
    ) -> Iterator[None]:
        """Condition what the pipeline generates inside this block: one run of it, or one training step.

        Training must run `backward` inside the block, because recomputed activations need the same conditions.

        Args:
            conditioning: what `encode` made.
            pipe: the pipeline that runs, if it is another around the same UNet, such as img2img. A diffusers pipeline
                is recognised without it.
            halves: parts of the batch, in order; None asks the pipeline, and without one all rows are positive.

        Raises:
            Refused: the adapter is on no pipeline, or inside a generation already, or see `check_installed`.
        """
        site = self._attached_site()
        if self._generation is not None:
            raise Refused(f"the {self.kind} adapter is inside a generation already")
        pipe = pipe if pipe is not None else site.pipe
        self.check_installed(pipe)
        check_adapter(self)
        self._generation = Generation(conditioning, pipe, halves)
        try:
            yield
            # the UNet was exchanged inside: what another one made has no references in it
            self._check_site(pipe)
        finally:
            self._generation = None
            self.after()

    def _before(
        self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        generation = self._generation
        if generation is None:
            return None
        call = generation.read(args, dict(kwargs), guidance.halves_of(unet), running_pipeline(unet))
        if self._has_strength:
            self.check(unet, first=call.step == 0)
        acts = self.scale != 0 and call.step in self.window.resolve(call.steps)
        self.before(call, generation.conditioning, acts=acts)
        return args, call.kwargs

    def save_pretrained(self, folder: str | Path, *, frozen: Path | None = None) -> None:
        """Write `config.json` and `adapter.safetensors`, the whole adapter.

        Args:
            folder: made if absent.
            frozen: of checkpoints of one run: a file for what is not trained, written by the first one; the others hold
                a link to it, so that each is whole and costs what is trained.
        """
        values = {"kind": self.kind, "format": FORMAT, **dataclasses.asdict(self.config)}
        tensors, apart = self.state_dict(), self._apart()
        if frozen is None or not apart:
            weights.write_folder(Path(folder), values, tensors)
            (Path(folder) / weights.FROZEN_FILE).unlink(missing_ok=True)
            return
        self.save_frozen(frozen)
        weights.write_folder(Path(folder), values, {name: tensors[name] for name in tensors if name not in apart})
        weights.share(frozen, Path(folder) / weights.FROZEN_FILE)

    def save_frozen(self, file: Path) -> None:
        """Write what is not trained, as it is now, into a file for the checkpoints of one run, unless it is there.

        Args:
            file: of `save_pretrained`.
        """
        if (apart := self._apart()) and not file.is_file():
            tensors = self.state_dict()
            weights.write_safetensors(file, {name: tensors[name] for name in apart})

    def _apart(self) -> set[str]:
        """Names of what is not trained."""
        return set(self.state_dict()) - {name for name, one in self.named_parameters() if one.requires_grad}

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, dtype: torch.dtype | None = None) -> Self:
        """An adapter from what `save_pretrained` wrote.

        Args:
            folder: with `config.json`, `adapter.safetensors`, and of checkpoints also `frozen.safetensors`.
            dtype: to convert the weights to; None keeps the file's.

        Raises:
            Refused: the folder holds another kind of adapter, or its tensors do not fit its config.
        """
        folder = Path(folder)
        values = weights.read_config(folder)
        kind, version = values.pop("kind", None), values.pop("format", None)
        if kind != cls.kind:
            raise Refused(f"{folder} holds an adapter of kind {kind!r}, not {cls.kind!r}")
        if version != FORMAT:
            raise Refused(f"{folder} is of format {version!r}; this refloom reads format {FORMAT}")
        config: Any = settings.build(cls.Config, values)
        try:
            adapter = cls.on_meta(config)
        except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:  # torch's, of sizes that are none
            raise Refused(f"the sizes in {folder / weights.CONFIG_FILE} make no adapter: get it again") from error
        weights.load_strict(adapter, weights.read_folder(folder), str(folder / weights.WEIGHTS_FILE))
        return adapter.to(dtype) if dtype is not None else adapter

    @classmethod
    def on_meta(cls, config: Any) -> Self:
        """An adapter without storage, to be filled or counted."""
        with torch.device("meta"):
            return cls(config)
