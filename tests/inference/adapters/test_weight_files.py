"""Files of weights: what is read, and of what is not, the cause and the remedy in our words; no code of any is run."""

import gzip
import io
import json
import pickle
import re
import struct
import tarfile
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import checkpoints
import pytest
import torch
from checkpoints import KINDS, flat, nested, pickled, read, same, stored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from refloom.inference.adapters import kinds
from refloom.inference.checkpoints import tensors as tensorfile
from refloom.inference.checkpoints.tensors import contents
from refloom.schemas.errors import Refused

SMALL = {"image_proj.proj.weight": torch.ones(4, 3), "ip_adapter.1.to_k_ip.weight": torch.ones(2, 2)}
UNSAFE = re.compile(r"weights_only|add_safe_globals|trust|allow_pickle|pytorch\.org|\n|\x1b", re.IGNORECASE)


class Touches:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def refusal(path: Path) -> str:
    with pytest.raises(Refused) as caught:
        contents(path).take()
    said = str(caught.value)
    assert not UNSAFE.search(said), said
    assert path.name in said
    assert len(said) < 1000
    return said


def old(tensors) -> bytes:
    """As torch wrote files before it wrote zip files."""
    stream = io.BytesIO()
    torch.save(tensors, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def new(tensors) -> bytes:
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


def safe(tensors=SMALL) -> bytes:
    from safetensors.torch import save

    return save(tensors)


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return stream.getvalue()


POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1\nsize 12345\n"
)
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
NOT_WEIGHTS = {
    "pointer of git-LFS": (POINTER, r"pointer of git-LFS.*run `git lfs pull`"),
    "web page": (PAGE, r"web page: .*fetch it from the link"),
    "nothing": (b"", r"empty; get it again"),
    "zeros": (bytes(5000), r"all zero.*get it again"),
    "archive": (gzip.compress(b"weights" * 99), r"gzip archive: unpack it"),
    "tar": (tarred(), r"tar archive: unpack it"),
    "other zip": (zipped(**{"model/readme.txt": b"x"}), r"torch did not write, with model/readme\.txt: unpack it"),
    "answer of a server": (b'{"error": "Repository not found"}', r"json: give the file of the weights"),
    "text": (b"no checkpoint at all", r"neither a safetensors file nor one of torch\.save"),
    "cut zip": (new(SMALL)[:-300], r"zip file that is cut off.*get it again"),
    "cut old pickle": (old(SMALL)[:-3], r"damaged|cut off"),
    "plain pickle": (pickle.dumps({"a": [1.0, 2.0]}), r"pickle that torch\.save did not write.*safetensors"),
    "cut pickle": (pickle.dumps({"a": [1.0, 2.0]})[:-4], r"pickle that is cut off"),
    "a number": (new(7), r"holds a int, not a mapping of tensors"),
}


@pytest.mark.parametrize("name", NOT_WEIGHTS)
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_what_is_no_file_of_weights_is_named_with_the_remedy(tmp_path, name, suffix):
    content, said = NOT_WEIGHTS[name]
    if suffix == ".safetensors" and name in ("a number", "cut old pickle"):
        said = "rename it to end in .bin"
    file = tmp_path / f"model{suffix}"
    file.write_bytes(content)
    assert re.search(said, refusal(file)), refusal(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (safe()[:-5], r"cut off: \d+ of \d+ bytes are there; get it again"),
        (safe()[:20], "cut off inside its header"),
        (safe() + b"more", "4 bytes more than its header says"),
        (struct.pack("<Q", 1 << 62) + b"{" * 50, "more than any has"),
        (struct.pack("<Q", 10) + b"{notjson!}" + bytes(9), "header is damaged"),
        (struct.pack("<Q", 60_000) + b"{" + b"[" * 59_999, "header is damaged"),
        (safe().replace(b'"F32"', b'"F4!"'), "of the types F4!"),
    ],
    ids=["cut", "cut header", "longer", "huge header", "no json", "deep json", "type"],
)
def test_damage_of_a_safetensors_file_is_said_exactly(tmp_path, content, said):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    assert re.search(said, refusal(file)), refusal(file)


