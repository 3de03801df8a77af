"""The columns of every table as Markdown, out of the schemas. `python -m refloom.schemas.document` renews docs/dataset.md."""

from pathlib import Path

import pyarrow as pa

from refloom.schemas import reasons, tables
from refloom.schemas.fields import metadata_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "dataset.md"
MARKS = ("<!-- columns begin: python -m refloom.schemas.document -->", "<!-- columns end -->")


def columns() -> str:
    """All tables, the ledger and the closed lists of reasons."""
    parts = []
    for table in tables.TABLES.values():
        parts += [f"### {table.name}", "", f"{table.doc} Written by {table.stage}; one row a `{table.key}`.", ""]
        parts += _fields(table.schema)
    parts += ["### ledger", "", "Every item that has no row in its stage's table. Written by every stage.", ""]
    parts += _fields(tables.LEDGER)
    for title, words in (("Rejected", reasons.REJECTED), ("Failed", reasons.FAILED)):
        parts += [f"### {title}", "", "| reason | means |", "|---|---|"]
        parts += [f"| `{word}` | {_cell(doc)} |" for word, doc in words.items()]
        parts += [""]
    return "\n".join(parts).rstrip()


def renewed(page: str) -> str:
    """A page with the columns between its marks."""
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n\n{columns()}\n\n{MARKS[1]}{after}"


def _fields(schema: pa.Schema) -> list[str]:
    lines = ["| column | type | what |", "|---|---|---|"]
    for field in schema:
        about = metadata_of(field)
        notes = [about.get("doc", "")]
        notes += [f"in {about['unit']}"] if "unit" in about else []
        notes += [f"range {about['range']}"] if "range" in about else []
        notes += [f"by the {about['model']}"] if "model" in about else []
        lines.append(f"| `{field.name}` | `{_type(field.type)}` | {_cell('; '.join(filter(None, notes)))} |")
    return [*lines, ""]


def _type(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return "struct<" + ", ".join(f"{field.name}: {_type(field.type)}" for field in kind) + ">"
    if pa.types.is_fixed_size_list(kind):
        return f"{_type(kind.value_type)}[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"list<{_type(kind.value_type)}>"
    return str(kind)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
