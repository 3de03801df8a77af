"""What bases of toys are measured by: line-ups of one kind, copies in decibels, and an oracle that always finds."""

import numpy as np
import pytest
import torch

from benchmarks.toys import TOYS, copies, found_at, lineup, tiled
from refloom.inference.evaluation.judges import Judge, JudgeConfig, Judged
from refloom.ingest.sampledata import albums
from refloom.training.views.example import Drops, Example, SizeCondition


class Mean(Judge):
    """It looks at the middle of a picture and calls its colour the look."""

    def forward(self, pixels: torch.Tensor) -> Judged:
        looks = torch.nn.functional.normalize(pixels[:, :, 36:52, 24:40].mean(dim=(2, 3)), dim=-1)
        return Judged(torch.zeros(len(pixels), 13, 3), torch.zeros(len(pixels), 8), looks)


def test_a_lineup_is_of_one_kind_in_two_places() -> None:
    for number in range(3):
        lined = lineup(number)
        told = albums.told(lined.caption)
        assert told is not None
        assert list(told.kinds.values()) == [1]
        assert len({portrait.tobytes() for portrait in lined.portraits}) == TOYS
    assert lineup(0).caption == lineup(0).caption
    assert (lineup(0).scene != lineup(1).scene).any()


def test_the_toy_of_a_scene_is_the_first_of_its_lineup() -> None:
    judge = Mean(JudgeConfig(kinds=albums.KINDS, places=albums.places(), widths=(8, 16), look=16))
    lined = [lineup(13 * number) for number in range(12)]  # balls, which show their paint in the middle
    found = [found_at(judge, one.scene, one.portraits) for one in lined]
    assert found.count(0) > 3 * len(found) / TOYS, found
    again = [found_at(judge, one.portraits[3], one.portraits) for one in lined]
    assert again == [3] * len(again)


def test_copies_are_told_in_decibels_of_the_whole_range() -> None:
    pixels = np.full((8, 8, 3), 128, np.uint8)
    example = Example("one", pixels, "", (), (), Drops(), SizeCondition((8, 8), (0, 0), (8, 8)))

    class Off:
        """Copies that are off by a tenth of the range of -1 to 1."""

        class vae:  # noqa: N801
            @staticmethod
            def encode(given: torch.Tensor):
                return type("Found", (), {"latent_dist": type("Posterior", (), {"mean": given})})

            @staticmethod
            def decode(latents: torch.Tensor):
                return type("Found", (), {"sample": latents + 0.2})

    assert copies(Off, [example, example]) == pytest.approx(20, abs=1e-3)


def test_tiles_stand_row_by_row_and_the_rest_is_black() -> None:
    made = [np.full((2, 2, 3), value, np.uint8) for value in (1, 2, 3)]
    sheet = tiled(made, across=2)
    assert sheet.shape == (4, 4, 3)
    assert [int(sheet[row, column, 0]) for row, column in ((0, 0), (0, 2), (2, 0), (2, 2))] == [1, 2, 3, 0]
