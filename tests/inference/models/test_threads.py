"""What torch models share: the device is there, sums come out the same, and nothing is left changed."""

import importlib
import sys

import pytest
import torch

from refloom.inference import models
from refloom.inference.models.threads import check_device, one_thread, repeatable
from refloom.schemas.errors import Refused


def test_one_thread_is_one_and_what_was_set_comes_back_even_after_an_error():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        with pytest.raises(ZeroDivisionError), one_thread():
            _ = 1 / 0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_repeatable_means_no_gradients_one_thread_and_fixed_convolutions():
    def state() -> tuple[object, ...]:
        flags = torch.backends.cudnn
        return (torch.is_inference_mode_enabled(), torch.get_num_threads(), flags.deterministic, flags.allow_tf32)

    @repeatable()
    def inside() -> tuple[object, ...]:
        return state()

    before = state()
    assert inside() == inside() == (True, 1, True, False)
    assert state() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused_and_the_cpu_is_not():
    check_device("some-model", "cpu")
    with pytest.raises(Refused, match=r"some-model was asked to run on cuda:1.*use device=cpu"):
        check_device("some-model", "cuda:1")


def test_models_that_need_no_timm_do_not_import_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # whoever imports it now fails
    for name in ("dinov2", "hfcaptioner", "sam"):
        module = importlib.import_module(f"refloom.inference.models.{name}")
        monkeypatch.setattr(models, name, module)
        monkeypatch.delitem(sys.modules, module.__name__)
        assert importlib.import_module(module.__name__) is not module
