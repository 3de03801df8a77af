"""A small language for conditions on the rows of a table: what stands behind `--where`.

    object_scores: quality > 0.6 and relative_area >= 0.05
    samples: kind == "group" and len(pictures) >= 3
    images: license in ("CC0", "CC BY 4.0") and not startswith(image_id, "folder/")
    not faces: det_score > 0.9

A table's name, a colon, and a condition; `not` before the name asks for pictures without such a row. A condition is
written as in Python: columns (`image.path` is a field of a column, `subjects.phrase` one of its members), numbers,
texts, True, False and None; `== != < <= > >=`, `in`, `not in`, `is None`, `is not None`, `and`, `or`, `not`; `len(x)`,
`startswith(x, "a")`, `endswith(x, "a")`. `"dog" in phrase` finds a part of a text, `"dog" in captions` a member of a
list. Where a column holds lists, a comparison holds if it does for any member. A value that is null fulfils nothing but
`is None`.

The words are parsed, never run: nothing else than this can be said.
"""

import ast
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas.errors import Refused
from refloom.schemas.tables import TABLES
from refloom.schemas.wording import shown

_LONGEST = 2000
"""Characters: a list of ids belongs into a file."""
_DEEPEST = 40
"""Conditions in each other."""
_COMPARE: dict[type, tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Eq: ("==", pc.equal),
    ast.NotEq: ("!=", pc.not_equal),
    ast.Lt: ("<", pc.less),
    ast.LtE: ("<=", pc.less_equal),
    ast.Gt: (">", pc.greater),
    ast.GtE: (">=", pc.greater_equal),
}
_MIRRORED: dict[type, type] = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
_TEXTS = {"startswith": pc.starts_with, "endswith": pc.ends_with}

Test = Callable[[pa.Table], pa.ChunkedArray]
"""Rows of a table with the columns that are asked for to booleans (N,), null where nothing is known."""


@dataclass(frozen=True, slots=True)
class Where:
    """A condition on rows of one table.

    Attributes:
        text: as it was written.
        table: whose rows.
        negated: pictures without such a row are meant.
        columns: that are read, as Parquet names them.
        test: of rows with these columns.
    """

    text: str
    table: str
    negated: bool
    columns: tuple[str, ...]
    test: Test

    def holds(self, rows: pa.Table) -> pa.ChunkedArray:
        """Which of N rows fulfil it: booleans (N,) without nulls.

        Raises:
            Refused: a plugin's column is of a type that nothing can be asked of.
        """
        try:
            return pc.fill_null(self.test(rows), False)
        except pa.ArrowException as error:
            raise Refused(f"--where {shown(self.text, 200)!r}: this cannot be asked ({error})") from error


def parse(text: str, schema: Callable[[str], pa.Schema] | None = None) -> Where:
    """Read a condition.

    Args:
        text: see the module.
        schema: of a table by its name, with the columns that plugins have added; the contract's by default.

    Raises:
        Refused: it cannot be read, or names what is not there; says where and what could be meant.
    """
    if len(text) > _LONGEST:
        raise Refused(f"--where is longer than {_LONGEST:,} characters: write ids into a file, for --ids")
    head, colon, body = text.partition(":")
    words = head.split()
    negated = words[:1] == ["not"]
    name = " ".join(words[negated:])
    if name not in TABLES:
        close = difflib.get_close_matches(name, TABLES, 1)
        meant = f"; did you mean {close[0]}?" if close else f"; tables: {', '.join(TABLES)}"
        raise Refused(
            f"--where {shown(text)!r}: write it as `TABLE: CONDITION`; there is no table {shown(name)!r}{meant}"
        )
    found = schema(name) if schema is not None else TABLES[name].schema
    reader = _Reader(text, name, found)
    if not colon:
        return Where(text, name, negated, (TABLES[name].key,), _every)
    try:
        tree = ast.parse(body.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise reader.refusal(f"this is no condition ({getattr(error, 'msg', error)})") from error
    test = reader.condition(tree.body)
    return Where(text, name, negated, tuple(dict.fromkeys((TABLES[name].key, *reader.columns))), test)


def _every(rows: pa.Table) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([True] * len(rows), pa.bool_())])


