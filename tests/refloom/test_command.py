"""The command line: what it offers, what it answers with, and that it neither lies about nor hides an error."""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import curatedata
import pytest
from commands import Answer, own_signals
from curatedata import stamps
from helpers import image_ids, write_coco, write_ytvis

import refloom
from refloom import cli
from refloom.schemas.dataset import Dataset

ROOT = Path(refloom.__file__).parents[1]
REFLOOM = [sys.executable, "-m", "refloom"]

COMMANDS = """
ingest coco        --out --name --limit --unit-size --link --dry-run --retry-failed --replace --workers --address \
                   --item-timeout --images --instances --captions --crowds
ingest ytvis       --out --name --limit --unit-size --link --dry-run --retry-failed --replace --workers --address \
                   --item-timeout --frames --annotations --frame-rate --crowds
ingest vos         --out --name --limit --unit-size --link --dry-run --retry-failed --replace --workers --address \
                   --item-timeout --root --frame-rate
ingest sa1b        --out --name --limit --link --dry-run --retry-failed --replace --workers --address \
                   --item-timeout <tars> --license
ingest subjects    --out --name --limit --unit-size --link --dry-run --retry-failed --replace --workers --address \
                   --item-timeout <directory> --phrase-from-folder
ingest easyref     --out --name --limit --unit-size --link --dry-run --retry-failed --replace --workers --address \
                   --item-timeout <json> --images
ingest subject10k  --out --name --limit --unit-size --link --dry-run --retry-failed --replace --workers --address \
                   --item-timeout <directory> --select
ingest folder      --out --name --limit --unit-size --link --dry-run --retry-failed --replace --workers --address \
                   --item-timeout <path>
ingest pairs       --out --name --limit --unit-size --link --dry-run --retry-failed --replace --workers --address \
                   --item-timeout <path> --layout --images --controls
curate             <dataset> --config --set --only --until --replace --retry-failed --dry-run --print-config \
                   --workers --address --item-timeout
fit-quality        <dataset> --labels --out --ignore-unknown --replace --json
status             <dataset> --json
verify             <dataset> --json --sample
mend               <dataset> --workers --address --item-timeout
report             <dataset> --json --out
relink             <dataset> <folder> --root
subset             <dataset> <dest> --ids --id --where --split --share --seed --tag --dry-run --workers --address \
                   --item-timeout
merge              <datasets> <dest> --dry-run --workers --address --item-timeout
tag                <dataset> <name> --list --delete --json
diff               <dataset> <before> <after> --json
export             <dataset> <out> --format --split --limit --kept --keep-metadata --per-shard --layout --reference \
                   --per-subject --seed --same-image --instructions --prefix --redistributable --workers --address \
                   --item-timeout
inspect            <dataset> --id --table --draw --json
browse             <dataset> --host --port --label --labeller
models             --json --verbose
models get         <names> --from
publish            <dataset> <dest> --tables --no-images --include-face-embeddings --shard-mb --only-sources \
                   --accept-license --takedown --ignore-unknown --keep-metadata --replace --dry-run --push --public \
                   --endpoint --forget-history
takedown           <dataset> <list> --ignore-unknown --dry-run --json
rehydrate          <published> <source> <dest> --replace --dry-run
generate           --base --adapter --kind --image-encoder --tokenizer --face-model --device --dtype --variant \
                   --scale --set --reference --prompt --negative-prompt --out --images --height --width --steps \
                   --guidance-scale --reference-guidance-scale --seed --replace
edit               --source --mask --base --adapter --kind --image-encoder --tokenizer --face-model --device --dtype \
                   --variant --scale --set --reference --prompt --negative-prompt --out --images --height --width \
                   --steps --guidance-scale --reference-guidance-scale --seed --replace
convert            <adapter> <out> --kind --base --tokenizer --format --dtype --replace
ui                 --base --adapter --kind --image-encoder --tokenizer --face-model --device --dtype --variant \
                   --scale --set --host --port
evaluate           --benchmark --data --out --limit --metrics --dry-run --clip --dino --detector --base --adapter \
                   --kind --image-encoder --tokenizer --face-model --device --dtype --variant --scale --set --seed \
                   --references --batch --negative-prompt --height --width --steps --guidance-scale --workers \
                   --address --item-timeout
cache              <dataset> --recipe --set --variants --out --tag --split --device --batch --replace --dry-run \
                   --workers --address --item-timeout
heldout            <adapter> --config --set --device --samples
train              --config --out --set --resume --print-config --preview
sample-data        <out> --images --videos --seed --scenes --side --workers --address --item-timeout
demo               <out> --images --videos --seed --method --workers --address --item-timeout
"""


