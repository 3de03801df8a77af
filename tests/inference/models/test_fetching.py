"""`refloom models get`: what is fetched is checked and whole, goes on where it stopped, is not run, and is found."""

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fileserver import FileServer, file_server
from safetensors.torch import load_file, save

from refloom import cli
from refloom.inference.models import registry
from refloom.inference.models.entry import WEIGHTS_VARIABLE, Entry, Stored
from refloom.inference.models.fetching import PINS, fetch
from refloom.inference.models.remote import Remote
from refloom.schemas.errors import JobStopped, Refused

NAME, REPOSITORY = "dinov2-base", "facebook/dinov2-base"
CONFIG, OTHER, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
TENSORS = save({"weight": torch.arange(3000, dtype=torch.float32)})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of weights, empty."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A Hub with a small DINOv2."""
    with file_server() as one:
        monkeypatch.setenv("HF_ENDPOINT", one.url)
        for name, data in ((CONFIG, b"{}"), (OTHER, b'{"a": 1}'), (WEIGHTS, TENSORS)):
            one.files[f"/{REPOSITORY}/resolve/main/{name}"] = data
        yield one


def made(*remotes: Remote, size_bytes: int = 1_000_000) -> Entry:
    """A model of these files."""
    known = registry.by_name("image_embedding", NAME)
    stored = tuple(Stored(f"mine/{name}") for remote in remotes for name in remote.gives)
    return replace(known, name="mine", weights=stored, remotes=remotes, size_bytes=size_bytes)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in (PINS, ".lock")}


# -- a model is fetched, and found -----------------------------------------------------------------------------------