@dataclass(frozen=True, slots=True)
class _Column:
    """A column, or what is inside it.

    Attributes:
        path: names from the outside in; None steps into the members of a list.
        kind: type of the innermost values.
        text: as it was written.
    """

    path: tuple[str | None, ...]
    kind: pa.DataType
    text: str

    @property
    def parquet(self) -> str:
        """As Parquet names it, without lists at its end, which are read whole."""
        path = self.path[:-1] if self.path[-1] is None else self.path
        return ".".join("list.element" if name is None else name for name in path)

    def values(self, rows: pa.Table, *, whole: bool = False) -> tuple[pa.Array, pa.Array | None]:
        """Values, and the row of each; None where they are one a row, in order.

        Args:
            rows: with the column.
            whole: lists at the end stay lists.
        """
        path = self.path[:-1] if whole and self.path[-1] is None else self.path
        array = rows[str(path[0])].combine_chunks()
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        parents: pa.Array | None = None
        for name in path[1:]:
            if name is not None:
                array = pc.struct_field(array, name)
                continue
            inner = pc.list_parent_indices(array)
            parents = inner if parents is None else parents.take(inner)
            array = pc.list_flatten(array)
        wide = _widened(array.type)
        return (array if wide == array.type else array.cast(wide)), parents

    def any_row(self, rows: pa.Table, of: Callable[[pa.Array], pa.Array]) -> pa.ChunkedArray:
        """Whether something holds of the value of each row, or of any of its values."""
        values, parents = self.values(rows)
        found = of(values)
        if parents is None:
            return pa.chunked_array([found])
        hit = pc.unique(parents.filter(pc.fill_null(found, False)))
        return pa.chunked_array([pc.is_in(pa.array(range(len(rows)), hit.type), hit)])


