"""The view of each recipe, with the settings of its method where our defaults are not looser on purpose."""

from training.views.base import Base
from training.views.cutouts import Cutout
from training.views.easyref import EasyRef
from training.views.ezigen import EZIGen
from training.views.ip_adapter import IPAdapter
from training.views.mip import MIP
from training.views.ms_diffusion import MSDiffusion
from training.views.view import View

VIEWS: dict[str, type[View]] = {kind.name: kind for kind in (Base, EasyRef, EZIGen, IPAdapter, MIP, MSDiffusion)}

RECIPES: dict[str, View] = {
    "easyref/1-alignment": EasyRef(stage="alignment"),
    "easyref/2-single": EasyRef(stage="single"),
    "easyref/3-multi": EasyRef(stage="multi"),
    "ezigen": EZIGen(),
    "mip/sdxl": MIP(cutout=Cutout(side_px=224)),
    "mip/sdxl_plus": MIP(cutout=Cutout(side_px=224)),
    "ms_diffusion": MSDiffusion(),
    "ip_adapter": IPAdapter(),
    "base/tiny/clip": Base(),
    "base/tiny/qwen2vl": Base(),
    "base/tiny/sd": Base(),
    "base/tiny/sdxl": Base(),
}
