"""The layouts of today's trainers: where images lie, what a line says of them, and the file that a trainer is told of.

omnigen2     <split>.jsonl {task_type, instruction, input_images, output_image}; <split>.yml, which names it
             VectorSpaceLab/OmniGen2, docs/FINETUNE.md and omnigen2/dataset/omnigen2_train_dataset.py
diffsynth    <split>.jsonl {image, prompt, edit_image}, relative to --dataset_base_path
             modelscope/DiffSynth-Studio, diffsynth/core/data/unified_dataset.py, Qwen-Image-Edit-2509.sh
musubi       <split>.jsonl {image_path, control_path_0, control_path_1, ..., caption}; <split>.toml
             kohya-ss/musubi-tuner, docs/dataset_config.md, "Sample for Image Dataset with Control Images"
bagel        <split>/*.parquet {image_list, instruction}, the last image is the target; parquet_info/<split>.json
             ByteDance-Seed/Bagel, TRAIN.md; A113N-W3I/MICo-150K, TRAIN.md (the row); loaders for several references
             that keep Bagel's own name read the first of `instruction_list`
uno          <split>.json [{image_paths, prompt, image_tgt_path}, ...], relative to the file
             bytedance/UNO, uno/datasets/dataset.py: FluxPairedDatasetV2
ai-toolkit   <split>/images/<key>.jpg with <key>.txt, <split>/control_1/<key>.* to control_3; <split>.yaml
             ostris/ai-toolkit, toolkit/dataloader_mixins: control images have the target's name without its extension

A line holds the keys of its trainer and no other. `sources.jsonl` says of every example which sample and images it is
made of, their licenses and addresses.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson
import pyarrow as pa
import yaml

from refloom.schemas import parquet
from refloom.schemas.storage import Folder, HashingFile
from refloom.sharing.export.edit.settings import Edit
from refloom.sharing.export.folder import Place
from refloom.sharing.export.parts import Record

BAGEL = pa.schema(
    [
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("instruction_list", pa.list_(pa.string()), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("image_list", pa.list_(pa.binary()), nullable=False),
    ]
)
"""References in their order, then the target."""
_CONTROLS = 3
_RESOLUTION = 1024


# -- where the files of an example lie ---------------------------------------------------------------------------------


def paths(edit: Edit, unit: str, split: str, key: str, extensions: list[str]) -> list[str]:
    """Names of an example's files, the target's first, then of each reference.

    Args:
        edit: settings.
        unit: that writes them; a folder of its own keeps folders small where the layout lets it.
        split: train or validation.
        key: of the example, unique in the split.
        extensions: with their dots, one for each file.
    """
    if edit.layout == "ai-toolkit":
        folders = ["images", *(f"control_{number}" for number in range(1, len(extensions)))]
        return [f"{split}/{folder}/{key}{end}" for folder, end in zip(folders, extensions, strict=True)]
    names = ["", *(f"_{number}" for number in range(1, len(extensions)))]
    return [f"images/{split}/{unit}/{key}{name}{end}" for name, end in zip(names, extensions, strict=True)]


def beside(edit: Edit, record: Record) -> Iterator[tuple[str, bytes]]:
    """Further files of an example: name and content."""
    if edit.layout == "ai-toolkit":
        yield f"{record['split']}/images/{record['key']}.txt", record["instruction"].encode()


# -- what a line says --------------------------------------------------------------------------------------------------


def _omnigen2(record: Record, at: Callable[[str], str]) -> Record:
    return {
        "task_type": "ic",
        "instruction": record["instruction"],
        "input_images": [at(name) for name in record["references"]],
        "output_image": at(record["target"]),
    }


def _diffsynth(record: Record, at: Callable[[str], str]) -> Record:
    references = [at(name) for name in record["references"]]
    return {"image": at(record["target"]), "prompt": record["instruction"], "edit_image": references}


def _musubi(record: Record, at: Callable[[str], str]) -> Record:
    controls = {f"control_path_{number}": at(name) for number, name in enumerate(record["references"])}
    return {"image_path": at(record["target"]), **controls, "caption": record["instruction"]}


def _uno(record: Record, at: Callable[[str], str]) -> Record:
    references = [at(name) for name in record["references"]]
    return {"image_paths": references, "prompt": record["instruction"], "image_tgt_path": at(record["target"])}


_LINES: dict[str, Callable[[Record, Callable[[str], str]], Record]] = {
    "omnigen2": _omnigen2,
    "diffsynth": _diffsynth,
    "musubi": _musubi,
    "uno": _uno,
}


# -- the files that name it all to the trainer -------------------------------------------------------------------------


def join(place: Place, edit: Edit, split: str, records: Iterable[Record], files: dict[str, int]) -> None:
    """Write what names the examples of a split to the trainer.

    Args:
        place: where.
        edit: settings.
        split: train or validation.
        records: of its examples, in order.
        files: of bagel: name of each Parquet file to its row groups.
    """

    def at(name: str) -> str:
        return f"{edit.prefix.rstrip('/')}/{name}" if edit.prefix else name

    line = _LINES.get(edit.layout)
    if line is not None:
        is_list = edit.layout == "uno"
        with place.create(f"{split}.{'json' if is_list else 'jsonl'}") as sink:
            _write((line(record, at) for record in records), sink, is_list=is_list)
    for name, content in _configs(edit.layout, split, at, files).items():
        place.write(name, content)


def _write(lines: Iterable[Record], sink: HashingFile, *, is_list: bool) -> None:
    """Json lines, or one list of them."""
    between = b"[\n" if is_list else b""
    for line in lines:
        sink.write(between + orjson.dumps(line))
        between = b",\n" if is_list else b"\n"
    sink.write((b"[]\n" if between == b"[\n" else b"\n]\n") if is_list else between)


def _configs(layout: str, split: str, at: Callable[[str], str], files: dict[str, int]) -> dict[str, bytes]:
    """Name to content of the files that a trainer is started with."""
    if layout == "omnigen2":
        return {f"{split}.yml": _yaml({"data": [{"path": at(f"{split}.jsonl"), "type": "ic", "ratio": 1.0}]})}
    if layout == "musubi":
        names = {"jsonl": _toml(at(f"{split}.jsonl")), "cache": _toml(at(f"{split}.cache"))}
        return {f"{split}.toml": _MUSUBI.format(**names).encode()}
    if layout == "bagel":
        groups = {at(name): {"num_row_groups": count} for name, count in files.items()}
        return {f"parquet_info/{split}.json": orjson.dumps(groups, option=orjson.OPT_INDENT_2)}
    if layout == "ai-toolkit":
        controls = {f"control_path_{number}": at(f"{split}/control_{number}") for number in range(1, _CONTROLS + 1)}
        dataset = {"folder_path": at(f"{split}/images"), **controls, "caption_ext": "txt", "resolution": [_RESOLUTION]}
        return {f"{split}.yaml": _yaml({"datasets": [dataset]})}
    return {}


_MUSUBI = f"""[general]
resolution = [{_RESOLUTION}, {_RESOLUTION}]
batch_size = 1
enable_bucket = true

[[datasets]]
image_jsonl_file = {{jsonl}}
cache_directory = {{cache}}
control_resolution = [{_RESOLUTION}, {_RESOLUTION}]
"""


def _yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode()


def _toml(text: str) -> str:
    """A basic string; json's escapes are TOML's."""
    return orjson.dumps(text).decode()


def row_groups(folder: Folder, name: str) -> int:
    """Of a Parquet file that was written."""
    with parquet.opened(folder, name) as reader:
        return int(reader.num_row_groups)
