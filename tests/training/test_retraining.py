"""docs/retraining.md: every command in it parses, and every setting that it names is there."""

import re
import shlex
from collections.abc import Iterator

import pytest
import yaml
from places import ROOT
from ray.autoscaler._private.util import prepare_config, validate_config

from refloom import cli
from refloom.curation.config import Curation
from refloom.schemas import settings
from refloom.training.recipes import book
from refloom.training.recipes.validation import Validation

TEXT = (ROOT / "docs" / "retraining.md").read_text("utf-8").replace("\\\n", " ")
BLOCKS = [block for block in re.findall(r"(?:^(?:    .*)?\n)+", TEXT, re.M) if block.strip()]
COMMANDS = [
    *re.findall(r"^    ((?:refloom|accelerate) .*)$", TEXT, re.M),
    *re.findall(r"^    srun bash -c '(.*)'$", TEXT, re.M),
    *re.findall(r"^    ray job submit .* python -m (refloom .*)$", TEXT, re.M),
]


def block(start: str) -> str:
    return next(one for one in BLOCKS if one.lstrip().startswith(start))


def trains() -> Iterator[list[str]]:
    for command in COMMANDS:
        program, *words = shlex.split(command)
        if program == "accelerate":
            yield ["train", *(word for word in words[words.index("refloom.training") + 1 :] if word != "$RESUME")]
        elif words[0] == "train":
            yield words


def test_every_command_parses() -> None:
    assert len(COMMANDS) > 20
    for command in COMMANDS:
        program, *words = shlex.split(command)
        if program != "accelerate":
            cli.build_parser().parse_args(words)
    for words in trains():
        cli.build_parser().parse_args(words)


def test_every_method_is_trained_and_evaluated() -> None:
    trained = {words[words.index("--config") + 1] for words in trains()}
    assert trained == {name for name in book.names() if not name.startswith(("base/", "debug/", "tiny/"))} - {
        "ip_adapter",
        "mip/sdxl_plus",
    }
    assert len(re.findall(r"^    refloom evaluate", TEXT, re.M)) == 4


@pytest.mark.parametrize("words", list(trains()), ids=lambda words: words[words.index("--config") + 1])
def test_settings_of_training_are_there(words: list[str]) -> None:
    options = cli.build_parser().parse_args(words)
    recipe = book.load(options.config, options.overrides)
    assert recipe.data.sources


def test_settings_of_curation_are_there() -> None:
    named = re.findall(r"`?--set '?((?:balance|compose|dedup|models)\.[a-z_]+=[^'`\s]+(?: [^'`]+\])?)", TEXT)
    named += re.findall(r"`((?:balance|compose)\.[a-z_]+=[^`]+)`", TEXT)
    named = [one for one in named if not one.startswith("models.start")]
    assert len(named) > 4
    for one in named:
        settings.load(Curation, overrides=[one])


def test_the_example_of_validation_is_one() -> None:
    found = settings.build(Validation, yaml.safe_load(block("validation:"))["validation"])
    assert (found.samples, len(found.prompts)) == (4, 1)


def test_the_cluster_file_hangs_together() -> None:
    cluster = yaml.safe_load(block("cluster_name:").split("ray job")[0])
    kinds = cluster["available_node_types"]
    assert cluster["head_node_type"] in kinds
    assert sum(kind.get("max_workers", 0) for kind in kinds.values()) == cluster["max_workers"]
    validate_config(prepare_config(cluster))
