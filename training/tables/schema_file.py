"""A schema as a TOML file that can be edited: `schema.toml`.

What a model is made of is each column's `kind`, `categories`, `parts` and whether there are `nulls`, and the label's
`normal` and `anomaly`. The rest tells what the table was like, and may be left away, except for the names and the
number of rows.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from training.tables.base import Table
from training.tables.errors import TableError, UnknownColumn, listed, quote
from training.tables.inference import RESERVED
from training.tables.schema import KINDS, PARTS, Categorical, Column, Dropped, Label, Schema, Timestamp

FORMAT_VERSION = 1

COMMENT = """\
# How the columns of a table are used. It may be edited: `kind` is numeric, boolean, categorical, timestamp or dropped;
# a categorical column needs `categories`, and a timestamp `parts`. Where `nulls` is above 0, a null is allowed in later
# rows, and what is no category is <other>. Other counts and ranges only describe the table.
"""

DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("nulls", "distinct", "true", "other"), 0),
    **dict.fromkeys(("minimum", "maximum", "mean", "std"), 0.0),
    "type": "",
    "counts": (),
    "reason": "asked for",
}
"""What stands for a field that was left away."""


def write_schema(schema: Schema, path: Path) -> None:
    """Writes a schema.

    Raises:
        TableError: The file can't be written.
    """
    try:
        path.write_text(to_toml(schema), encoding="utf-8")
    except OSError as error:
        raise TableError(f"{path}: can't be written ({error.strerror or error})") from error


def to_toml(schema: Schema) -> str:
    """Returns a schema as TOML."""
    lines = [COMMENT]
    lines += _pairs({"format_version": FORMAT_VERSION, "table": schema.source, "rows": schema.rows})
    if schema.label is not None:
        lines += ["", "[label]", *_pairs(_fields(schema.label))]
    for column in schema.columns:
        own = _fields(column)
        lines += ["", "[[columns]]", *_pairs({"name": own.pop("name"), "kind": column.kind, **own})]
    return "\n".join(lines) + "\n"


def read_schema(path: Path) -> Schema:
    """Reads a schema.

    Raises:
        TableError: The file can't be read, is no TOML, or has a field that is missing, unknown or of a wrong type or
            value; line, field and value are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: is not UTF-8 at offset {error.start}") from error
    except OSError as error:
        raise TableError(f"{path}: can't be read ({error.strerror or error})") from error
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TableError(f"{path}: is no TOML: {error}") from error
    return _Reader(path, text).schema(found)


def check_schema(schema: Schema, table: Table) -> None:
    """Checks that a schema's columns are those of a table, so that it can be applied.

    Raises:
        TableError: A column of one is not in the other, but for dropped ones that the table doesn't have.
    """
    listed_columns = {column.name for column in schema.columns}
    wanted = [column.name for column in schema.used] + ([] if schema.label is None else [schema.label.column])
    for name in wanted:
        if name not in table.schema.names:
            raise UnknownColumn(table.source, "the schema", name, table.schema.names)
    if new := [name for name in table.schema.names if name not in listed_columns]:
        raise TableError(f"{table.source}: the schema doesn't say what {listed(new)} is")


def _fields(record: Column | Label) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _pairs(values: Mapping[str, Any]) -> Iterable[str]:
    return [f"{name} = {_value(value)}" for name, value in values.items()]


def _value(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):  # JSON's text is TOML's, but for one character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