def test_a_fetched_model_is_what_auto_takes(server: FileServer, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert registry.resolve("image_embedding").name == "efficientnet-lite0"
    assert cli.main(["models", "get", NAME]) == 0
    said = capsys.readouterr().out
    assert contents(folder / NAME) == {CONFIG: b"{}", OTHER: b'{"a": 1}', WEIGHTS: TENSORS}
    assert registry.resolve("image_embedding").name == NAME
    assert f"{WEIGHTS}: fetched, sha256 {sha256(TENSORS)}; none was known before" in said
    assert "`auto` takes it for image_embedding" in said


def test_what_is_there_is_checked_and_not_fetched_again(
    server: FileServer, folder: Path, capsys: pytest.CaptureFixture[str]
):
    fetch(registry.by_name("image_embedding", NAME))
    asked = len(server.asked)
    assert cli.main(["models", "get", NAME]) == 0
    assert len(server.asked) == asked
    assert capsys.readouterr().out.count("is there already, its sha256 is the known one") == 3


def test_what_was_damaged_is_fetched_again(server: FileServer, folder: Path):
    entry = registry.by_name("image_embedding", NAME)
    fetch(entry)
    (folder / NAME / WEIGHTS).write_bytes(b"rot")
    assert [text.partition(": ")[2].partition(",")[0] for text in fetch(entry)] == ["is there already"] * 2 + [
        "fetched"
    ]
    assert contents(folder / NAME)[WEIGHTS] == TENSORS


def test_what_was_put_there_by_hand_is_left_and_said_to_be_unchecked(server: FileServer, folder: Path):
    (folder / NAME).mkdir(parents=True)
    (folder / NAME / CONFIG).write_bytes(b'{"mine": 1}')
    notes = fetch(registry.by_name("image_embedding", NAME))
    assert "put there by hand" in notes[0]
    assert contents(folder / NAME)[CONFIG] == b'{"mine": 1}'


def test_the_token_goes_to_the_hub_and_to_no_mirror(server: FileServer, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.files |= {
        f"/mirror/{name}": server.files[f"/{REPOSITORY}/resolve/main/{name}"] for name in (CONFIG, OTHER, WEIGHTS)
    }
    entry = registry.by_name("image_embedding", NAME)
    fetch(entry, source=f"{server.url}/mirror")
    assert {path.partition("/")[2].partition("/")[0] for path, _ in server.asked} == {"mirror"}
    assert not any("Authorization" in headers for _, headers in server.asked)
    (folder / NAME / WEIGHTS).unlink()
    fetch(entry)
    assert [headers.get("Authorization") for path, headers in server.asked if "/resolve/" in path][:1] == [
        "Bearer hf_secret"
    ]


# -- hashes ----------------------------------------------------------------------------------------------------------


def test_a_file_of_another_hash_than_the_known_one_leaves_nothing(server: FileServer, folder: Path):
    server.files["/one.pth"] = b"not the true one"
    entry = made(Remote("one.pth", f"{server.url}/one.pth", sha256(b"the true one")))
    with pytest.raises(Refused, match=f"sha256 {sha256(b'not the true one')}, not the {sha256(b'the true one')}"):
        fetch(entry)
    assert contents(folder / "mine") == {}
    assert entry.present() is not None
    server.files["/one.pth"] = b"the true one"
    assert fetch(entry) == ["one.pth: fetched, its sha256 is the known one"]


def test_the_first_fetch_pins_what_no_entry_knows(server: FileServer, folder: Path):
    server.files["/one.bin"] = b"first"
    entry = made(Remote("one.bin", f"{server.url}/one.bin"))
    assert "none was known before" in fetch(entry)[0]
    (folder / "mine/one.bin").unlink()
    server.files["/one.bin"] = b"other"
    with pytest.raises(Refused, match=f"not the {sha256(b'first')} that was first fetched from {server.url}/one.bin"):
        fetch(entry)
    assert contents(folder / "mine") == {}
    server.files["/one.bin"] = b"first"
    assert fetch(entry) == ["one.bin: fetched, its sha256 is the known one"]


def test_what_the_hub_says_of_a_large_file_is_held_against_it(server: FileServer, folder: Path):
    server.linked = "0" * 64
    with pytest.raises(Refused, match=f"not the {'0' * 64} that the Hub has"):
        fetch(registry.by_name("image_embedding", NAME))
    assert WEIGHTS not in contents(folder / NAME)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_page_that_asks_for_a_login_is_no_file_of_a_model(server: FileServer, folder: Path, name: str):
    server.files[f"/{REPOSITORY}/resolve/main/{name}"] = b"<html>log in</html>"
    with pytest.raises(Refused, match=f"is no {Path(name).suffix} file"):
        fetch(registry.by_name("image_embedding", NAME))
    assert name not in contents(folder / NAME)
    assert not any("log in" in data.decode("latin-1") for data in contents(folder / NAME).values())


def test_every_known_hash_is_one():
    hashes = {
        one.name: one.sha256 for entries in registry.ENTRIES.values() for entry in entries for one in entry.remotes
    }
    known = {name: digest for name, digest in hashes.items() if digest is not None}
    assert {name.partition(".")[0][:9] for name in known} == {
        "sam_vit_h",
        "sam_vit_l",
        "sam_vit_b",
        "buffalo_l",
        "antelopev",
    }
    assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in known.values())


@pytest.mark.parametrize(
    "entry",
    [one for entries in registry.ENTRIES.values() for one in entries],
    ids=lambda entry: f"{entry.role}-{entry.name}",
)
def test_what_is_fetched_of_a_model_is_what_it_needs(entry: Entry):
    given = {f"{entry.name}/{name}" for remote in entry.remotes for name in remote.gives}
    assert given == {weights.path for weights in entry.weights if isinstance(weights, Stored)}
    assert entry.is_packaged is not bool(entry.remotes)


# -- going on --------------------------------------------------------------------------------------------------------


def cut(server: FileServer, entry: Entry, after: int) -> None:
    server.cut_after = after
    with pytest.raises(JobStopped, match="run the same command again, it resumes"):
        fetch(entry)


def test_a_fetch_goes_on_where_it_stopped(server: FileServer, folder: Path):
    data = os.urandom(300_000)
    server.files["/one.pth"] = data
    entry = made(Remote("one.pth", f"{server.url}/one.pth", sha256(data)))
    cut(server, entry, 100_000)
    assert entry.present() is not None, "half a file is no file"
    held = (folder / "mine/one.pth.part").stat().st_size
    assert 0 < held <= 100_000
    fetch(entry)
    assert server.asked[-1][1]["Range"] == f"bytes={held}-"
    assert contents(folder / "mine") == {"one.pth": data}


def test_a_file_that_was_changed_meanwhile_is_fetched_from_its_beginning(server: FileServer, folder: Path):
    server.files["/one.bin"] = os.urandom(300_000)
    entry = made(Remote("one.bin", f"{server.url}/one.bin"))
    cut(server, entry, 100_000)
    server.files["/one.bin"] = other = os.urandom(300_000)
    fetch(entry)
    assert contents(folder / "mine") == {"one.bin": other}, "no mixture is pinned"


@pytest.mark.parametrize("lacks", ["has_etags", "has_ranges"])
def test_a_server_that_cannot_go_on_begins_anew(server: FileServer, folder: Path, lacks: str):
    setattr(server, lacks, False)
    server.files["/one.bin"] = data = os.urandom(300_000)
    entry = made(Remote("one.bin", f"{server.url}/one.bin"))
    cut(server, entry, 100_000)
    fetch(entry)
    assert contents(folder / "mine") == {"one.bin": data}


def test_a_part_that_is_whole_or_longer_is_fetched_anew(server: FileServer, folder: Path):
    server.files["/one.bin"] = data = os.urandom(3000)
    entry = made(Remote("one.bin", f"{server.url}/one.bin"))
    for length in (3000, 5000):
        (folder / "mine").mkdir(parents=True, exist_ok=True)
        (folder / "mine/one.bin.part").write_bytes(b"x" * length)
        (folder / "mine/one.bin.part.etag").write_text(f'"{hashlib.md5(data).hexdigest()}"')
        fetch(entry)
        assert contents(folder / "mine") == {"one.bin": data}
        (folder / "mine/one.bin").unlink()


def test_two_do_not_fetch_one_model_at_once(server: FileServer, folder: Path):
    import fcntl

    (folder / NAME).mkdir(parents=True)
    with (folder / NAME / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="is being fetched by another process"):
            fetch(registry.by_name("image_embedding", NAME))


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / NAME).mkdir(parents=True)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(folder / NAME / ".lock"))

    monkeypatch.setattr(Path, "open", refuse)  # who runs the tests may be root, for whom nothing is read-only
    with pytest.raises(Refused, match=f"Permission denied; {WEIGHTS_VARIABLE} names another folder"):
        fetch(registry.by_name("image_embedding", NAME))


