"""The page about the dataset says what the schemas say."""

from refloom.schemas import document, tables
from refloom.schemas.fields import metadata_of


def test_the_page_is_what_the_schemas_say():
    page = document.PAGE.read_text(encoding="utf-8")
    assert document.renewed(page) == page, "renew it with `python -m refloom.schemas.document`"


def test_every_column_of_every_table_is_explained():
    for table in tables.TABLES.values():
        for field in table.schema:
            assert metadata_of(field).get("doc"), f"{table.name}.{field.name}"
