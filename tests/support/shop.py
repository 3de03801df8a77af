"""Folders of models as a user has them, made once for all tests."""

from pathlib import Path

import pytest
import tinypipes as tiny
from adapting import easyref_adapter, ezigen_adapter, ip_adapter, mip_adapter, ms_adapter
from curatedata import once

ADAPTERS = {
    "ip_adapter": (tiny.sdxl_pipe, ip_adapter),
    "mip": (tiny.sdxl_pipe, mip_adapter),
    "ms_diffusion": (tiny.sdxl_pipe, ms_adapter),
    "easyref": (tiny.sdxl_pipe, easyref_adapter),
    "ezigen": (tiny.sd_pipe, ezigen_adapter),
}
"""Of each kind a base, and what makes an adapter for it."""


@once
def shop(factory: pytest.TempPathFactory) -> Path:
    """Bases `sdxl` and `sd`, an image encoder `encoder`, an adapter of each kind; a test that changes one copies it."""
    root = factory.mktemp("shop")
    tiny.sdxl_pipe().save_pretrained(root / "sdxl")
    tiny.sd_pipe().save_pretrained(root / "sd")
    tiny.image_encoder().save_pretrained(root / "encoder")
    for kind, (make_pipe, make) in ADAPTERS.items():
        make(make_pipe()).save_pretrained(root / kind)
    return root