# -- from elsewhere --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", [".", NAME])
def test_files_come_from_a_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "given" / below).mkdir(parents=True, exist_ok=True)
    for name, data in ((CONFIG, b"{}"), (OTHER, b"{}"), (WEIGHTS, TENSORS)):
        (tmp_path / "given" / below / name).write_bytes(data)
    fetch(registry.by_name("image_embedding", NAME), source=str(tmp_path / "given"))
    assert contents(folder / NAME)[WEIGHTS] == TENSORS


def test_a_folder_needs_only_what_is_not_there_yet(server: FileServer, folder: Path, tmp_path: Path):
    entry = registry.by_name("image_embedding", NAME)
    fetch(entry)
    (folder / NAME / WEIGHTS).unlink()
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / WEIGHTS).write_bytes(TENSORS)
    fetch(entry, source=str(tmp_path / "given"))
    assert contents(folder / NAME)[WEIGHTS] == TENSORS


def test_a_server_that_answers_nonsense_to_every_question_is_refused(server: FileServer, folder: Path):
    server.codes["/one.bin"] = 416
    with pytest.raises(Refused, match=r"cannot be had \(416\)"):
        fetch(made(Remote("one.bin", f"{server.url}/one.bin")))


@pytest.mark.parametrize("given", ["one.pth", ".", "saved-as.pth"])
def test_a_model_of_one_file_comes_from_that_file_too(folder: Path, tmp_path: Path, given: str):
    (tmp_path / "one.pth").write_bytes(b"it")
    (tmp_path / "saved-as.pth").write_bytes(b"it")
    fetch(made(Remote("one.pth", "https://example.invalid/one.pth", sha256(b"it"))), source=str(tmp_path / given))
    assert contents(folder / "mine") == {"one.pth": b"it"}


