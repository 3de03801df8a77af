"""Files on a store that shows what is written at once (`memory://`): the old one until the new one is whole."""

import pyarrow as pa
import pytest

from refloom.schemas.parquet import TableWriter
from refloom.schemas.storage import Folder

SCHEMA = pa.schema([("number", pa.int64())])


@pytest.fixture(params=["memory", "disk"])
def folder(request, tmp_path):
    return Folder(str(tmp_path) if request.param == "disk" else f"memory://{tmp_path}")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_that_is_not_written_to_its_end_leaves_the_old_one(folder, error):
    folder.write("a/one", b"old")
    with pytest.raises(error), folder.create("a/one") as file:
        file.write(b"new")
        assert folder.read("a/one") == b"old"
        raise error
    with pytest.raises(error), folder.create("a/two") as file:
        file.write(b"new")
        assert not folder.exists("a/two")
        raise error
    assert folder.names("a") == ["one"]
    assert folder.read("a/one") == b"old"


def test_a_table_appears_when_it_is_shown_and_not_at_all_when_it_is_dropped(folder):
    writer = TableWriter(folder, "numbers", "u", SCHEMA)
    writer.add({"number": 1})
    writer.finish()
    assert not [name for name in folder.names("numbers") if name.endswith(".parquet")]
    writer.show()
    assert [file.path for file in writer.files] == ["numbers/unit-u-000.parquet"]
    other = TableWriter(folder, "numbers", "u", SCHEMA, taken=[file.path for file in writer.files])
    other.add({"number": 2})
    other.finish()
    other.abort()
    assert folder.names("numbers") == ["unit-u-000.parquet"]
    other = TableWriter(folder, "numbers", "u", SCHEMA, taken=[file.path for file in writer.files])
    other.add({"number": 3})
    other.close()
    assert folder.names("numbers") == ["unit-u-000.parquet", "unit-u-000b.parquet"]


def test_a_copy_is_whole_and_leaves_the_first(folder):
    folder.write("a/one", b"1")
    folder.write("a/two", b"2")
    folder.copy("a/one", "a/two")
    folder.write("a/one", b"3")
    assert (folder.read("a/one"), folder.read("a/two"), folder.names("a")) == (b"3", b"1", ["one", "two"])
