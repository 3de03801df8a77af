"""What MIP-Adapter's `faithful` changes: pictures of references that differ in strength, and no others."""

import numpy as np
import pytest
import tinypipes as tiny
from adapting import conditioned, mip_adapter, references

from refloom.inference.adapters.reference import Reference


@pytest.fixture(scope="module")
def pipe():
    return tiny.sdxl_pipe()


def both(pipe, given):
    adapter = mip_adapter(pipe).attach(pipe)
    outs = []
    for faithful in (False, True):
        adapter.faithful = faithful
        outs.append(conditioned(pipe, adapter, given))
    adapter.detach()
    return outs


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_with_one_strength_empty_phrases_in_the_negative_half_change_nothing(pipe, scale):
    """Their lengths differ too, so that the weights do: spec B1.5, corrected."""
    ours, published = both(pipe, references(0, 1, phrases=("wooden pot", "cat"), scale=scale))
    np.testing.assert_allclose(ours, published, atol=1e-4)


def test_with_different_strengths_they_change_the_picture(pipe):
    given = [Reference((tiny.picture(0),), "wooden pot", scale=1.5), Reference((tiny.picture(1),), "cat", scale=0.2)]
    ours, published = both(pipe, given)
    assert np.abs(ours - published).max() > 1e-3