@pytest.mark.parametrize("below", ["", "/one.pth"])
def test_a_mirror_is_named_by_its_folder_or_by_the_file(server: FileServer, folder: Path, below: str):
    server.files["/mirror/one.pth"] = b"it"
    fetch(
        made(Remote("one.pth", "https://example.invalid/one.pth", sha256(b"it"))), source=f"{server.url}/mirror{below}"
    )
    assert contents(folder / "mine") == {"one.pth": b"it"}


def test_a_folder_without_the_files_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(Refused, match=f"has no {CONFIG}, which {NAME} needs"):
        fetch(registry.by_name("image_embedding", NAME), source=str(tmp_path))


# -- archives and pickles --------------------------------------------------------------------------------------------


def zipped(members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def pack(server: FileServer, members: list[tuple[str, bytes]]) -> Entry:
    server.files["/pack.zip"] = zipped(members)
    return made(Remote("pack.zip", f"{server.url}/pack.zip", None, ("a.onnx", "b.onnx"), "zip"))


@pytest.mark.parametrize("prefix", ["", "pack/", "../../", "/"])
def test_the_wanted_members_of_an_archive_come_out_of_it_and_no_others(server: FileServer, folder: Path, prefix: str):
    entry = pack(server, [(f"{prefix}{name}", name.encode()) for name in ("a.onnx", "b.onnx", "c.onnx")])
    fetch(entry)
    assert contents(folder / "mine") == {"a.onnx": b"a.onnx", "b.onnx": b"b.onnx"}
    assert [path.name for path in folder.iterdir()] == ["mine"]
    asked = len(server.asked)
    fetch(entry)
    assert len(server.asked) == asked, "its members are known, the archive is not needed again"


@pytest.mark.parametrize("members", [[("a.onnx", b"a")], [("a.onnx", b"a"), ("x/a.onnx", b"b"), ("b.onnx", b"b")]])
def test_an_archive_without_a_member_or_with_two_is_refused(server: FileServer, folder: Path, members: Any):
    with pytest.raises(Refused, match=r"holds [02] files of the name [ab].onnx"):
        fetch(pack(server, members))
    assert contents(folder / "mine") == {}


def test_a_member_that_unpacks_to_more_than_the_model_has_is_refused(server: FileServer, folder: Path):
    with pytest.raises(Refused, match=r"a\.onnx in pack\.zip is larger than the model"):
        fetch(pack(server, [("a.onnx", bytes(80 << 20)), ("b.onnx", b"b")]))
    assert contents(folder / "mine") == {}


def test_a_damaged_archive_is_refused(server: FileServer, folder: Path):
    entry = pack(server, [("a.onnx", b"a" * 1000), ("b.onnx", b"b")])
    server.files["/pack.zip"] = server.files["/pack.zip"].replace(b"a.onnx", b"b.onnx", 1)
    with pytest.raises(Refused, match=r"pack\.zip cannot be unpacked"):
        fetch(entry)
    assert contents(folder / "mine") == {}


def test_a_pickle_of_tensors_becomes_safetensors(server: FileServer, folder: Path):
    file = io.BytesIO()
    shared = torch.arange(4.0)
    torch.save({"a": shared, "tied": shared, "turned": torch.arange(6).reshape(2, 3).T}, file)
    server.files["/model.bin"] = file.getvalue()
    entry = made(Remote("model.bin", f"{server.url}/model.bin", None, ("model.safetensors",), "tensors"))
    fetch(entry)
    assert list(contents(folder / "mine")) == ["model.safetensors"]
    found = load_file(folder / "mine/model.safetensors")
    assert found["tied"].tolist() == [0, 1, 2, 3]
    assert found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]