Call = Callable[..., Answer]


@pytest.fixture
def coco(tmp_path) -> list[str]:
    """Arguments that name a COCO tree of six pictures."""
    write_coco(tmp_path / "coco", 6)
    return coco_arguments(tmp_path)


def coco_arguments(root: Path) -> list[str]:
    return ["coco", "--images", f"{root}/coco", "--instances", f"{root}/coco/instances_val2017.json"]


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> Path:
    """A folder with a COCO tree and a dataset of it, which no command may change."""
    root = tmp_path_factory.mktemp("held")
    write_coco(root / "coco", 6)
    with own_signals():
        assert cli.main(["ingest", *coco_arguments(root), "--out", f"{root}/data", "--workers", "0"]) == 0
    return root


def parsers(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for choice, inner in below[0].choices.items() if below else ():
        yield from parsers(inner, f"{name} {choice}".strip())
    if not below or not below[0].required:
        yield name, parser


def described(parser: argparse.ArgumentParser) -> list[str]:
    named = [action for action in parser._actions if action.dest not in ("help", argparse.SUPPRESS)]
    return [action.option_strings[-1] if action.option_strings else f"<{action.dest}>" for action in named]


def everything(root: Path) -> dict[Path, int]:
    """When each file and folder was changed, those of runs/ included."""
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


# -- help ----------------------------------------------------------------------------------------------------------


def test_help_answers_in_under_a_second():
    for attempt in range(3):
        began = time.monotonic()
        done = subprocess.run([*REFLOOM, "--help"], capture_output=True, text=True, check=True)
        took = time.monotonic() - began
        if took < 1.0:
            break
        assert attempt < 2, f"{took:.1f} s, three times"
    assert "exit codes: 0 done" in done.stdout


def test_help_imports_none_of_the_large_libraries():
    code = "import contextlib\nfrom refloom import cli\nfor words in [], ['ingest', 'coco'], ['curate'], ['demo']:\n"
    code += "    with contextlib.suppress(SystemExit): cli.main([*words, '--help'])"
    run = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT)
    assert [done.stdout.count(f"usage: refloom {words}") for words in ("ingest coco", "curate", "demo")] == [1, 1, 1]
    entries = [entry for entry in done.stderr.splitlines() if entry.startswith("import time:")]
    imported = {entry.rsplit("|", 1)[1].strip().split(".")[0] for entry in entries}
    assert "argparse" in imported
    assert not imported & {"pyarrow", "ray", "torch", "numpy", "cv2", "schemas", "ingest", "curation", "inference"}


def test_the_command_line_is_what_it_was():
    """A change here is a change for everyone who has a script: make it on purpose."""
    frozen = {}
    for entry in COMMANDS.strip().splitlines():
        words = entry.split()
        name = " ".join(word for word in words if word[0] not in "-<")
        frozen[name] = [word for word in words if word[0] in "-<"]
    assert {name: described(parser) for name, parser in parsers(cli.build_parser())} == frozen


