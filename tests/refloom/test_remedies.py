"""Messages that print a command: each is provoked here, its command is run as it was printed, and then all is well.

The table is `CASES`. What is provoked in another test is in `ELSEWHERE` with that test, what is no remedy in `SHOWN`.
A message that is in none of them fails the last test.
"""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import own_signals, run
from curatedata import once
from damaging import hurt
from helpers import write_coco
from messages import printed
from places import TESTS

from refloom.schemas.dataset import Dataset
from refloom.viewing.browse.server import Browser

SETTINGS = [
    *(
        "models.face=none",
        "models.image_embedding=none",
        "models.classifier=none",
        "filter.min_area_px=100",
        "filter.min_area_share=0.01",
    ),
    *("dedup.by=[]", "select.min_area_share=0.02", "select.min_short_side_px=8", "select.min_quality=0"),
    "select.min_box_fill=0.1",
]
SETS = [word for one in SETTINGS for word in ("--set", one)]


@once
def stages(factory: pytest.TempPathFactory) -> Path:
    """Pictures, and datasets of them in a folder whose name has a space: ingested, selected and composed.

    A further one is scored, of as many pictures and objects as weights of quality need.
    """
    from refloom import cli

    root = factory.mktemp("remedies")
    images, instances, captions = write_coco(root / "coco", 3, size=(96, 80))
    source = ["ingest", "coco", "--images", images, "--instances", instances, "--captions", captions, "--unit-size", 2]

    def call(*words: object) -> None:
        assert cli.main([str(word) for word in (*words, "--workers", 0)]) == 0

    with own_signals():
        (root / "a b").mkdir()
        call(*source, "--out", root / "a b" / "ingested")
        for name, until in (("selected", "select"), ("composed", "compose")):
            shutil.copytree(root / "a b" / "ingested", root / "a b" / name)
            call("curate", root / "a b" / name, "--until", until, *SETS)
        images, instances, _ = write_coco(root / "many", 6, objects=4, size=(96, 80))
        many = root / "a b" / "scored"
        call("ingest", "coco", "--images", images, "--instances", instances, "--out", many)
        call("curate", many, "--until", "quality", *SETS)
    return root


