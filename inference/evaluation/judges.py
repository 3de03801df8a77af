"""A judge of pictures of toys: a small convolutional network that says what is on them, where, and tells toys apart.

It has another architecture than any encoder that adapters read references with, so that an adapter cannot please it by
what its own encoder happens to see.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from refloom.inference.checkpoints.tensors import read_safetensors
from refloom.inference.checkpoints.weights import write_safetensors
from refloom.schemas import settings, strict
from refloom.schemas.errors import Refused
from refloom.schemas.pictures import Pixels
from refloom.schemas.ranges import Whole, check_fields

CONFIG_FILE, WEIGHTS_FILE = "judge.json", "judge.safetensors"
MOST = 2
"""Of one kind that it counts to."""

_GROUPS = 8
_SIZE = Whole(8, 4096, step=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeConfig:
    """What decides the shapes of a judge, and what it can say.

    Attributes:
        kinds, places: that it tells apart, in the order of its scores.
        widths: of its levels, each of half the side of the one before.
        look: width of the space in which looks are compared.
        side_px: of the square that pictures are read at.
    """

    kinds: tuple[str, ...]
    places: tuple[str, ...]
    widths: tuple[Annotated[int, _SIZE], ...] = (24, 48, 96)
    look: Annotated[int, _SIZE] = 64
    side_px: Annotated[int, _SIZE] = 64

    def __post_init__(self) -> None:
        check_fields(self)
        if not (self.kinds and self.places and self.widths):
            raise ValueError("kinds, places and widths must not be empty: give one or more of each")


class Judged(NamedTuple):
    """What a judge says of B pictures.

    Attributes:
        kinds: (B, kinds, MOST + 1) scores of none, one and two of each kind.
        places: (B, places) scores.
        looks: (B, look) of length 1; the cosine of two says whether they show one thing.
    """

    kinds: Tensor
    places: Tensor
    looks: Tensor


class Judge(nn.Module):
    """The network.

    Args:
        config: its shapes.
    """

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        first, last = config.widths[0], config.widths[-1]
        levels: list[nn.Module] = [nn.Conv2d(3, first, 5, stride=2, padding=2), _Block(first)]
        for before, width in zip(config.widths, config.widths[1:], strict=False):
            levels += [nn.Conv2d(before, width, 3, stride=2, padding=1), _Block(width), _Block(width)]
        self.levels = nn.Sequential(*levels, nn.GroupNorm(_GROUPS, last), nn.SiLU())
        self.kinds = nn.Linear(2 * last, len(config.kinds) * (MOST + 1))
        self.places = nn.Linear(2 * last, len(config.places))
        self.looks = nn.Sequential(nn.Linear(2 * last, 2 * last), nn.SiLU(), nn.Linear(2 * last, config.look))
        self.sharpness = nn.Parameter(torch.tensor(2.5))

    def forward(self, pixels: Tensor) -> Judged:
        """Of pictures (B, 3, side_px, side_px) in -1..1."""
        found = self.levels(pixels)
        features = torch.cat([found.mean(dim=(2, 3)), found.amax(dim=(2, 3))], dim=1)
        kinds = self.kinds(features).unflatten(1, (len(self.config.kinds), MOST + 1))
        return Judged(kinds, self.places(features), functional.normalize(self.looks(features), dim=-1))

    def pixels(self, pictures: Sequence[Pixels]) -> Tensor:
        """Pictures (H, W, 3) uint8 of any sizes as `forward` takes them."""
        side = self.config.side_px
        each = [torch.from_numpy(one.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1 for one in pictures]
        return torch.cat(
            [
                one
                if one.shape[2:] == (side, side)
                else functional.interpolate(one, (side, side), mode="bilinear", antialias=True)
                for one in each
            ]
        ).to(self.sharpness.device)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write its config and weights."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        (place / CONFIG_FILE).write_text(strict.dumps(asdict(self.config), indent=1), "utf-8")
        write_safetensors(place / WEIGHTS_FILE, self.state_dict())


class _Block(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(_GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, found: Tensor) -> Tensor:
        added: Tensor = found + self.layers(found)
        return added


def load_judge(folder: str | Path) -> Judge:
    """The judge that `Judge.save_pretrained` wrote.

    Raises:
        Refused: there is none, or it is damaged.
    """
    place = Path(folder)
    try:
        judge = Judge(settings.build(JudgeConfig, strict.object_in((place / CONFIG_FILE).read_bytes())))
        judge.load_state_dict(read_safetensors(place / WEIGHTS_FILE))
    except (OSError, ValueError, TypeError, RuntimeError, Refused) as error:
        raise Refused(f"{folder} is no judge that refloom trained: {error}") from error
    return judge.eval()


@torch.no_grad()
def judged(judge: Judge, pictures: Sequence[Pixels]) -> Judged:
    """What a judge says of pictures."""
    return judge(judge.pixels(pictures))  # type: ignore[no-any-return]


def agreement(found: Judged, kinds: Tensor, places: Tensor) -> Tensor:
    """Whether each picture shows what was asked for: all kinds, each as often as asked, at the place.

    Args:
        found: of B pictures.
        kinds: (B, kinds) how many of each.
        places: (B,) numbers.

    Returns:
        (B, 2) bool: of the kinds, of the place.
    """
    right = (found.kinds.argmax(dim=-1) == kinds).all(dim=-1)
    return torch.stack([right, found.places.argmax(dim=-1) == places], dim=1)
