"""The arguments of the commands that make pictures. Imports nothing that takes time."""

import argparse
from typing import Any

from refloom.cli.command import add_command, add_pool, add_ranged

KINDS = "ip_adapter, mip, ms_diffusion, easyref, ezigen"
_MODELS = "--base sdxl --adapter ms_diffusion --image-encoder vit-bigg"

_CASE_TIMEOUT_S = 3600.0


def add_commands(commands: Any) -> None:
    """Add generate, edit, convert, ui and evaluate.

    Args:
        commands: where subcommands go.
    """
    generate = add_command(
        commands,
        "generate",
        "refloom.cli.generate:generate",
        "Make pictures of a prompt with references in them, with a contact sheet and all settings beside them.",
        f'  refloom generate {_MODELS} --reference cat.jpg:"a cat":0.1,0.2,0.6,0.9 --prompt "a cat" --out OUT\n'
        '  refloom generate --base sdxl --adapter easyref --reference pictures/ --prompt "in a cafe" --out OUT',
    )
    _add_models(generate)
    _add_request(generate)

    edit = add_command(
        commands,
        "edit",
        "refloom.cli.generate:edit",
        "Put references into a part of a picture, with an adapter that edits.",
        "  refloom edit --base sd21 --adapter ezigen --reference dog.jpg:dog --source beach.jpg --mask mask.png "
        '--prompt "a dog on the beach" --set iterations=3 --out OUT',
    )
    edit.add_argument("--source", required=True, metavar="FILE", help="the picture")
    edit.add_argument("--mask", required=True, metavar="FILE", help="of its size, white where it may change")
    _add_models(edit)
    _add_request(edit)

    convert = add_command(
        commands,
        "convert",
        "refloom.cli.generate:convert",
        "Turn a published checkpoint into refloom's safetensors and config, or into a file that diffusers reads.",
        "  refloom convert ms_adapter.bin OUT --kind ms_diffusion --base sdxl\n"
        "  refloom convert OUT_FOLDER ip.safetensors --format diffusers",
    )
    convert.add_argument("adapter", metavar="ADAPTER", help="published checkpoint, or a folder of refloom's")
    convert.add_argument("out", metavar="OUT", help="new folder; a .safetensors file with another --format")
    convert.add_argument("--kind", metavar="KIND", help=f"of a published checkpoint: {KINDS}")
    convert.add_argument("--base", metavar="BASE", help="it was trained for; only unet/config.json is read")
    convert.add_argument("--tokenizer", metavar="FOLDER", help="of its language model, to be kept with it")
    convert.add_argument(
        "--format",
        choices=("refloom", "diffusers", "lora"),
        default="refloom",
        help="diffusers: what `pipe.load_ip_adapter` reads, for plain IP-Adapters; lora: EasyRef's LoRA alone, which "
        "`pipe.load_lora_weights` reads",
    )
    convert.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), help="of the weights (default: as they are)")
    convert.add_argument("--replace", action="store_true", help="overwrite OUT")

    page = add_command(
        commands,
        "ui",
        "refloom.cli.generate:ui",
        "Serve a local page: references with phrases, places drawn with the mouse, a gallery.",
        f"  refloom ui {_MODELS}\n  refloom ui --base sdxl --adapter mip --port 8080",
    )
    _add_models(page)
    page.add_argument("--host", default="127.0.0.1", help="to listen on; anything else lets others use this machine")
    add_ranged(page, "--port", "refloom.schemas.ranges:PORT", default=0, help="0 takes a free one")
    _add_evaluate(commands)


