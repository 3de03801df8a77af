"""`refloom generate`, `edit` and `convert` on tiny models, from the command line to the files."""

import json

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import ip_adapter, ms_adapter
from editing import Loops
from PIL import Image
from shop import shop as models_of

from refloom.inference.adapters import kinds
from refloom.inference.adapters.published import write_ip_adapter
from refloom.inference.adapters.reference import Reference
from refloom.inference.arguments import apply_settings, parse_reference, parse_settings
from refloom.inference.checkpoints import tensors as tensorfile
from refloom.inference.checkpoints import weights
from refloom.inference.pipeline import ReferencePipeline
from refloom.schemas.errors import Refused


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Bases and adapters that nothing changes, an adapter that loops, a published file, and two pictures."""
    root = tmp_path_factory.mktemp("more")
    for folder in models_of(tmp_path_factory).iterdir():
        (root / folder.name).symlink_to(folder)
    given = ip_adapter(tiny.sdxl_pipe())
    loops = Loops(given.config)
    loops.load_state_dict(given.state_dict())
    loops.save_pretrained(root / "loops")
    write_ip_adapter(given, root / "ip.safetensors")
    for name, seed in (("cat.png", 1), ("dog.png", 2)):
        Image.fromarray(tiny.picture(seed)).save(root / name)
    return root


@pytest.fixture
def call(call, shop, monkeypatch):
    """A command in this process, with its exit code and what it printed."""
    monkeypatch.setitem(kinds.METHODS.own, "loops", kinds.MethodKind(adapter="editing:Loops"))
    return call


def models(shop, adapter="ms_diffusion"):
    return [
        "--base",
        shop / "sdxl",
        "--adapter",
        shop / adapter,
        "--image-encoder",
        shop / "encoder",
        "--device",
        "cpu",
    ]


SHORT = ["--steps", 2, "--height", 64, "--width", 96, "--seed", 5]


def test_generate_writes_what_the_pipeline_makes_with_a_sheet_and_all_settings(call, shop, tmp_path):
    out = tmp_path / "out"
    subjects = ["--reference", f"{shop}/cat.png:a cat:0,0,0.5,1", "--reference", f"{shop}/dog.png:dog:scale=0.5"]
    one = [*models(shop), *subjects, "--prompt", "a cat and a dog", "--scale", 0.8, *SHORT]
    arguments = [*one, "--prompt", "a cat in the woods", "--images", 2]
    code, printed, notes = call("generate", *arguments, "--out", out)
    assert (code, printed) == (0, f"4 pictures, sheet.png and settings.json in {out}\n")
    assert "generate  step 2/2" in notes
    assert "steps/s  done" in notes
    assert "note: the prompt 'a cat in the woods' does not have the words 'dog'" in notes
    names = [f"image-{at:04d}.png" for at in range(4)]
    assert sorted(file.name for file in out.iterdir()) == [*names, "settings.json", "sheet.png"]
    settings = json.loads((out / "settings.json").read_text())
    assert [(one["file"], one["seed"], one["prompt"]) for one in settings["images"]] == [
        *((names[at], 5 + at, "a cat and a dog") for at in (0, 1)),
        *((names[at], 5 + at, "a cat in the woods") for at in (2, 3)),
    ]
    assert [(one["phrase"], one["boxes"], one["scale"]) for one in settings["references"]] == [
        ("a cat", [[0, 0, 0.5, 1]], 1.0),
        ("dog", None, 0.5),
    ]
    assert (settings["kind"], settings["options"]["scale"], settings["dtype"]) == ("ms_diffusion", 0.8, "float32")
    with ReferencePipeline.from_pretrained(
        shop / "sdxl", shop / "ms_diffusion", image_encoder=shop / "encoder"
    ) as pipeline:
        pipeline.adapter.scale = 0.8
        cat = Reference(shop / "cat.png", "a cat", (0, 0, 0.5, 1))
        pipeline.set_references([cat, Reference(shop / "dog.png", "dog", scale=0.5)])
        wanted = pipeline.generate("a cat in the woods", num_inference_steps=2, height=64, width=96, seed=7).images[0]
    seen = Image.open(out / names[2])
    assert np.abs(np.asarray(seen).astype(int) - np.asarray(wanted)).max() <= 1
    sheet = np.asarray(Image.open(out / "sheet.png"))
    small = np.asarray(Image.fromarray(tiny.picture(1)).resize((256, 182)))  # the cat, with a frame
    assert np.array_equal(sheet[12 + 37 + 3 : 12 + 37 + 179, 15:265], small[3:179, 3:253])

    code, _, error = call("generate", *arguments, "--out", out)
    assert (code, "or --replace" in error) == (2, True)
    assert call("generate", *one, "--out", out, "--replace")[0] == 0
    assert sorted(file.name for file in out.iterdir()) == [names[0], "settings.json", "sheet.png"]


def test_edit_writes_the_picture_with_its_mask_changed(call, shop, tmp_path):
    mask = np.zeros((40, 56), np.uint8)
    mask[:, :20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(tiny.picture(7)).save(tmp_path / "source.png")
    arguments = ["--source", tmp_path / "source.png", "--mask", tmp_path / "mask.png", "--prompt", "a dog there"]
    arguments += ["--reference", f"{shop}/dog.png:dog", "--out", tmp_path / "out"]
    code, _, error = call("edit", *models(shop, "loops"), *arguments)
    assert (code, error) == (0, "")
    seen = np.asarray(Image.open(tmp_path / "out/image-0000.png"))
    assert (seen[:, :20] == len("a dog there")).all()
    assert np.array_equal(seen[:, 20:], tiny.picture(7)[:, 20:])
    code, _, error = call("edit", *models(shop), *arguments, "--replace")
    assert code == 2
    assert "the ms_diffusion adapter has no editing of its own" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--reference", "gone.png:cat"], "the picture gone.png cannot be read"),
        (["--reference", "CAT:cat:0,0,1.5,1"], "boxes are x1, y1, x2, y2"),
        (["--reference", "CAT:cat:0,0,1"], "four numbers"),
        (["--reference", "CAT:cat:crop=head"], "'face', or None"),
        (["--reference", "CAT"], "give each reference one, such as 'dog'"),
        (["--base", "./gone"], "there is no base model ./gone"),
        (["--adapter", "./gone"], "there is no adapter ./gone"),
        (["--kind", "mip"], "of kind ms_diffusion, not mip"),
        (["--set", "mask_threshold"], "write it as key=value"),
        (["--set", "start_step=soon"], "start_step is a whole number from 1 to 1000, not 'soon'"),
        (["--set", "guidance=3"], "takes no guidance; did you mean guidance_scale"),
        (["--height", "63"], "multiple of 2"),
        (["--device", "tpu"], "there is no device tpu"),
        (["--images", "0"], "--images is a whole number from 1 to 1000, not 0"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_remedy_and_nothing_is_written(call, shop, tmp_path, change, message):
    change = [part.replace("CAT", f"{shop}/cat.png") for part in change]
    arguments = [*models(shop), *SHORT, "--prompt", "a cat", "--out", tmp_path / "out"]
    if "--reference" not in change:
        arguments += ["--reference", f"{shop}/cat.png:cat"]
    code, printed, error = call("generate", *arguments, *change)
    assert (code, printed) == (2, "")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_convert_reads_what_was_published_and_writes_what_diffusers_reads(call, shop, tmp_path):
    published = [shop / "ip.safetensors", tmp_path / "ours", "--kind", "ip_adapter", "--base", shop / "sdxl"]
    code, printed, _ = call("convert", *published)
    assert code == 0
    assert "ip_adapter: all keys fit" in printed
    tensors = tensorfile.read_safetensors(tmp_path / "ours" / weights.WEIGHTS_FILE)
    head = sum(tensor.numel() for key, tensor in tensors.items() if key.startswith("image_proj."))
    assert f"{head:,} numbers" in printed
    assert all(
        torch.equal(tensors[key], tensor)
        for key, tensor in tensorfile.read_safetensors(shop / "ip_adapter/adapter.safetensors").items()
    )
    assert call("convert", *published)[0] == 2, "it is there already"
    file = tmp_path / "theirs" / "ip.safetensors"
    assert call("convert", tmp_path / "ours", file, "--format", "diffusers")[0] == 0
    pipe = tiny.sdxl_pipe()
    pipe.load_ip_adapter(str(file.parent), subfolder="", weight_name=file.name, image_encoder_folder=None)
    assert pipe.unet.config.encoder_hid_dim_type == "ip_image_proj"
    assert tensorfile.read_safetensors(file).keys() == tensorfile.read_safetensors(shop / "ip.safetensors").keys()
    code, _, error = call("convert", shop / "ms_diffusion", tmp_path / "ms.safetensors", "--format", "diffusers")
    assert (code, "plain IP-Adapters alone" in error) == (2, True)
    code, _, error = call("convert", shop / "ip_adapter", tmp_path / "lora.safetensors", "--format", "lora")
    assert (code, "only EasyRef has a LoRA" in error) == (2, True)
    code, _, error = call("convert", shop / "ip.safetensors", tmp_path / "x", "--kind", "mip", "--base", shop / "sdxl")
    assert (code, "read it as kind ip_adapter" in error) == (2, True)
    code, _, error = call("convert", shop / "ip.safetensors", tmp_path / "x", "--kind", "ip_adapter")
    assert (code, "give --base too" in error) == (2, True)
    assert not (tmp_path / "x").exists()


def test_a_reference_is_written_as_file_phrase_and_place(tmp_path):
    Image.fromarray(tiny.picture(0)).save(tmp_path / "a:b.png")
    mask = Image.fromarray(np.eye(8, dtype=bool))
    mask.save(tmp_path / "mask.png")
    one = parse_reference(
        f'{tmp_path}/a:b.png:"a red cat":0.1,0.2,.6,0.9:0,0,1,1e-1:scale=0.3:crop=face:mask={tmp_path}/mask.png'
    )
    assert (one.phrase, one.scale, one.crop) == ("a red cat", 0.3, "face")
    assert one.boxes == ((0.1, 0.2, 0.6, 0.9), (0.0, 0.0, 1.0, 0.1))
    assert np.array_equal(one.masks[0], np.eye(8, dtype=bool))
    assert np.array_equal(one.images[0], tiny.picture(0))
    (tmp_path / "pictures").mkdir()
    Image.fromarray(tiny.picture(1)).save(tmp_path / "pictures/1.png")
    assert len(parse_reference(f"{tmp_path}/pictures").images) == 1
    for wrong, message in (
        (":cat:dog", "'dog' is not understood"),
        (":scale=big", "the scale is a number from 0 to 100"),
    ):
        with pytest.raises(Refused, match=message):
            parse_reference(f"{tmp_path}/a:b.png{wrong}")


def test_settings_are_the_adapters_or_its_generations():
    adapter = ms_adapter(tiny.sdxl_pipe())
    others = apply_settings(adapter, parse_settings(["mask_threshold=0.5", "faithful=true", "clip_skip=1", "scale=2"]))
    assert (adapter.mask_threshold, adapter.faithful, adapter.scale) == (0.5, True, 2)
    assert others == {"clip_skip": 1}
    for wrong in ("faithful=1", "start_step=2.5", "scale=much"):
        with pytest.raises(Refused, match=wrong.partition("=")[0]):
            apply_settings(adapter, parse_settings([wrong]))
    for hidden in ("_site=1", "training=true", "image_encoder=5", "kind=mip"):
        with pytest.raises(Refused, match=f"takes no {hidden.partition('=')[0]}"):
            apply_settings(adapter, parse_settings([hidden]))