@pytest.mark.parametrize("name", [name for name, _ in parsers(cli.build_parser())])
def test_every_command_has_help_with_examples_that_parse(call, name):
    shown = call(*name.split(), "--help")
    assert shown.code == 0
    examples = [text.strip() for text in shown.out.split("examples:\n")[1].splitlines() if text.strip()]
    assert examples
    for example in examples:
        program, *arguments = shlex.split(example)
        assert program == "refloom"
        assert example.startswith(f"refloom {name}")
        cli.build_parser().parse_args(arguments)


@pytest.mark.parametrize("page", ["README.md", "docs/curation.md", "docs/inference.md"])
def test_the_commands_in_the_documents_parse(page):
    text = (ROOT / page).read_text().replace("\\\n", " ")
    commands = re.findall(
        r"^    refloom ((?:ingest|curate|status|verify|report|demo|generate|edit|convert|ui) [^#\n]*)", text, re.M
    )
    assert commands
    for command in commands:
        cli.build_parser().parse_args(shlex.split(command))


# -- exit codes ----------------------------------------------------------------------------------------------------


def test_done_is_0_a_failed_row_is_1_and_the_retry_is_0_again(call, coco, tmp_path):
    picture = tmp_path / "coco/val2017/000000000003.jpg"
    picture.rename(tmp_path / "away.jpg")
    ingest = ["ingest", *coco, "--out", tmp_path / "data", "--workers", 0]
    answer = call(*ingest)
    assert answer.code == 1
    assert "missing_file 1" in answer.out
    assert call(*ingest).code == 1, "a finished job with failures says so each time"
    (tmp_path / "away.jpg").rename(picture)
    answer = call(*ingest, "--retry-failed")
    assert (answer.code, "1 units done now" in answer.out) == (0, True)
    assert len(image_ids(Dataset(str(tmp_path / "data")))) == 6


def test_rejected_rows_are_no_error(call, coco, tmp_path):
    (tmp_path / "coco/val2017/000000000003.jpg").write_bytes(b"not a picture")
    answer = call("ingest", *coco, "--out", tmp_path / "data", "--workers", 0)
    assert answer.code == 0
    assert "not_an_image 1" in answer.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("status DIR/nowhere", "no refloom dataset"),
        ("verify DIR/nowhere", "no refloom dataset"),
        ("report DIR/nowhere", "no refloom dataset"),
        ("curate DIR/nowhere", "no refloom dataset"),
        ("curate DIR/data --set select.min_qualty=1", "did you mean select.min_quality?"),
        ("curate DIR/data --set select.min_quality", "write it as key=value"),
        ("curate DIR/data --set select.min_quality=high", "is a number"),
        ("curate DIR/data --set models.face=dlibb", "did you mean dlib?"),
        ("curate DIR/data --config DIR/nowhere.yaml", "No such file"),
        ("curate DIR/data --only tidy", "no stage of curation; stages: measure"),
        ("curate DIR/data --until tidy", "no stage of curation"),
        ("curate DIR/data --workers -1", "--workers is a whole number from 0, not -1"),
        ("ingest COCO --out DIR/data --workers 0 --limit 0", "--limit must be 1 or more"),
        ("ingest COCO --out DIR/data --workers 0 --unit-size 0", "--unit-size must be 1 or more"),
        ("ingest COCO --out DIR/data --workers 0 --unit-size 3", "unit_size: 2000 -> 3"),
        ("ingest COCO --out DIR/data --workers 0 --link", "link: False -> True"),
        ("ingest COCO --out DIR/data --workers 0 --name other", "is already held under the key coco.instances_val2017"),
        ("ingest COCO --out DIR/coco --workers 0", "is not empty"),
        ("ingest folder DIR/nowhere --out DIR/data --workers 0", "nowhere is no folder"),
        ("ingest sa1b DIR/nowhere.tar --out DIR/data --workers 0", "nowhere.tar does not exist"),
        ("sample-data DIR/coco", "is not empty"),
        ("sample-data DIR/new --images 0 --videos 0", "nothing to write"),
        ("sample-data DIR/new --scenes 4 --side 96", "--side is a multiple of 64 from 64 to 128, not 96"),
    ],
)
def test_what_is_refused_is_2_says_why_in_one_line_and_changes_nothing(call, held, arguments, message):
    before = stamps(held)
    words = arguments.replace("COCO", shlex.join(coco_arguments(held))).replace("DIR", str(held))
    answer = call(*shlex.split(words))
    assert answer.code == 2
    assert message in answer.err
    assert answer.err.startswith("refloom: ")
    assert answer.err.count("\n") == 1
    assert answer.out == ""
    assert stamps(held) == before


