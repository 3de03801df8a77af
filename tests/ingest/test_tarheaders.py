"""Headers of tars: what tarfile reads is read, and what a stranger claims costs neither memory nor time."""

import gzip
import io
import tarfile

import pytest
from hostiletars import BLOCK, Counted, as_tarfile, base256, header, hostile_middles, member, padded, sparse, write
from hypothesis import given, settings
from hypothesis import strategies as st

from refloom.ingest import tar, tarheaders
from refloom.ingest.tarheaders import Blocks, Damaged, walk
from refloom.schemas.storage import Folder

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
MEMBER = member("a.jpg", b"picture")


def read(data: bytes) -> list[tuple[str, int, int, str]]:
    return [(entry.name, entry.offset, entry.size, entry.kind) for entry in walk(Blocks(io.BytesIO(data), len(data)))]


def until_damage(blocks: Blocks) -> tuple[list[str], str | None]:
    names = []
    try:
        for entry in walk(blocks):
            names.append(entry.name)
    except Damaged as problem:
        return names, str(problem)
    return names, None


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..")
)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=8), KINDS, st.binary()), max_size=6),
)
def test_a_tar_of_any_format_reads_as_tarfile_reads_it(form, members):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form, encoding="utf-8") as out:
        for parts, kind, data in members:
            info = tarfile.TarInfo("/".join(parts))
            info.type, info.linkname = kind, "/".join(parts[:1]) if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            try:
                out.addfile(info, io.BytesIO(data))
            except ValueError:
                continue  # ustar has no room for the name
    assert read(sink.getvalue()) == as_tarfile(sink.getvalue())


def test_sizes_beyond_octal_sparse_files_and_unknown_kinds_are_passed_over():
    data = sparse("holes.jpg", 2) + member("odd", b"x" * 700, b"Z") + member("b.jpg", b"y", b"7") + bytes(2 * BLOCK)
    assert [entry[0] for entry in read(data)] == ["holes.jpg", "odd", "b.jpg"]
    assert [entry[3] for entry in read(data)] == ["other", "other", "file"]
    large = header(b"large.bin", base256(9 << 30)) + MEMBER
    assert [entry[2] for entry in read(large)] == [9 << 30]  # and the walk ends where the file does


@pytest.mark.parametrize("what", hostile_middles())
def test_a_hostile_header_is_damage_where_it_stands_and_nothing_is_read_for_it(what):
    middle = hostile_middles()[what]
    file = Counted(MEMBER + middle + MEMBER + bytes(2 * BLOCK))
    names, problem = until_damage(Blocks(file, len(file.getvalue())))
    assert names[0] == "a.jpg"
    assert problem
    assert file.largest <= tarheaders.MAX_HEADER_BODY_BYTES
    assert file.reads < 2 * (tarheaders.MAX_CHAIN + 3) + tarheaders.MAX_SPARSE_BLOCKS
    assert file.bytes < 2 << 20 or "sparse" in what


def test_bodies_of_members_are_never_read():
    file = Counted(b"".join(member(f"{at}.jpg", b"x" * 100_000) for at in range(20)) + bytes(2 * BLOCK))
    assert len(list(walk(Blocks(file, len(file.getvalue()))))) == 20
    assert file.bytes == 21 * BLOCK


def test_the_number_of_members_and_the_bytes_of_their_names_are_bounded(monkeypatch):
    data = member("a.jpg", b"") * 50
    monkeypatch.setattr(tarheaders, "MAX_MEMBERS", 10)
    names, problem = until_damage(Blocks(io.BytesIO(data), len(data)))
    assert len(names) == 10
    assert "more than 10 members" in problem
    monkeypatch.setattr(tarheaders, "MAX_MEMBERS", 1000)
    monkeypatch.setattr(tarheaders, "MAX_NAMES_BYTES", 52)
    names, problem = until_damage(Blocks(io.BytesIO(data), len(data)))
    assert len(names) == 10
    assert "names" in problem


@pytest.mark.parametrize(
    "packed",
    {
        "one giant body": header(b"a.jpg", 256 << 20) + bytes(64 << 20),
        "one giant pax body": MEMBER + header(b"pax", 256 << 20, b"x") + b"9" * (64 << 20),
        "members without an end": MEMBER * 20_000,
    }.items(),
    ids=lambda packed: packed[0],
)
def test_a_gzip_tar_is_not_unpacked_beyond_reason(tmp_path, packed):
    path = tmp_path / "bomb.tar"
    path.write_bytes(gzip.compress(packed[1], 9))
    index = tar.read_index(Folder(tmp_path), path.name)
    assert index.gzip
    assert index.problem is not None
    file = Counted(path.read_bytes())
    blocks = Blocks(gzip.GzipFile(fileobj=file), None, 100 * len(file.getvalue()))
    until_damage(blocks)
    assert blocks.read_bytes <= 100 * len(file.getvalue()) + (1 << 16)
    offsets = {entry.offset for entry in index.members}
    assert sum(len(data) for _, _, data in tar.stream(Folder(tmp_path), path.name, offsets)) <= 16 << 20


def test_bytes_of_a_gzip_tar_that_nobody_wants_are_not_kept(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(gzip.compress(member("a.jpg", b"a" * 600) + member("b.jpg", b"b") + bytes(2 * BLOCK)))
    second = tar.read_index(Folder(tmp_path), path.name).members[1]
    assert list(tar.stream(Folder(tmp_path), path.name, {second.offset})) == [("b.jpg", second.offset, b"b")]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=600),
            st.sampled_from(sorted(set(hostile_middles()) - {"a sparse map without an end"})).map(
                lambda what: hostile_middles()[what]
            ),
            st.builds(
                lambda name, size, kind, magic, body: header(name, size, kind, magic) + padded(body),
                st.binary(max_size=100),
                st.one_of(st.integers(0, 1 << 20), st.binary(max_size=12)),
                st.binary(min_size=1, max_size=1),
                st.sampled_from([b"ustar\x0000", b"ustar  \0", bytes(8)]),
                st.binary(max_size=1200),
            ),
        ),
        max_size=6,
    )
)
def test_whatever_a_tar_holds_it_is_walked_to_an_end_or_damaged(parts):
    file = Counted(b"".join(parts))
    names, _ = until_damage(Blocks(file, len(file.getvalue())))
    assert len(names) <= len(file.getvalue()) // BLOCK
    assert file.bytes <= len(file.getvalue())


def test_the_index_says_where_the_damage_is(tmp_path):
    write(tmp_path / "bad.tar", MEMBER, header(b"neg.jpg", base256(-512)), MEMBER)
    index = tar.read_index(Folder(tmp_path), "bad.tar")
    assert [entry.name for entry in index.members] == ["a.jpg"]
    assert index.problem == "damaged after 'a.jpg' (a header with a negative or impossible size)"