class _Reader:
    """Makes a schema of what a TOML file has, and knows where in the file it stands."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.split("\n")

    def schema(self, found: dict[str, Any]) -> Schema:
        """Returns the schema."""
        self._known(found, ("format_version", "table", "rows", "label", "columns"), "", 0)
        version = self._field(found, "format_version", "", 0, _integer)
        if version != FORMAT_VERSION:
            raise self._error("format_version", version, f"{FORMAT_VERSION}", "", 0)
        listed_columns = found.get("columns")
        if not isinstance(listed_columns, list) or not listed_columns or not isinstance(listed_columns[0], dict):
            raise TableError(f"{self._path}: has no [[columns]]")
        columns = tuple(self._column(i, fields) for i, fields in enumerate(listed_columns))
        names = [column.name for column in columns]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise self._error("name", name, "a different one for each column", "columns", i)
        if all(isinstance(column, Dropped) for column in columns):
            raise TableError(f"{self._path}: all columns are dropped, expected one to fit on")
        label = self._label(found["label"], columns) if "label" in found else None
        return Schema(
            source=self._field(found, "table", "", 0, _text),
            rows=self._field(found, "rows", "", 0, _count),
            columns=columns,
            label=label,
        )

    def _label(self, found: Any, columns: Iterable[Column]) -> Label:  # noqa: ANN401
        if not isinstance(found, dict):
            raise self._error("label", found, "a table [label]", "", 0)
        self._known(found, [field.name for field in fields(Label)], "label", 0)
        names = {name: self._field(found, name, "label", 0, _text) for name in ("column", "normal", "anomaly")}
        for name in ("normal_rows", "anomaly_rows"):
            names[name] = self._field(found, name, "label", 0, _count, 0)
        dropped = [column.name for column in columns if isinstance(column, Dropped)]
        if names["column"] not in dropped:
            raise self._error("column", names["column"], "a column below whose kind is dropped", "label", 0)
        if names["normal"] == names["anomaly"]:
            raise self._error("anomaly", names["anomaly"], "another value than that of normal", "label", 0)
        return Label(**names)

    def _column(self, i: int, found: Any) -> Column:  # noqa: ANN401
        if not isinstance(found, dict):
            raise self._error("columns", found, "tables [[columns]]", "", 0)
        kind = self._field(found, "kind", "columns", i, _one_of(KINDS))
        cls = KINDS[kind]
        names = [field.name for field in fields(cls)]
        self._known(found, ("kind", *names), "columns", i, edited_from=kind)
        read: dict[str, Any] = {}
        for name in names:
            check, default = CHECKS[name], DEFAULTS.get(name, MISSING)
            if name in ("minimum", "maximum"):
                if cls is Timestamp:
                    check, default = _text, ""
                if isinstance(found.get(name), float if cls is Timestamp else str):  # the former kind's
                    found = {**found, name: default}
            read[name] = self._field(found, name, "columns", i, check, default)
        if cls is Categorical:
            if not read["counts"]:
                read["counts"] = (0,) * len(read["categories"])
            if len(read["counts"]) != len(read["categories"]):
                expected = f"{len(read['categories'])} numbers as there are categories, or to be left away"
                raise self._error("counts", list(read["counts"]), expected, "columns", i)
        return cls(**read)

    def _field(
        self,
        found: dict[str, Any],
        name: str,
        section: str,
        index: int,
        check: "Check",
        default: Any = MISSING,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if name not in found:
            if default is not MISSING:
                return default
            raise TableError(f"{self._where(section, index)}: {name} is missing{self._of(section, index)}")
        value, expected = check(found[name])
        if expected:
            raise self._error(name, found[name], expected, section, index)
        return value

    def _known(
        self, found: dict[str, Any], known: Iterable[str], section: str, index: int, edited_from: str = ""
    ) -> None:
        every = {field.name for cls in KINDS.values() for field in fields(cls)} if edited_from else set()
        for name in found:
            if name not in known and name not in every:  # an edited kind leaves the fields of the former one behind
                raise self._error(name, found[name], f"one of the fields {', '.join(known)}", section, index)

    def _error(self, name: str, value: object, expected: str, section: str, index: int) -> TableError:
        where = self._where(section, index, name)
        return TableError(f"{where}: {name} is {quote(value)}{self._of(section, index)}, expected {expected}")

    def _of(self, section: str, index: int) -> str:
        return f" in columns[{index}]" if section == "columns" else f" in [{section}]" if section else ""

    def _where(self, section: str, index: int, field: str | None = None) -> str:
        """Finds the line of a section, or of a field in it, where the file is written as ours are."""
        first, behind = self._section(section, index)
        if field is not None:
            key = re.compile(rf"\s*({re.escape(field)}|\"{re.escape(field)}\")\s*=")
            first = next((i for i in range(first, behind) if key.match(self._lines[i])), first)
        return f"{self._path}, line {first + 1}"

    def _section(self, section: str, index: int) -> tuple[int, int]:
        starts = [i for i, line in enumerate(self._lines) if re.match(r"\s*\[+\s*(label|columns)\s*\]+", line)]
        own = [i for i in starts if section and section in self._lines[i]]
        first = own[index] if index < len(own) else 0
        return first, next((i for i in starts if i > first), len(self._lines))


Check = Callable[[Any], tuple[Any, str | None]]
"""Takes a value of TOML, and returns it as schemas have it, and what was expected if it is wrong."""


def _text(value: Any) -> tuple[Any, str | None]:  # noqa: ANN401
    return value, None if isinstance(value, str) else "text"


def _name(value: Any) -> tuple[Any, str | None]:  # noqa: ANN401
    return value, None if isinstance(value, str) and value else "text of at least one character"


def _category(value: Any) -> tuple[Any, str | None]:  # noqa: ANN401
    return value, None if isinstance(value, str) and value not in RESERVED else "a category"


def _integer(value: Any) -> tuple[Any, str | None]:  # noqa: ANN401
    return value, None if isinstance(value, int) and not isinstance(value, bool) else "an integer"


def _count(value: Any) -> tuple[Any, str | None]:  # noqa: ANN401
    good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value, None if good else "an integer of at least 0"


def _number(value: Any) -> tuple[Any, str | None]:  # noqa: ANN401
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return (float(value), None) if good else (value, "a number")


def _one_of(known: Iterable[str]) -> Check:
    expected = f"one of {', '.join(known)}"
    return lambda value: (value, None if isinstance(value, str) and value in known else expected)


def _list_of(check: Check, expected: str, least: int = 0) -> Check:
    def checked(value: Any) -> tuple[Any, str | None]:  # noqa: ANN401
        good = isinstance(value, list) and len(value) >= least and not any(check(item)[1] for item in value)
        good = good and (check is _count or len(set(value)) == len(value))
        return (tuple(value), None) if good else (value, expected)

    return checked


def _parts(value: Any) -> tuple[Any, str | None]:  # noqa: ANN401
    good = isinstance(value, list) and value and value == [part for part in PARTS if part in value]
    return (tuple(value), None) if good else (value, f"a list of {', '.join(PARTS)}, in this order")


CHECKS: dict[str, Check] = {
    "name": _name,
    "type": _text,
    "reason": _text,
    "nulls": _count,
    "distinct": _count,
    "true": _count,
    "other": _count,
    "minimum": _number,
    "maximum": _number,
    "mean": _number,
    "std": _number,
    "categories": _list_of(_category, "a list of different texts, at least one, none of them <other> or <missing>", 1),
    "counts": _list_of(_count, "a list of integers of at least 0"),
    "parts": _parts,
}
"""What the fields of columns have to be."""
