"""Samples of a dataset in a PyTorch loop of one's own.

    python examples/own_training_loop.py DATASET

A view of a recipe decides what a sample becomes: here `ip_adapter`, a captioned picture and a reference of its subject.
The loop trains a small encoder to tell which reference belongs to which target (InfoNCE, arXiv 1807.03748); put what
you train in its place. Batches are a function of the seed, on any number of processes; `batch.state` resumes them.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import refloom
from refloom.training.recipes import book
from refloom.training.views.example import Example, targets

SIDE_PX = 64
TEMPERATURE = 0.1


def pixels(pictures: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, SIDE_PX, SIDE_PX) in -1 to 1."""
    return functional.interpolate(pictures.permute(0, 3, 1, 2).float(), (SIDE_PX, SIDE_PX), mode="area") / 127.5 - 1


def references(examples: tuple[Example, ...]) -> Tensor:
    """The first picture of the first reference of each of B examples, (B, 3, SIDE_PX, SIDE_PX)."""
    return torch.cat([pixels(torch.from_numpy(one.references[0].images[0])[None]) for one in examples])


def train(dataset: Path, steps: int, batch: int = 8, threads: int = 2) -> list[float]:
    """Train the encoder.

    Args:
        dataset: curated.
        steps: of the optimiser.
        batch: samples of a step.
        threads: that read and decode.

    Returns:
        The loss of each step.
    """
    recipe = book.load(
        "ip_adapter",
        {
            "data.sources": [{"url": str(dataset)}],
            "data.side_px": SIDE_PX,
            "data.threads": threads,
            "batch.samples": batch,
        },
    )
    torch.manual_seed(recipe.seed)
    encoder = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=4),
        nn.SiLU(),
        nn.Conv2d(16, 32, 3, stride=2),
        nn.SiLU(),
        nn.Flatten(),
        nn.LazyLinear(32),
    )
    losses = []
    with refloom.Loader(recipe.data.sources, recipe.view, recipe.loading) as loader:
        optimizer = None
        for _, given in zip(range(steps), loader, strict=False):
            anchors = functional.normalize(encoder(pixels(torch.from_numpy(targets(given.examples)))), dim=-1)
            others = functional.normalize(encoder(references(given.examples)), dim=-1)
            loss = functional.cross_entropy(anchors @ others.T / TEMPERATURE, torch.arange(len(anchors)))
            optimizer = optimizer or torch.optim.AdamW(encoder.parameters(), lr=1e-3)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    for step, loss in enumerate(train(Path(sys.argv[1]), steps=20), 1):
        print(f"step {step}: loss {loss:.3f}")
