"""The methods by name."""

from training.methods.easyref import EasyRef
from training.methods.ezigen import EZIGen
from training.methods.heads import MIP, IPAdapter
from training.methods.method import Method
from training.methods.ms_diffusion import MSDiffusion

METHODS: dict[str, Method] = {
    method.kind: method for method in (EasyRef(), EZIGen(), IPAdapter(), MIP(), MSDiffusion())
}