def _add_evaluate(commands: Any) -> None:
    evaluate = add_command(
        commands,
        "evaluate",
        "refloom.cli.evaluate:run",
        "Make the pictures of a benchmark, measure them, and set the published numbers beside. Resumes.",
        f"  refloom evaluate --benchmark ms-bench --data MS-Bench {_MODELS} --out OUT\n"
        "  refloom evaluate --benchmark groups --data DATASET --base sdxl --adapter easyref --limit 50 --out OUT",
    )
    evaluate.add_argument(
        "--benchmark",
        required=True,
        metavar="{concept101,ms-bench,dreambench,dreamedit,groups,cross}",
        help="or one that a plugin adds",
    )
    evaluate.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="its published files; of groups and cross a dataset, whose validation split counts",
    )
    evaluate.add_argument("--out", required=True, metavar="DIR", help="new folder, or the one to go on with")
    add_ranged(
        evaluate,
        "--limit",
        "refloom.schemas.ranges:COUNT",
        metavar="N",
        help="only the first N prompts; a later run may take more",
    )
    evaluate.add_argument("--metrics", metavar="A,B", help="which, such as clip_t,dino (default: all)")
    evaluate.add_argument("--dry-run", action="store_true", help="say what would be made, and measured by what")
    encoders = evaluate.add_argument_group("encoders of the scores, names of `refloom models`, auto or none")
    encoders.add_argument("--clip", default="auto", metavar="NAME", help="auto: OpenAI's ViT-B/32 before others")
    encoders.add_argument("--dino", default="auto", metavar="NAME", help="auto: ViT-S/16 of DINO before DINOv2")
    encoders.add_argument(
        "--detector", default="auto", metavar="NAME", help="finds the subjects on what is made; auto: Grounding DINO"
    )
    _add_models(evaluate)
    making = evaluate.add_argument_group("pictures")
    add_ranged(
        making,
        "--seed",
        "refloom.inference.ranges:SEED",
        default=0,
        help="from which every picture's own seed follows",
    )
    add_ranged(
        making,
        "--references",
        "refloom.schemas.ranges:COUNT",
        metavar="N",
        help="of a subject (default: the benchmark's own choice)",
    )
    add_ranged(
        making,
        "--batch",
        "refloom.schemas.ranges:COUNT",
        default=1,
        metavar="N",
        help="pictures of a prompt made at once",
    )
    making.add_argument("--negative-prompt", metavar="TEXT", help="of all prompts")
    _add_shape(making)
    add_pool(evaluate)
    # a case is slow; and without GPUs one worker holds all the memory that a pipeline needs
    evaluate.set_defaults(item_timeout=_CASE_TIMEOUT_S)


def _add_models(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("models", "each a folder, or OWNER/NAME on a Hub")
    group.add_argument(
        "--base", required=True, metavar="BASE", help="diffusers pipeline of Stable Diffusion 1, 2 or XL"
    )
    group.add_argument("--adapter", required=True, metavar="ADAPTER", help="folder of one, or a published checkpoint")
    group.add_argument("--kind", metavar="KIND", help=f"of a published checkpoint: {KINDS}")
    group.add_argument("--image-encoder", metavar="CLIP", help="that reads references, if the base has none")
    group.add_argument("--tokenizer", metavar="FOLDER", help="of the adapter's language model, if it has none")
    group.add_argument("--face-model", default="auto", metavar="NAME", help="for crop=face; see `refloom models`")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ...; auto takes a GPU if there is one")
    group.add_argument(
        "--dtype", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="auto: bf16 on a GPU, else fp32"
    )
    group.add_argument("--variant", metavar="NAME", help="of the base's files, such as fp16")
    add_ranged(
        group,
        "--scale",
        "refloom.inference.ranges:SCALE",
        default=1.0,
        help="strength of the references; 0 is the base alone",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="a setting of the adapter (mask_threshold=0.5) or of its generation (split_ratio=0.4); may be repeated",
    )


def _add_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reference",
        required=True,
        action="append",
        metavar="FILE[:PHRASE][:BOX]",
        dest="references",
        help="a subject: picture, or a folder of pictures of it; its name; its place in the result as x1,y1,x2,y2 in "
        "0-1; also :scale=0.8, :crop=face, :mask=FILE; may be repeated",
    )
    parser.add_argument("--prompt", required=True, action="append", dest="prompts", help="may be repeated")
    parser.add_argument("--negative-prompt", metavar="TEXT", help="of all prompts")
    parser.add_argument("--out", required=True, metavar="DIR", help="new or empty folder")
    add_ranged(parser, "--images", "refloom.inference.ranges:IMAGES", default=1, metavar="N", help="of each prompt")
    _add_shape(parser)
    add_ranged(
        parser,
        "--reference-guidance-scale",
        "refloom.inference.ranges:GUIDANCE",
        metavar="S",
        help="of the references by themselves; a step costs half as much again (default: guided with the text)",
    )
    add_ranged(
        parser,
        "--seed",
        "refloom.inference.ranges:SEED",
        help="of the first picture, counting up (default: drawn, and written down)",
    )
    parser.add_argument("--replace", action="store_true", help="throw away an earlier result that lies in DIR")


def _add_shape(parser: Any) -> None:
    add_ranged(parser, "--height", "refloom.inference.ranges:SIDE_PX", metavar="PX", help="(default: the base's own)")
    add_ranged(parser, "--width", "refloom.inference.ranges:SIDE_PX", metavar="PX", help="(default: the base's own)")
    add_ranged(
        parser,
        "--steps",
        "refloom.inference.ranges:STEPS",
        metavar="N",
        help="of denoising (default: the base's own)",
    )
    add_ranged(
        parser,
        "--guidance-scale",
        "refloom.inference.ranges:GUIDANCE",
        metavar="G",
        help="of the text (default: the base's own)",
    )
