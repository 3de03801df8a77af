"""Files of a model as transformers lays them out: configs that say what is asked for, and weights that fit them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers.utils import logging as transformers_logging

from refloom.inference.checkpoints import modelfolder
from refloom.inference.checkpoints.modelfolder import LIBRARY_ERRORS, TOKENIZER_ERRORS
from refloom.inference.models.entry import Entry
from refloom.schemas import strict
from refloom.schemas.wording import shown

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def read_json(entry: Entry, file: Path) -> dict[str, Any]:
    """The mapping in a json file of a model.

    Raises:
        Refused: there is none.
    """
    try:
        said = strict.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise entry.damaged(f"{file.name} is no json, or cut off") from error
    if not isinstance(said, dict):
        raise entry.damaged(f"{file.name} holds a {type(said).__name__}, not a mapping")
    return said


def check_kind(entry: Entry, config: Path, kind: str) -> None:
    """Refuse a `config.json` of another architecture."""
    said = read_json(entry, config).get("model_type")
    if said != kind:
        raise entry.damaged(f"{config.name} is of a {shown(str(said))}, not of a {kind}")


def load_net(entry: Entry, kind: Any, weights: Path, precision: str, spare: str = "(?!)", **options: Any) -> Any:
    """The network of a model's folder with its weights, from local files and without code of the folder's own.

    Args:
        entry: of the model.
        kind: class of transformers.
        weights: the file of weights; its config lies beside it.
        precision: of the network's values: fp32, bf16 or fp16.
        spare: expression of keys that the file may have besides.
        options: more of the class's `from_pretrained`.

    Raises:
        Refused: the files are damaged, or do not fit each other.
    """
    try:
        with quiet():
            net, loading = kind.from_pretrained(
                weights.parent,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=DTYPES[precision],
                output_loading_info=True,
                **options,
            )
    except LIBRARY_ERRORS as error:
        raise entry.damaged(modelfolder.trouble(weights.parent, "transformers")) from error
    check_keys(entry, loading, weights, weights.with_name("config.json"), spare)
    check_numbers(entry, net, weights)
    return net


def load_processor(entry: Entry, kind: Any, folder: Path) -> Any:
    """The processor of images that a model's `preprocessor_config.json` describes.

    Raises:
        Refused: the file is damaged, or describes none.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except LIBRARY_ERRORS as error:
        raise entry.damaged(modelfolder.trouble(folder, "transformers")) from error


def read_tokenizer(entry: Entry, file: Path) -> Tokenizer:
    """The tokenizer in a model's `tokenizer.json`.

    Raises:
        Refused: it is none.
    """
    try:
        return Tokenizer.from_file(str(file))
    except TOKENIZER_ERRORS as error:
        raise entry.damaged(f"{file.name} is no tokenizer, or cut off") from error


def check_keys(entry: Entry, loading: Mapping[str, Any], weights: Path, config: Path, spare: str = "(?!)") -> None:
    """Refuse weights that do not fit their config.

    Args:
        entry: of the model.
        loading: what transformers says of loading them.
        weights, config: the files.
        spare: expression of keys that the file may have besides.
    """
    missing = {_key(one) for name in ("missing_keys", "mismatched_keys") for one in loading[name]}
    unknown = {_key(one) for one in loading["unexpected_keys"]}
    if lost := [*missing, *(key for key in unknown if not re.fullmatch(spare, key))]:
        raise entry.damaged(modelfolder.lost(lost, weights, config))


def check_numbers(entry: Entry, net: Any, weights: Path) -> None:
    """Refuse weights with values that are no numbers."""
    for name, tensor in net.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise entry.damaged(f"{name} in {weights.name} has values that are no numbers (NaN or infinity)")


def _key(one: Any) -> str:
    """Of a misshapen tensor transformers says its shapes, too."""
    return str(one[0] if isinstance(one, tuple) else one)


@contextmanager
def quiet() -> Iterator[None]:
    """Let transformers write no progress and no report of what it loads; what was set before is set again after."""
    logging: Any = transformers_logging  # half of it has no types
    progress, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()


def pixels_of(entry: Entry, file: Path) -> tuple[int, list[float], list[float]]:
    """Side of the crops, mean and standard deviation of RGB in 0..1, from `preprocessor_config.json`.

    Raises:
        Refused: it does not say.
    """
    said = read_json(entry, file)
    try:
        height, width = int(said["crop_size"]["height"]), int(said["crop_size"]["width"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise entry.damaged(f"{file.name} has no crop_size with height and width") from error
    if height != width or height <= 0:
        raise entry.damaged(f"{file.name} is not of square pictures")
    return height, *colours_of(entry, file)


def colours_of(entry: Entry, file: Path) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of RGB in 0..1, from `preprocessor_config.json`.

    Raises:
        Refused: it does not say.
    """
    said = read_json(entry, file)
    try:
        mean, deviation = [float(v) for v in said["image_mean"]], [float(v) for v in said["image_std"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise entry.damaged(f"{file.name} has no image_mean and image_std of three numbers") from error
    if len(mean) != 3 or len(deviation) != 3:
        raise entry.damaged(f"{file.name} is not of pictures with three channels")
    return mean, deviation