@pytest.mark.parametrize(
    "arguments",
    ["", "bogus", "ingest", "ingest bogus", "curate", "verify x --sample many", "ingest sa1b x --out y --unit-size 3"],
)
def test_a_wrong_argument_is_2_with_the_usage(call, arguments):
    answer = call(*arguments.split())
    assert answer.code == 2
    assert answer.err.startswith("usage: refloom")
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("arguments", ["ingest COCO --out DIR/file/data --workers 0", "sample-data DIR/file/new"])
def test_a_folder_that_cannot_be_made_is_refused(call, coco, tmp_path, arguments):
    (tmp_path / "file").write_bytes(b"")
    assert call(*shlex.split(arguments.replace("COCO", shlex.join(coco)).replace("DIR", str(tmp_path)))).code == 2


def test_a_refused_ingest_makes_no_dataset(call, tmp_path):
    assert call("ingest", "folder", tmp_path / "nowhere", "--out", tmp_path / "data", "--workers", 0).code == 2
    assert not (tmp_path / "data").exists()


def test_a_retry_with_other_settings_is_refused(call, coco, tmp_path):
    (tmp_path / "coco/val2017/000000000003.jpg").unlink()
    ingest = ["ingest", *coco, "--out", tmp_path / "data", "--workers", 0]
    assert call(*ingest).code == 1
    answer = call(*ingest, "--link", "--retry-failed")
    assert answer.code == 2
    assert "link: False -> True" in answer.err


def test_a_dry_run_of_ingest_refuses_what_the_run_would_refuse(call, coco, tmp_path):
    assert call("ingest", *coco, "--out", tmp_path / "coco", "--dry-run").code == 2


