"""What trainers read of their layouts, written after their published descriptions and nothing else.

Each gives, for every example in order, its references as (H, W, 3) sRGB, its text, and its target. All of them open
images with Pillow and convert them to RGB, and take no notice of EXIF orientation.
"""

import io
import json
import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image

Pixels = np.ndarray


class Example(NamedTuple):
    references: list[Pixels]
    text: str
    target: Pixels


def _open(file: Any) -> Pixels:
    return np.asarray(Image.open(file).convert("RGB"))


def omnigen2(folder: Path, split: str) -> Iterator[Example]:
    """docs/FINETUNE.md: a yml of {path, type, ratio}; json lines with paths that are opened as they stand."""
    config = yaml.safe_load((folder / f"{split}.yml").read_text())
    for data in config["data"]:
        assert isinstance(data["ratio"], float)
        assert os.path.splitext(data["path"])[-1] in (".json", ".jsonl", ".yml", ".yaml")
        for line in Path(data["path"]).read_text().splitlines():
            item = json.loads(line)
            assert set(item) == {"task_type", "instruction", "input_images", "output_image"}
            assert item["task_type"] == data["type"] == "ic"
            references = [_open(path) for path in item["input_images"]]
            yield Example(references, item["instruction"], _open(item["output_image"]))


def diffsynth(folder: Path, split: str) -> Iterator[Example]:
    """unified_dataset.py: json lines; `image` and `edit_image` are paths below --dataset_base_path, or lists."""
    for line in (folder / f"{split}.jsonl").read_text().splitlines():
        item = json.loads(line.strip())
        assert set(item) == {"image", "prompt", "edit_image"}
        assert isinstance(item["edit_image"], list)
        references = [_open(os.path.join(folder, path)) for path in item["edit_image"]]
        yield Example(references, item["prompt"], _open(os.path.join(folder, item["image"])))


def musubi(folder: Path, split: str) -> Iterator[Example]:
    """docs/dataset_config.md: a TOML that names the json lines; control_path_0, _1, ... are numbered from 0 on."""
    config = tomllib.loads((folder / f"{split}.toml").read_text())
    assert config["general"]["enable_bucket"] is True
    (dataset,) = config["datasets"]
    assert dataset["cache_directory"]
    assert len(dataset["control_resolution"]) == 2
    for line in Path(dataset["image_jsonl_file"]).read_text().splitlines():
        item = json.loads(line)
        controls = sorted((key for key in item if key.startswith("control_path_")), key=lambda key: int(key[13:]))
        assert controls == [f"control_path_{number}" for number in range(len(controls))]
        assert set(item) == {"image_path", "caption", *controls}
        yield Example([_open(item[key]) for key in controls], item["caption"], _open(item["image_path"]))


def bagel(folder: Path, split: str) -> Iterator[Example]:
    """TRAIN.md of Bagel and MICo-150K: Parquet files, row groups in a json; the last of `image_list` is made."""
    info = json.loads((folder / "parquet_info" / f"{split}.json").read_text())
    listed = sorted(
        os.path.join(folder, split, name) for name in os.listdir(folder / split) if name.endswith(".parquet")
    )
    assert sorted(info) == listed
    for path in listed:
        file = pq.ParquetFile(path)
        assert info[path]["num_row_groups"] == file.num_row_groups
        for group in range(info[path]["num_row_groups"]):
            for _, row in file.read_row_group(group).to_pandas().iterrows():
                images = [_open(io.BytesIO(data)) for data in row["image_list"]]
                assert row["instruction_list"][0] == row["instruction"]
                yield Example(images[:-1], row["instruction"], images[-1])


def uno(folder: Path, split: str) -> Iterator[Example]:
    """FluxPairedDatasetV2: one json list, paths relative to the file."""
    for item in json.loads((folder / f"{split}.json").read_text()):
        assert set(item) == {"image_paths", "prompt", "image_tgt_path"}
        references = [_open(os.path.join(folder, path)) for path in item["image_paths"]]
        yield Example(references, item["prompt"], _open(os.path.join(folder, item["image_tgt_path"])))


def ai_toolkit(folder: Path, split: str) -> Iterator[Example]:
    """control.py: of each target the controls of its name, folder by folder, with any of four extensions."""
    (dataset,) = yaml.safe_load((folder / f"{split}.yaml").read_text())["datasets"]
    controls = [dataset[f"control_path_{number}"] for number in (1, 2, 3)]
    ends = (".jpg", ".jpeg", ".png", ".webp")
    for name in sorted(os.listdir(dataset["folder_path"])):
        stem, end = os.path.splitext(name)
        if end not in ends:
            continue
        found = [
            next((path for end in ends if os.path.exists(path := os.path.join(control, stem + end))), None)
            for control in controls
        ]
        text = Path(dataset["folder_path"], f"{stem}.{dataset['caption_ext']}").read_text()
        references = [_open(path) for path in found if path is not None]
        yield Example(references, text, _open(os.path.join(dataset["folder_path"], name)))


READERS: dict[str, Callable[[Path, str], Iterator[Example]]] = {
    "omnigen2": omnigen2,
    "diffsynth": diffsynth,
    "musubi": musubi,
    "bagel": bagel,
    "uno": uno,
    "ai-toolkit": ai_toolkit,
}


class Grounded(NamedTuple):
    image: Pixels
    caption: str
    entities: list[dict[str, Any]]


def simpletuner(folder: Path, split: str) -> Iterator[Grounded]:
    """DATALOADER.md, Grounding: beside each image a `.bbox` of the same base name, and here a `.txt`."""
    (config,) = json.loads((folder / f"{split}.json").read_text())
    assert config["grounding"] == {"enabled": True}
    assert config["caption_strategy"] == "textfile"
    root = folder / config["instance_data_dir"]
    for path in sorted(root.rglob("*")):
        if path.suffix not in (".jpg", ".jpeg", ".png", ".webp"):
            continue
        entities = json.loads(path.with_suffix(".bbox").read_text())
        for entity in entities:
            x1, y1, x2, y2 = entity["bbox"]
            assert 0 <= x1 < x2 <= 1
            assert 0 <= y1 < y2 <= 1
            assert isinstance(entity["label"], str)
        yield Grounded(_open(path), path.with_suffix(".txt").read_text(), entities)