@dataclass(frozen=True)
class Place:
    """Where a case is played: a copy of `stages`."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        return self.root / "a b" / name


@pytest.fixture
def place(tmp_path_factory, tmp_path) -> Place:
    shutil.copytree(stages(tmp_path_factory), tmp_path / "stages")
    return Place(tmp_path / "stages")


@pytest.fixture(autouse=True)
def _signals():
    with own_signals():
        yield


Words = Sequence[object]


@dataclass(frozen=True)
class Case:
    """A message, and how it comes about.

    Attributes:
        said: a part of the message as the source has it.
        complain: prepares, and gives the arguments of the command that says it.
        code: what that command answers.
        fill: words in the printed command that stand for something of the user's.
        add: options of the user's own, which the first runs were given too.
        after: what the command that complained answers when the printed one was run; None where that is only told
            something by it.
    """

    said: str
    complain: Callable[[Place], Words]
    code: int = 2
    fill: Callable[[Place], dict[str, Words]] = lambda place: {}
    add: Words = ()
    after: int | None = 0


def _ingest(place: Place) -> dict[str, Words]:
    return {"...": ["folder", place.root / "coco/val2017"], "DATASET": [place.root / "again"]}


def _empty(place: Place) -> Words:
    Dataset(str(place.empty), create=True)
    return ["curate", place.empty, "--until", "measure", "--workers", 0, *SETS]


def _damaged(pattern: str, words: Callable[[Place], Words], how: str = "flipped") -> Callable[[Place], Words]:
    def complain(place: Place) -> Words:
        hurt(place.composed, pattern, how)
        return words(place)

    return complain


def _exchanged(place: Place) -> Words:
    """A sound file of samples in the place of another one."""
    one, other = sorted(place.composed.glob("samples/*/*.parquet"))[:2]
    shutil.copyfile(one, other)
    return ["publish", place.composed, place.out]


def _half_done(place: Place) -> Words:
    unit = list(Dataset(str(place.composed)).manifests("compose"))[-1]
    Dataset(str(place.composed)).drop("compose", unit)
    return ["publish", place.composed, place.out]


def _stale(place: Place) -> Words:
    unit = list(Dataset(str(place.composed)).manifests("quality"))[-1]
    path = place.composed / f"manifests/compose/{unit}.json"
    said = json.loads(path.read_text())
    said["inputs"] = dict.fromkeys(said["inputs"], "other")
    path.write_text(json.dumps(said))
    return ["publish", place.composed, place.out]


def _made_otherwise(place: Place) -> Words:
    unit = list(Dataset(str(place.composed)).manifests("compose"))[-1]
    path = place.composed / f"manifests/compose/{unit}.json"
    said = json.loads(path.read_text())
    said["config"]["compose"]["jpeg_quality"] = 50
    path.write_text(json.dumps(said))
    return ["publish", place.composed, place.out, "--no-images"]


def _flat(place: Place) -> Words:
    return ["ingest", "subjects", place.root / "coco/val2017", "--out", place.out, "--workers", 0]


def judge(server: Browser, count: int = 1000) -> None:
    """What a person does on the page of `refloom browse --label`: half of the objects are good."""
    assert server.labelling is not None
    for number, card in enumerate(server.labelling.coming("random", 0, count)):
        assert server.labelling.judge(card["object_id"], number % 4, ()) is not None


def _fit(place: Place) -> Words:
    return ["fit-quality", place.scored, "--out", place.root / "a b" / "mine.yaml"]


def _few_labels(place: Place) -> Words:
    with Browser(Dataset(str(place.scored)), label=True) as server:
        judge(server, 4)
    return _fit(place)


def _labels(place: Place) -> Words:
    with Browser(Dataset(str(place.scored)), label=True) as server:
        judge(server)
    return [*_fit(place), "--replace"]


def _unscored(place: Place) -> Words:
    words, dataset = _labels(place), Dataset(str(place.scored))
    for unit in list(dataset.manifests("quality")):
        dataset.drop("quality", unit)
    return words


PUBLISH = ["--accept-license", "CC BY 4.0"]
CURATE = [*SETS, "--workers", 0]
CASES = [
    Case("is no refloom dataset (it has no", lambda place: ["status", place.empty], fill=_ingest, add=["--workers", 0]),
    Case("holds no pictures yet: take some in", _empty, fill=_ingest, add=["--workers", 0]),
    Case(
        "which is not done: run",
        lambda place: ["curate", place.ingested, "--only", "select", *CURATE],
        add=CURATE,
    ),
    Case(
        "is not selected yet: run",
        lambda place: ["export", place.ingested, place.out, "--format", "coco", "--kept"],
        add=CURATE,
    ),
    Case(
        "has no samples yet: make them with",
        lambda place: ["export", place.selected, place.out, "--format", "webdataset"],
        add=CURATE,
    ),
    Case(
        "has no samples{}: see",
        lambda place: ["export", place.composed, place.out, "--format", "webdataset", "--split", "validation"],
        after=None,
    ),
    Case(
        "has no splits yet: make them with",
        lambda place: ["export", place.selected, place.out, "--format", "coco", "--split", "train"],
        add=CURATE,
    ),
    Case(
        "has no {} yet, which {} makes: run",
        lambda place: ["subset", place.selected, place.out, "--split", "train", "--workers", 0],
        add=CURATE,
    ),
    Case("has no rows in {}: see", lambda place: ["inspect", place.composed, "--table", "faces"], after=None),
    Case(
        "left out, its model is not there",
        lambda place: ["curate", place.ingested, "--until", "face", *CURATE],
        code=0,
        after=None,
    ),
    Case("were made from inputs that have changed since; run", _stale, add=CURATE),
    Case("is half done:", _half_done, add=CURATE),
    Case("makes them alike", _made_otherwise, add=CURATE),
    Case(
        "the dataset has no rows in {}: `refloom {} {}` makes them",
        lambda place: ["publish", place.ingested, place.out],
        add=CURATE,
    ),
    Case(
        "the dataset has no rows in {}: `refloom {} {}` makes them",
        lambda place: ["publish", place.composed, place.out, "--tables", "labels"],
    ),
    Case("has no qualities yet: run", _unscored, add=CURATE),
    Case("holds no labels: judge objects with", _fit),
    Case("are too few: weights need", _few_labels),
    Case("selects by it", _labels, code=0, add=["--workers", 0]),
    Case(
        "is not the file that was committed",
        _exchanged,
        add=["--workers", 0],
    ),
    Case(
        "` makes it again",
        _damaged("manifests/select/*.json", lambda place: ["report", place.composed], "no json"),
        add=["--workers", 0],
    ),
    Case(
        "mend it with `refloom mend {}`",
        _damaged("selection/*.parquet", lambda place: ["verify", place.composed]),
        code=1,
        add=["--workers", 0],
    ),
    Case(
        "says which source to ingest again",
        _damaged("images/*.parquet", lambda place: ["report", place.composed], "gone"),
        add=["--workers", 0],
        after=None,
    ),
    Case(
        "has no folder with pictures in it:",
        _flat,
        fill=lambda place: {"folder": ["folder", place.root / "coco/val2017", "--out", place.out, "--workers", 0]},
        after=None,
    ),
    Case(
        "publish again with `refloom publish DATASET {}` and the options",
        lambda place: ["verify", place.published],
        code=1,
        fill=lambda place: {"DATASET": [place.composed]},
    ),
]
ELSEWHERE = {
    "with the `refloom ingest` that was used first": "curation/test_mend.py::test_a_unit_whose_command_is_not_known",
    "then `refloom mend {}` mends the rest": "curation/test_mend.py::test_a_damaged_unit_of_ingest_is_read_again",
    "holds rows that `refloom publish` does not write": "sharing/publish/test_publication_damage.py::test_rows_that_no",
    "finish it with `refloom takedown {}`": "sharing/publish/test_dataset_takedown.py::test_a_removal_that_was_stopped",
    "take them out with `refloom takedown {}`": "sharing/publish/test_dataset_takedown.py::test_rows_that_were_put",
    "is no longer in the dataset: start": "schemas/test_labels.py::test_an_object_that_is_gone",
    "is not finished: run the": "sharing/datasets/test_subset.py::test_a_killed_one_is_not_opened_by_anybody",
    "take it out there too with": "sharing/datasets/test_subset.py::test_the_takedown_list_comes_along",
    "were made with other settings ({})": "sharing/datasets/test_merge.py::test_other_settings_are_refused",
    "nobody has looked for copies and": "sharing/datasets/test_merge.py::test_curation_does_exactly_what",
    "not all of these are split yet": "sharing/datasets/test_merge.py::test_without_splits_everywhere",
    "`refloom curate {} --retry-failed` does again": "ingest/test_moved_source.py::test_the_command_that_is_printed",
}
SHOWN = (
    # titles and cards
    *("{} – refloom", "refloom report", "refloom train", "refloom demo", "see README.txt of refloom sample-data"),
    *("Made by `refloom sample-data`", "Sample data of refloom, made by", "Made by refloom generate"),
    *("To have something removed, tell whoever", "refloom rehydrate THIS_FOLDER", "Which bytes belong here:"),
    "Made by `refloom {}` of {}",
    # examples and help of the command line, and of options
    "then `refloom curate` looks for copies and groups across them",
    *("refloom ingest {} {} --out DATASET", "` shows every key", "joins the bytes again", "as for `refloom train`"),
    "a page on which you judge objects as references",
    *("encoders of the scores, names of", "for crop=face; see", "(`refloom rehydrate` joins them again)"),
    # where to look next, after all went well
    *("Where to look next:", "refloom ingest easyref {0}", "refloom ingest coco --images {0}/images"),
    "refloom ingest subject10k {0}",
    # the report's page
    *("refloom ingest SOURCE ... --retry-failed", "refloom curate DATASET --retry-failed", "no verdict yet:"),
    *("refloom curate DATASET [--config FILE]", "refloom curate DATASET --print-config", "No pictures yet: take some"),
    *("refloom curate DATASET --dry-run", "refloom verify DATASET", "refloom report DATASET --json", "Out of date: {}"),
    *("made from inputs that have changed since: run `refloom curate DATASET`", "No score was computed yet: run"),
    *("see `refloom models`", "`refloom models get NAME` fetches one", "(`refloom models get {}` fetches its files)"),
    *("`refloom ingest --help` lists", "another face model may help", "another segmenter may help"),
    *(
        "or another captioner: `refloom models`",
        "a quality component has no model",
        "look at them with `refloom browse`",
    ),
    *("`refloom status` shows at which stage", "`refloom status` shows where it went"),
    "`refloom fit-quality` learns the weights of quality from them",
    # words about a command, of which nothing is to be run
    *("What people say of objects as references, in", "the demo stopped at `refloom {}`"),
    *("are records of SA-1B: `refloom ingest sa1b` takes them", "as it was given to `refloom ingest`"),
    *("is not what `refloom takedown` writes", "the `refloom cache` that made it does the rest"),
    "`refloom publish` and `export` take it out unless told otherwise",
    *("show what ids look like; nothing was made"),
    *("`refloom browse` searches parts of ids", "with more pictures, or with a larger split.validation"),
)
TRAINING = (
    # said by `train`, `cache` and `evaluate`, which need models of their own: provoked beside what they are said by
    *("` says what is damaged; publish again over it", "` mends it", "has no samples of split {}: see"),
    *("MANIFEST.json is not what `refloom publish` writes", "is published without pictures: get them back with"),
    *("do not fit this run", "has no features of row", "is not what `refloom cache`"),
    *(
        "remove {} there and run `refloom cache`",
        "lacks the features {}: run",
        "that began them again, it resumes",
    ),
    *("there are no features in {}", "has no features and other sources have", "`refloom verify {}`"),
    *("no face model is there:", "needs a face model, and none is there:", "no detector is there:"),
)


def _commands(text: str, fill: dict[str, Words]) -> list[list[str]]:
    """The commands that a text prints, with what stands for something of the user's filled in."""
    commands = []
    for line in re.findall(r"`refloom ([^`]*)`", text):
        words: list[str] = []
        for word in shlex.split(line):
            words += [str(one) for one in fill.get(word, [word])]
        commands.append(words)
    return commands