def test_a_stopped_job_is_3_and_resumes(call, tmp_path_factory, tmp_path):
    out = curatedata.copy(curatedata.many_units(tmp_path_factory), tmp_path)
    arguments = ["curate", str(out), *curatedata.NO_MODELS, "--set", "select.min_quality=0.35", "--workers", "0"]
    process = subprocess.Popen([*REFLOOM, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    curatedata.wait_for(out, "measure", process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 3
    assert errors.splitlines()[-1] == "refloom: stopped; run the same command again to resume"
    assert "Traceback" not in errors
    assert len(list((out / "manifests/measure").glob("*.json"))) < curatedata.MANY
    assert call(*arguments).code == 0
    assert call("verify", out).code == 0


# -- options of ingest ---------------------------------------------------------------------------------------------


def test_a_dry_run_of_ingest_says_units_items_bytes_and_disk_and_writes_nothing(call, coco, tmp_path):
    with (tmp_path / "coco/val2017/000000000001.jpg").open("r+b") as file:
        file.truncate(3_000_000_000)  # sparse
    before = everything(tmp_path)
    ingest = ["ingest", *coco, "--out", tmp_path / "data", "--unit-size", 4, "--dry-run"]
    answer = call(*ingest)
    assert (answer.code, answer.err) == (0, "")
    assert "2 units to do, 0 are there already" in answer.out
    assert "6 images, 12 annotations" in answer.out
    assert "3.00 GB to read, about 3.00 GB of disk needed" in answer.out
    assert re.search(r"[\d,.]+ GB free", answer.out)
    assert "about 0.00 GB of disk needed" in call(*ingest, "--link").out
    assert everything(tmp_path) == before


def test_a_dry_run_says_when_the_disk_is_too_small(call, coco, tmp_path):
    try:
        with (tmp_path / "coco/val2017/000000000001.jpg").open("r+b") as file:
            file.truncate(shutil.disk_usage(tmp_path).free + 10_000_000_000)
    except OSError:
        pytest.skip("this file system has no sparse files of that size")
    ingest = ["ingest", *coco, "--out", tmp_path / "a/b/data", "--dry-run"]
    assert "NOT ENOUGH" in call(*ingest).out
    assert "NOT ENOUGH" not in call(*ingest, "--link").out


def test_dry_runs_on_a_dataset_say_what_is_left_and_write_nothing(call, coco, tmp_path):
    data = tmp_path / "data"
    assert call("ingest", *coco, "--out", data, "--workers", 0).code == 0
    before = everything(tmp_path)
    assert "0 units to do, 1 are there already" in call("ingest", *coco, "--out", data, "--dry-run").out
    answer = call("curate", data, *curatedata.NO_MODELS, "--dry-run")
    assert answer.code == 0
    due = re.findall(r"(\w+): due for 1 units", answer.out)
    assert due == ["measure", "mask", "quality", "dedup", "select", "match", "group", "split", "balance", "compose"]
    assert everything(tmp_path) == before


def test_limit_takes_the_first_unit_size_cuts_and_name_names(call, coco, tmp_path):
    more = ["--limit", 5, "--unit-size", 2, "--name", "mine", "--workers", 0]
    assert call("ingest", *coco, "--out", tmp_path / "data", *more).code == 0
    dataset = Dataset(str(tmp_path / "data"))
    assert dataset.units() == [f"mine.instances_val2017-{number:05d}" for number in range(3)]
    assert image_ids(dataset) == [f"coco/{number:012d}" for number in range(1, 6)]


def test_limit_counts_videos_where_the_source_has_videos(call, tmp_path):
    annotations = write_ytvis(tmp_path, videos=3, frames=2)
    frames = ["--frames", tmp_path / "JPEGImages", "--annotations", annotations]
    assert call("ingest", "ytvis", *frames, "--out", tmp_path / "data", "--limit", 2, "--workers", 0).code == 0
    assert len(image_ids(Dataset(str(tmp_path / "data")))) == 4


@pytest.mark.parametrize("layout", [".", "val2017", "images", "images/val2017"])
def test_usual_layouts_below_the_folder_of_pictures_are_found(call, coco, tmp_path, layout):
    place = tmp_path / "tree" / layout
    place.parent.mkdir(parents=True, exist_ok=True)
    os.rename(tmp_path / "coco/val2017", place)
    arguments = ["coco", "--images", tmp_path / "tree", "--instances", coco[-1]]
    assert call("ingest", *arguments, "--out", tmp_path / "data", "--workers", 0).code == 0
    assert len(image_ids(Dataset(str(tmp_path / "data")))) == 6


# -- the demo ------------------------------------------------------------------------------------------------------


def test_the_demo_goes_the_whole_road_and_a_second_run_does_no_row(call, tmp_path):
    arguments = ["demo", tmp_path / "demo", "--images", 1, "--videos", 0, "--workers", 0, "--method", "none"]
    first = call(*arguments)
    assert first.code == 0, first.err
    commands = [shlex.split(text)[2:] for text in first.out.splitlines() if text.startswith("$ ")]
    assert [command[0] for command in commands] == ["sample-data", *["ingest"] * 3, "curate", "report", "verify"]
    assert "everything holds" in first.out
    assert (tmp_path / "demo/dataset/report.html").stat().st_size > 10_000
    data = tmp_path / "demo/dataset"
    contents, runs = curatedata.contents(data), sorted(os.listdir(data / "runs"))
    second = call(*arguments)
    assert second.code == 0
    assert second.out.count("0 units done now") == 3
    assert sorted(os.listdir(data / "runs")) == runs, "no job ran"
    assert curatedata.contents(data) == contents