class Evil:
    def __reduce__(self) -> Any:
        return (os.mkdir, (os.environ["EVIL"],))


@pytest.mark.parametrize("by", [torch.save, pickle.dump])
def test_a_pickle_that_would_run_something_is_not_run(
    server: FileServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: Any
):
    monkeypatch.setenv("EVIL", str(tmp_path / "made by the pickle"))
    file = io.BytesIO()
    by({"a": Evil()}, file)
    server.files["/model.bin"] = file.getvalue()
    with pytest.raises(Refused, match="something else than tensors"):
        fetch(made(Remote("model.bin", f"{server.url}/model.bin", None, ("model.safetensors",), "tensors")))
    assert not (tmp_path / "made by the pickle").exists()
    assert contents(folder / "mine") == {}


# -- what cannot be had ----------------------------------------------------------------------------------------------


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = cli.main(["models", "get", *words])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("refloom: ")
    return code, line


def test_without_a_network_one_line_says_so_and_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    code, line = refusal(capsys, NAME)
    assert code == 3
    for words in (
        "cannot be reached",
        "is there a network?",
        "--from",
        "HF_ENDPOINT",
        f"{REPOSITORY}/resolve/main/{CONFIG}",
    ):
        assert words in line


@pytest.mark.parametrize(
    ("code", "exit_code", "said"), [(404, 2, "--from"), (403, 2, "hf auth login"), (503, 3, "it resumes")]
)
def test_an_answer_that_is_no_file_says_what_to_do(
    server: FileServer, capsys: pytest.CaptureFixture[str], code: int, exit_code: int, said: str
):
    server.codes[f"/{REPOSITORY}/resolve/main/{CONFIG}"] = code
    answered, line = refusal(capsys, NAME)
    assert answered == exit_code
    assert f"({code})" in line
    assert said in line


def test_a_hub_that_may_not_be_asked_is_not(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, line = refusal(capsys, NAME)
    assert (code, "HF_HUB_OFFLINE is set" in line, server.asked) == (2, True, [])


def test_more_bytes_than_a_model_has_are_refused(server: FileServer, folder: Path):
    server.files["/one.bin"] = bytes(66 << 20)
    with pytest.raises(Refused, match="more than the model has"):
        fetch(made(Remote("one.bin", f"{server.url}/one.bin"), size_bytes=1000))
    assert contents(folder / "mine") == {}


def test_an_unknown_name_fetches_nothing_of_the_known_ones(server: FileServer, capsys: pytest.CaptureFixture[str]):
    code, line = refusal(capsys, NAME, "dinov2-bas")
    assert (code, f"did you mean {NAME}?" in line, server.asked) == (2, True, [])


def test_a_packaged_model_says_what_brings_it(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["models", "get", "dlib"]) == 0
    assert capsys.readouterr().out == "dlib is there: it comes with face-recognition-models\n"


# -- the list --------------------------------------------------------------------------------------------------------


def test_models_prints_a_line_each(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["models"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    known = [(role, entry) for role, entries in registry.ENTRIES.items() for entry in entries]
    assert [line.split()[:2] for line in lines] == [[role, entry.name] for role, entry in known]
    for line, (_, entry) in zip(lines, known, strict=True):
        assert entry.license in line
        assert ("comes with" in line) is entry.is_packaged
        assert ("  absent  " in line) is (entry.present() is not None)
    taken = [line.split()[1] for line in lines if "taken by auto" in line]
    assert taken == ["grabcut", "yunet", "efficientnet-lite0", "efficientnet-lite0"]
    assert "models get NAME" in last


def test_models_says_more_when_asked(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["models", "--verbose"]) == 0
    said = capsys.readouterr().out
    assert "get it with: pip install" in said
    assert "absent: the file dinov2-base/config.json is not in the weights folder" in said
    assert cli.main(["models", "--json"]) == 0
    assert {role: len(rows) for role, rows in json.loads(capsys.readouterr().out).items()} == {
        role: len(entries) for role, entries in registry.ENTRIES.items()
    }