@pytest.fixture
def published(place, capsys) -> None:
    """A publication with a damaged file."""
    assert run(capsys, "publish", place.composed, place.published, *PUBLISH).code == 0
    hurt(place.published, "data/samples/*.parquet", "flipped")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.said)
def test_the_printed_command_mends_what_the_message_says(capsys, place, case, request, monkeypatch):
    def judged(server: Browser) -> None:
        judge(server)
        raise KeyboardInterrupt  # Ctrl-C, when all is judged

    monkeypatch.setattr(Browser, "serve_forever", judged)
    if "publish again with" in case.said:
        request.getfixturevalue("published")
    words = case.complain(place)
    words = [*words, *PUBLISH] if words[0] == "publish" else words
    answer = run(capsys, *words)
    assert answer.code == case.code, answer
    said = re.escape(case.said).replace(r"\{\}", r".*")
    text = " ".join((answer.out + answer.err).split())
    assert re.search(said, text) or "`" in case.said, answer
    found = _commands(answer.out + answer.err, case.fill(place))
    assert found, answer
    done = run(capsys, *found[-1], *case.add, *(PUBLISH if found[-1][0] == "publish" else ()))
    assert "Traceback" not in done.err
    if case.said == "says which source to ingest again":  # it can only say so: test_mend goes on from there
        assert (done.code, "ingest it again with" in done.err) == (2, True), done
    else:
        assert done.code == 0, done
    if case.after is not None:
        again = run(capsys, *words)
        assert again.code == case.after, again


def test_every_message_with_a_command_is_in_the_table():
    known = [*(case.said for case in CASES), *ELSEWHERE, *SHOWN, *TRAINING]
    examples = re.compile(r"^refloom [a-z-]+ (?!\.\.\.)[^`]*$")  # of `--help`: nothing but commands
    unknown = {
        place: text
        for text, place in printed().items()
        if not any(one in text for one in known) and not examples.match(text)
    }
    assert not unknown, "messages that print a command and are not in the table of this file"


def test_the_table_holds_no_message_that_is_gone():
    texts = list(printed())
    listed = [*(case.said for case in CASES), *ELSEWHERE, *TRAINING]
    assert [one for one in listed if not any(one in text for text in texts)] == []
    for test in ELSEWHERE.values():
        file, _, name = test.partition("::")
        assert f"def {name}" in (TESTS / file).read_text("utf-8")
