"""Going back to an earlier checkpoint makes it the tip: what came after is set aside, and never lost or in the way."""

import json
from pathlib import Path

import pytest

from refloom.training.recipes.recipe import Checkpoints
from refloom.training.run import branches, checkpoint
from refloom.training.run import log as run_log
from refloom.training.run.checkpoint import Checkpoint

KEEP = Checkpoints(keep_last=3)


def step_name(step: int) -> str:
    return f"step-{step:09d}"


def train_to(run: Path, last: int, every: int, word: str) -> None:
    """What a run leaves from its tip to a step, with a word that tells branches apart."""
    known = checkpoint.marked(run)
    done = known[-1].step if known else 0
    log = run_log.RunLog(run, done, lambda line: None)
    for step in range(done + every, last + 1, every):
        log.add({"step": step, "loss": 1.0, "word": word})
        pictures = run / "validation" / step_name(step)
        pictures.mkdir(parents=True)
        (pictures / "0.png").write_text(word)
        checkpoint.write(run, step, lambda folder: (folder / "weights").write_text(word), KEEP)
    (run / "adapter").mkdir(exist_ok=True)
    (run / "adapter" / "weights").write_text(word)


def go_back(run: Path, at: Path | int) -> str:
    """What the loop does before it goes on."""
    folder = run / "checkpoints" / step_name(at) if isinstance(at, int) else at
    begun, _, told = branches.turn(run, checkpoint.find(run, str(folder)))
    assert begun.path.parent == run.resolve() / "checkpoints"
    run_log.RunLog(run, begun.step, lambda line: None)
    return told or ""


def steps(run: Path) -> list[int]:
    return [one.step for one in checkpoint.marked(run)]


def words(run: Path) -> list[tuple[int, str]]:
    return [(line["step"], line["word"]) for line in run_log.read(run)]


def pictures(run: Path) -> dict[int, str]:
    found = (run / "validation").glob("step-*/0.png")
    return {int(file.parent.name.removeprefix("step-")): file.read_text() for file in sorted(found)}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    train_to(tmp_path, 30, 10, "first")
    return tmp_path


def test_what_is_written_after_going_back_stays_and_is_the_latest(run: Path) -> None:
    told = go_back(run, 10)
    assert "what came after step 10 is set aside in" in told
    train_to(run, 14, 2, "second")
    assert steps(run) == [10, 12, 14]
    assert checkpoint.find(run, "latest").step == 14
    assert words(run) == [(10, "first"), (12, "second"), (14, "second")]
    assert pictures(run) == {10: "first", 12: "second", 14: "second"}
    assert (run / "adapter" / "weights").read_text() == "second"
    aside = run / "aside" / "1"
    assert steps(aside) == [20, 30]
    assert words(aside) == [(10, "first"), (20, "first"), (30, "first")]
    assert pictures(aside) == {20: "first", 30: "first"}
    assert (aside / "adapter" / "weights").read_text() == "first"


def test_the_exported_adapter_is_never_that_of_a_branch_that_was_left(run: Path) -> None:
    go_back(run, 10)
    assert not (run / "adapter").exists()


def test_going_on_from_the_tip_sets_nothing_aside(run: Path) -> None:
    assert go_back(run, 30) == ""
    assert not (run / "aside").exists()
    assert (run / "adapter").is_dir()


def test_going_back_twice_keeps_both_branches(run: Path) -> None:
    go_back(run, 20)
    train_to(run, 24, 2, "second")
    go_back(run, 20)
    train_to(run, 21, 1, "third")
    assert steps(run) == [20, 21]  # of the three that are kept, 24 took the place of 10
    assert [steps(run / "aside" / name) for name in "12"] == [[30], [22, 24]]
    assert words(run) == [(10, "first"), (20, "first"), (21, "third")]


def test_a_checkpoint_that_was_set_aside_becomes_the_tip_and_the_run_is_set_aside(run: Path) -> None:
    go_back(run, 10)
    train_to(run, 14, 2, "second")
    told = go_back(run, run / "aside" / "1" / "checkpoints" / step_name(20))
    assert "goes on with what was set aside" in told
    assert steps(run) == [10, 20]
    assert words(run) == [(10, "first"), (20, "first")]
    assert pictures(run) == {10: "first", 20: "first"}
    assert steps(run / "aside" / "1") == [30]
    assert steps(run / "aside" / "2") == [12, 14]
    assert (run / "aside" / "2" / "adapter" / "weights").read_text() == "second"
    go_back(run, run / "aside" / "1" / "checkpoints" / step_name(30))
    assert steps(run) == [10, 20, 30]
    assert not (run / "aside" / "1").exists()
    assert (run / "adapter" / "weights").read_text() == "first"
    go_back(run, run / "aside" / "2" / "checkpoints" / step_name(14))
    assert steps(run) == [10, 12, 14]
    assert words(run) == [(10, "first"), (12, "second"), (14, "second")]


def test_a_branch_shares_no_more_with_the_run_than_the_run_keeps_of_itself(run: Path) -> None:
    """From 30 back to 20, from there back to 10: what was set aside first has 10 steps in common with the run now."""
    go_back(run, 20)
    train_to(run, 22, 2, "second")
    go_back(run, 10)
    train_to(run, 12, 2, "third")
    go_back(run, run / "aside" / "1" / "checkpoints" / step_name(30))
    assert steps(run) == [10, 30]
    assert words(run) == [(10, "first"), (20, "first"), (30, "first")]
    assert set(pictures(run).values()) == {"first"}
    others = {name: steps(run / "aside" / name) for name in ("2", "3")}
    assert others == {"2": [20, 22], "3": [12]}


def test_a_damaged_checkpoint_behind_the_tip_is_set_aside_too(run: Path) -> None:
    (run / "checkpoints" / step_name(30) / "weights").write_text("First")
    begun = checkpoint.find(run, "latest")
    assert begun.step == 20
    branches.turn(run, begun)
    assert steps(run) == [10, 20]
    assert steps(run / "aside" / "1") == [30]


@pytest.mark.parametrize("moves", range(3))
def test_a_process_that_is_killed_while_it_goes_back_leaves_a_run(
    moves: int, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    rename = Path.rename

    def counted(self: Path, target: Path) -> Path:
        if "step-" in self.name:
            if len(made) == moves:
                raise KeyboardInterrupt
            made.append(self)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", counted)
    with pytest.raises(KeyboardInterrupt):
        go_back(run, 10)
    monkeypatch.undo()
    assert checkpoint.find(run, "latest").step in (20, 30)
    go_back(run, 10)
    train_to(run, 12, 2, "second")
    assert steps(run) == [10, 12]
    kept = [one.step for name in (run / "aside").iterdir() for one in checkpoint.marked(name)]
    assert sorted(kept) == [20, 30]
    assert words(run) == [(10, "first"), (12, "second")]


def test_the_branch_says_what_it_shares(run: Path) -> None:
    go_back(run, 20)
    assert json.loads((run / "aside" / "1" / "branch.json").read_text()) == {"shared": 20}
    other = Checkpoint(run.parent / "other" / "checkpoints" / step_name(1), 1)
    assert branches.home(run, other) is None