class _Reader:
    """Turns a parsed condition into a test, and notes the columns that it asks for."""

    def __init__(self, text: str, table: str, schema: pa.Schema) -> None:
        self._text, self._table, self._schema = text, table, schema
        self._depth = 0
        self.columns: list[str] = []

    def refusal(self, why: str) -> Refused:
        return Refused(f"--where {shown(self._text, 200)!r}: {why}")

    def condition(self, node: ast.AST) -> Test:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self.refusal(f"more than {_DEEPEST} conditions in each other")
        try:
            return self._condition(node)
        finally:
            self._depth -= 1

    def _condition(self, node: ast.AST) -> Test:
        match node:
            case ast.BoolOp():
                tests = [self.condition(value) for value in node.values]
                return _joined(tests, pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene)
            case ast.UnaryOp(op=ast.Not()):
                test = self.condition(node.operand)
                return lambda rows: pc.invert(test(rows))
            case ast.Compare():
                return self._compare(node)
            case ast.Call():
                return self._text_test(node)
            case ast.Name() | ast.Attribute():
                column = self._column(node)
                if not pa.types.is_boolean(column.kind):
                    raise self.refusal(f"{column.text} is no condition: compare it with something")
                return lambda rows: column.any_row(rows, lambda values: values)
        raise self.refusal(f"`{shown(ast.unparse(node))}` is no condition; `docs/datasets.md` has what can be said")

    def _compare(self, node: ast.Compare) -> Test:
        """One comparison, or a chain of them such as `0 < x < 1`."""
        sides = [node.left, *node.comparators]
        tests = [self._pair(sides[at], operator, sides[at + 1]) for at, operator in enumerate(node.ops)]
        return tests[0] if len(tests) == 1 else _joined(tests, pc.and_kleene)

    def _pair(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Test:
        if isinstance(operator, ast.Is | ast.IsNot):
            return self._is_null(left, right, negated=isinstance(operator, ast.IsNot))
        if isinstance(operator, ast.In | ast.NotIn):
            test = self._member(left, right)
            return (lambda rows: pc.invert(test(rows))) if isinstance(operator, ast.NotIn) else test
        kind = type(operator)
        if _is_literal(left) and not _is_literal(right):
            left, right, kind = right, left, _MIRRORED.get(kind, kind)
        word, compare = _COMPARE[kind]
        if _is_length(left):
            return self._length(left, compare, self._literal(right, pa.int64(), word))
        column = self._column(left)
        value = self._literal(right, column.kind, word)
        return lambda rows: column.any_row(rows, lambda values: compare(values, value))

    def _is_null(self, left: ast.expr, right: ast.expr, *, negated: bool) -> Test:
        if not (isinstance(right, ast.Constant) and right.value is None):
            raise self.refusal("`is` is for None: compare other values with ==")
        column = self._column(left)
        test: Test = lambda rows: pa.chunked_array([column.values(rows, whole=True)[0].is_null()])  # noqa: E731
        if None in column.path[:-1]:
            raise self.refusal(f"{column.text} is inside a list: `is None` is for what each row has once")
        return (lambda rows: pc.invert(test(rows))) if negated else test

    def _member(self, left: ast.expr, right: ast.expr) -> Test:
        """`column in (1, 2)`, `"part" in column`, `"member" in column`."""
        if isinstance(right, ast.Tuple | ast.List | ast.Set):
            column = self._column(left)
            literals = [self._literal(one, column.kind, "in") for one in right.elts]
            kind = _widened(column.kind)
            kind = pa.float64() if any(one.type != kind for one in literals) else kind
            among = pa.array([one.as_py() for one in literals], kind)
            return lambda rows: column.any_row(rows, lambda values: _is_in(values.cast(kind), among))
        column = self._column(right)
        value = self._literal(left, column.kind, "in")
        if None in column.path:
            return lambda rows: column.any_row(rows, lambda values: pc.equal(values, value))
        if not pa.types.is_string(column.kind):
            raise self.refusal(f"{column.text} is one value and no list: compare it with ==")
        return lambda rows: column.any_row(rows, lambda values: pc.match_substring(values, value.as_py()))

    def _length(self, node: ast.expr, compare: Callable[[Any, Any], Any], value: pa.Scalar) -> Test:
        assert isinstance(node, ast.Call)
        column = self._column(node.args[0])
        if column.path[-1] is None and None not in column.path[:-1]:
            measure: Callable[[pa.Array], pa.Array] = pc.list_value_length
        elif pa.types.is_string(column.kind) and None not in column.path:
            measure = pc.utf8_length
        else:
            raise self.refusal(f"len({column.text}): len is for lists and texts that each row has once")
        return lambda rows: pa.chunked_array([compare(measure(column.values(rows, whole=True)[0]), value)])

    def _text_test(self, node: ast.Call) -> Test:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _TEXTS or len(node.args) != 2 or node.keywords:
            raise self.refusal(
                f'`{shown(ast.unparse(node))}`: there are len(x), startswith(x, "a") and endswith(x, "a")'
            )
        column = self._column(node.args[0])
        value = self._literal(node.args[1], pa.string(), name).as_py()
        if not pa.types.is_string(column.kind):
            raise self.refusal(f"{name} is for texts, and {column.text} is {column.kind}")
        return lambda rows: column.any_row(rows, lambda values: _TEXTS[name](values, value))

    def _column(self, node: ast.AST) -> _Column:
        names: list[str] = []
        inner = node
        while isinstance(inner, ast.Attribute):
            names.insert(0, inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            raise self.refusal(f"`{shown(ast.unparse(node))}` is no column of {self._table}")
        names.insert(0, inner.id)
        path: list[str | None] = []
        fields: list[pa.Field] = list(self._schema)
        kind: pa.DataType = pa.null()
        for name in names:
            known = {field.name: field.type for field in fields}
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'no fields in it'}"
                raise self.refusal(f"no column {shown('.'.join(names))} in {self._table}: {meant}")
            path.append(name)
            kind = known[name]
            while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
                path.append(None)
                kind = kind.value_type
            fields = list(kind) if pa.types.is_struct(kind) else []
        text = ".".join(names)
        if pa.types.is_binary(kind):
            raise self.refusal(f"{text} holds the bytes of pictures: conditions are on what is known of them")
        column = _Column(tuple(path), kind, text)
        self.columns.append(column.parquet + _spared(column))
        return column

    def _literal(self, node: ast.expr, kind: pa.DataType, word: str) -> pa.Scalar:
        """A value that is written down, as a column of a type has it."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and _is_number(node.operand):
            value: Any = -ast.literal_eval(node.operand)
        elif isinstance(node, ast.Constant):
            value = node.value
        else:
            raise self.refusal(f"`{shown(ast.unparse(node))}` behind {word}: give a number, a text, True or False")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = {
            "a text": (pa.types.is_string(kind), isinstance(value, str)),
            "a number": (pa.types.is_integer(kind) or pa.types.is_floating(kind), is_number),
            "True or False": (pa.types.is_boolean(kind), isinstance(value, bool)),
        }
        wanted = next((name for name, (is_kind, _) in fits.items() if is_kind), None)
        if wanted is None:
            raise self.refusal(f"what is beside {word} is {kind}, which cannot be compared: name a field of it")
        if not fits[wanted][1]:
            more = "; for what is null write `is None`" if value is None else ""
            raise self.refusal(f"{shown(repr(value))} behind {word}: it is compared with {wanted}{more}")
        is_whole = pa.types.is_integer(kind)
        if pa.types.is_unsigned_integer(kind) and (isinstance(value, float) or value < 0):
            raise self.refusal(f"{shown(repr(value))} behind {word}: it is compared with a whole number from 0")
        try:  # numbers of single precision are compared as they are stored
            return pa.scalar(value, pa.float64() if is_whole and isinstance(value, float) else _widened(kind))
        except (OverflowError, pa.ArrowException) as error:
            raise self.refusal(f"{shown(repr(value))} is too large a number") from error


def _widened(kind: pa.DataType) -> pa.DataType:
    """The type in which values are compared: whole numbers may be compared with any, halves cannot be with anything."""
    if pa.types.is_signed_integer(kind):
        return pa.int64()
    return pa.float32() if pa.types.is_float16(kind) else kind


def _spared(column: _Column) -> str:
    """What is added to the name of a struct with bytes of pictures, so that these are not read; nothing for others."""
    fields = list(column.kind) if pa.types.is_struct(column.kind) else []
    if not any(pa.types.is_binary(field.type) for field in fields):
        return ""
    first = next(field.name for field in fields if not pa.types.is_binary(field.type))
    return f"{'.list.element' if column.path[-1] is None else ''}.{first}"


def _is_literal(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) or (isinstance(node, ast.UnaryOp) and _is_number(node.operand))


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _is_length(node: ast.expr) -> bool:
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len"
    return is_call and len(node.args) == 1 and not node.keywords  # type: ignore[attr-defined]


def _is_in(values: pa.Array, among: pa.Array) -> pa.Array:
    """Membership that says null of what is null, as comparisons do."""
    return pc.if_else(values.is_valid(), pc.is_in(values, value_set=among), pa.scalar(None, pa.bool_()))


def _joined(tests: list[Test], join: Callable[[Any, Any], Any]) -> Test:
    def test(rows: pa.Table) -> pa.ChunkedArray:
        found = tests[0](rows)
        for one in tests[1:]:
            found = join(found, one(rows))
        return found

    return test