def test_a_file_under_the_other_kinds_name_is_told_its_true_one(tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(safe())
    assert "it is a safetensors file under another name: rename it to end in .safetensors" in refusal(file)
    file = tmp_path / "model.safetensors"
    for content in (new(SMALL), old(SMALL)):
        file.write_bytes(content)
        assert "it is a pickle of torch under another name: rename it to end in .bin" in refusal(file)


@pytest.mark.parametrize("make", [new, old, pickle.dumps], ids=["new", "old", "plain"])
@pytest.mark.parametrize("suffix", [".bin", ".pt", ".safetensors"])
def test_a_pickle_with_code_is_refused_with_what_it_wants_and_nothing_is_run(tmp_path, make, suffix):
    file = tmp_path / f"model{suffix}"
    file.write_bytes(make({"state_dict": {"a": Touches(tmp_path / "ran")}}))
    said = refusal(file)
    assert re.search(r"pickle with code, which was not run: it wants .*pathlib\.\w*Path", said)
    assert "Get the weights as .safetensors" in said
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_names_its_class(tmp_path):
    assert "it wants torch.nn.modules.linear.Linear" in refusal(pickled(tmp_path / "m.bin", torch.nn.Linear(2, 2)))


@pytest.mark.parametrize(
    "wants", ["builtins.eval", "os.system", "builtins.bytearray", "_codecs.encode", "torch.hub.load"]
)
def test_nothing_but_tensors_and_plain_values_is_built(tmp_path, wants):
    """`bytearray` alone could take all memory, and torch lets it pass."""
    module, name = wants.rsplit(".", 1)
    described = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(K\x01tR."
    for content in (zipped_stored({"m/data.pkl": described, "m/version": b"3\n"}), described):
        file = tmp_path / "m.bin"
        file.write_bytes(content)
        assert f"it wants {wants}" in refusal(file)


def zipped_stored(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def test_a_program_of_torchscript_is_code(tmp_path):
    file = tmp_path / "m.pt"
    file.write_bytes(zipped_stored({"m/data.pkl": b"\x80\x02}.", "m/constants.pkl": b"\x80\x02).", "m/code/a.py": b""}))
    assert "program of TorchScript, which is code" in refusal(file)


def test_files_that_are_there_in_another_form_are_read(tmp_path):
    for at, content in enumerate((old(SMALL), new(OrderedDict(SMALL)), new(nested(SMALL)))):
        file = tmp_path / f"{at}.bin"
        file.write_bytes(content)
        found = contents(file).take()
        assert {key: tensor.tolist() for key, tensor in found.items()} == {k: t.tolist() for k, t in SMALL.items()}


def test_no_file_and_a_folder_of_nothing_are_refused(tmp_path):
    assert "there is no such file" in refusal(tmp_path / "gone.bin")
    (tmp_path / "empty").mkdir()
    assert "holds no weights, but nothing" in refusal(tmp_path / "empty")
    (tmp_path / "empty" / "readme.md").write_text("x")
    assert "holds no weights, but readme.md: give the file" in refusal(tmp_path / "empty")


# zip bombs and what else would take memory


def most(path: Path) -> int:
    """Bytes of Python's own that reading takes at most."""
    tracemalloc.start()
    try:
        refusal(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_zip_that_grows_when_it_is_unpacked_is_refused_before_it_does(tmp_path):
    file = tmp_path / "bomb.bin"
    file.write_bytes(zipped(**{"m/data.pkl": bytes(50_000_000), "m/version": b"3\n"}))
    assert file.stat().st_size < 1_000_000
    assert most(file) < 10_000_000
    assert "would grow when it is unpacked" in refusal(file)


def test_storages_that_claim_more_than_the_file_holds_are_refused(tmp_path):
    file = tmp_path / "m.bin"
    for content in (new({"a": torch.zeros(4)}), old({"a": torch.zeros(4)})):
        claimed = re.sub(rb"(cpuq.)K\x04(N?tq)", lambda m: m[1] + b"\x8a\x05\x00\x00\x00\x00\x10" + m[2], content)
        file.write_bytes(claimed)
        assert claimed != content
        refusal(file)
    wide = torch.zeros(1).expand(1 << 30, 1 << 10)
    assert "more numbers by its shape" in refusal(pickled(file, {"a": wide}))


def test_mappings_that_hold_themselves_or_one_another_end(tmp_path):
    loop: dict = {}
    loop["a"] = loop
    assert "without end" in refusal(pickled(tmp_path / "loop.bin", loop))
    laughs: dict = {"a": torch.ones(1)}
    for _ in range(8):
        laughs = {str(at): laughs for at in range(10)}
    assert "without end" in refusal(pickled(tmp_path / "laughs.bin", laughs))


@pytest.mark.parametrize("key", [(1, 2), 1.5, None, True], ids=str)
def test_keys_that_are_no_texts_are_refused(tmp_path, key):
    assert "not by a text" in refusal(pickled(tmp_path / "m.bin", {key: torch.ones(1)}))


# shards


def shards(folder: Path, kind: str, suffix: str, *, index: bool = True) -> dict[str, str]:
    """A checkpoint in three shards; returns the index's map."""
    tensors, owners = flat(kind), {}
    names = list(tensors)
    for at in range(3):
        name = f"model-{at + 1:05}-of-00003{suffix}"
        part = {key: tensors[key] for key in names[at::3]}
        owners |= dict.fromkeys(part, name)
        (stored if suffix == ".safetensors" else pickled)(folder / name, part)
    if index:
        write_index(folder, suffix, owners)
    return owners


def write_index(folder: Path, suffix: str, owners: dict[str, str]) -> Path:
    file = folder / ("model.safetensors.index.json" if suffix == ".safetensors" else "pytorch_model.bin.index.json")
    file.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": owners}))
    return file


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards_are_read_by_their_index_or_by_their_folder(tmp_path, kind, suffix):
    whole = read(kind, stored(tmp_path / "whole.safetensors", flat(kind)))
    (folder := tmp_path / "shards").mkdir()
    shards(folder, kind, suffix, index=False)
    assert same(read(kind, folder), whole)
    shards(folder, kind, suffix)
    assert same(read(kind, folder), whole)
    assert same(read(kind, next(folder.glob("*.index.json"))), whole)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "pytorch_model.bin", "model.bin", "ip-adapter_sdxl.bin", "x.pth"]
)
def test_a_folder_of_one_checkpoint_is_read(tmp_path, name):
    (stored if name.endswith("safetensors") else pickled)(tmp_path / name, flat("ip_adapter"))
    for beside in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
        pickled(tmp_path / beside, {"state": 1})
    assert same(read("ip_adapter", tmp_path), read("ip_adapter", tmp_path / name))


def test_a_folder_of_two_checkpoints_asks_which(tmp_path):
    for name in ("ip-adapter_sdxl.bin", "ip-adapter-plus_sdxl.bin"):
        pickled(tmp_path / name, flat("ip_adapter"))
    assert "several files of weights: give one of ip-adapter-plus_sdxl.bin, ip-adapter_sdxl.bin" in refusal(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    shards(tmp_path, "ip_adapter", ".safetensors")
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    assert "not beside it: model-00002-of-00003.safetensors; get them too" in refusal(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    assert "lacks the shards model-00002-of-00003.safetensors" in refusal(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../outside.safetensors", "/etc/outside.safetensors", "a/../../outside.safetensors", "..", "a\\b.safetensors"],
)
def test_shards_that_leave_the_folder_are_refused(tmp_path, name):
    (inside := tmp_path / "inside").mkdir()
    stored(tmp_path / "outside.safetensors", flat("ip_adapter"))
    write_index(inside, ".safetensors", dict.fromkeys(flat("ip_adapter"), name))
    assert "not a file beside it" in refusal(inside / "model.safetensors.index.json")


def test_an_index_that_does_not_fit_its_shards_is_refused(tmp_path):
    owners = shards(tmp_path, "ip_adapter", ".safetensors")
    first, second = sorted(set(owners.values()))[:2]
    moved = next(key for key, name in owners.items() if name == first)
    file = write_index(tmp_path, ".safetensors", owners | {moved: second})
    assert f"{moved} is not in the shard that it names" in refusal(file)
    file = write_index(tmp_path, ".safetensors", owners | {"more.weight": first})
    assert "more.weight is not in the shard that it names" in refusal(file)
    write_index(tmp_path, ".safetensors", owners)
    stored(tmp_path / second, {moved: torch.ones(1)})
    assert "lies in two shards" in refusal(file)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[" * 99_999, POINTER.decode()]
)
def test_an_index_that_is_none_is_refused(tmp_path, text):
    file = tmp_path / "model.safetensors.index.json"
    file.write_text(text)
    assert "is no index of shards" in refusal(file)


# fuzzing: every reader, every form


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """Bytes of every kind in every form, and a folder for what is made of them."""
    folder = tmp_path_factory.mktemp("forms")
    made = {}
    for kind in KINDS:
        made[kind, ".safetensors"] = stored(folder / "m.safetensors", flat(kind)).read_bytes()
        made[kind, ".bin"] = new(nested(flat(kind)))
        made[kind, ".pt"] = old(flat(kind))
    return folder, made


def survives(kind: str, file: Path) -> None:
    """It is read, or refused in one line."""
    said = ""
    try:
        read(kind, file)
    except Refused as error:
        said = str(error)
    assert not UNSAFE.search(said), said
    assert len(said) < 3000


quickly = settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pt"])
@pytest.mark.parametrize("kind", KINDS)
@quickly
@given(share=st.floats(0, 1))
def test_a_file_that_is_cut_anywhere_is_refused_or_read(forms, kind, suffix, share):
    folder, made = forms
    content = made[kind, suffix]
    file = folder / f"cut{suffix}"
    file.write_bytes(content[: int(share * len(content))])
    survives(kind, file)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pt"])
@pytest.mark.parametrize("kind", KINDS)
@quickly
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=8), front=st.booleans())
def test_a_file_with_flipped_bytes_is_refused_or_read(forms, kind, suffix, flips, front):
    """Half of them in the first 4 kB, where names and shapes are."""
    folder, made = forms
    content = bytearray(made[kind, suffix])
    for share, mask in flips:
        content[int(share * (min(4096, len(content)) - 1 if front else len(content) - 1))] ^= mask
    file = folder / f"flipped{suffix}"
    file.write_bytes(content)
    survives(kind, file)


@pytest.mark.parametrize("kind", KINDS)
@quickly
@given(
    name=st.text(max_size=40)
    | st.sampled_from(["ip_adapter.", ".", "image_proj", "layers..", "unet.", "module.", "a" * 9999]),
    shape=st.lists(st.integers(0, 3), max_size=4),
    instead=st.booleans(),
)
def test_hostile_names_and_shapes_are_refused_or_read(forms, kind, name, shape, instead):
    folder, _ = forms
    tensors = flat(kind)
    if instead:
        tensors.pop(sorted(tensors)[len(name) % len(tensors)])
    tensors[name] = torch.ones(shape)
    survives(kind, pickled(folder / "names.bin", tensors))
    survives(kind, pickled(folder / "names.bin", nested_loosely(tensors)))
    if name != "__metadata__" and not re.search(r"[\ud800-\udfff]", name):
        save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, folder / "names.safetensors")
        survives(kind, folder / "names.safetensors")


def nested_loosely(tensors):
    """By part; what has both a name and parts below it keeps its dotted names."""
    parts = {key.partition(".")[0] for key in tensors}
    return nested({key: tensor for key, tensor in tensors.items() if key not in parts or "." in key})


@quickly
@given(header=st.binary(max_size=200), length=st.integers(0, 2**64 - 1) | st.integers(0, 300))
def test_any_header_of_a_safetensors_file_is_refused_or_read(forms, header, length):
    file = forms[0] / "header.safetensors"
    file.write_bytes(struct.pack("<Q", length) + b"{" + header)
    survives("ip_adapter", file)


@quickly
@given(described=st.binary(max_size=300))
def test_any_pickle_in_a_zip_is_refused_or_read(forms, described):
    file = forms[0] / "any.bin"
    file.write_bytes(zipped_stored({"m/data.pkl": b"\x80\x02" + described, "m/version": b"3\n"}))
    survives("ip_adapter", file)


def test_every_published_kind_has_its_fuzzed_reader():
    assert set(KINDS) == set(kinds.published())
    assert tensorfile.INDEX_SUFFIX == ".index.json"
    assert checkpoints.KINDS == KINDS
