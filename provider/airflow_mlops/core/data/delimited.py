"""CSV files as batches, with types that hold for every row of every file.

Two passes: the first strikes out, column by column, the types that some value does not fit; the second converts. So
a column that begins with integers and has a fraction a million rows later is a double, not an error.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.data.arrow_types import check_names
from airflow_mlops.core.data.parquet import check_same_columns
from airflow_mlops.core.data.places import open_input, open_stream, open_text
from airflow_mlops.core.errors import CorruptDataError

if TYPE_CHECKING:
    import pyarrow

#: What stands for a missing value, except in columns of text: there only the empty field does.
NULL_TOKENS = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip

#: Bytes that are parsed at a time; a single row must fit.
BLOCK = 4 << 20

log = logging.getLogger("airflow_mlops")

#: What else people separate values by.
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def _candidates() -> dict[str, Any]:
    """Return the types that are tried, the first that holds everywhere wins; what fits none is text."""
    import pyarrow as pa

    return {
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "date32": pa.date32(),
        "timestamp[us]": pa.timestamp("us"),
        "timestamp[us, tz=UTC]": pa.timestamp("us", "UTC"),
        "timestamp[ns]": pa.timestamp("ns"),
        "timestamp[ns, tz=UTC]": pa.timestamp("ns", "UTC"),
    }


def survey(paths: list[str], given: dict[str, Any], guard: Any) -> tuple[pyarrow.Schema, int]:
    """Return the columns with the types that all files bear, and the number of rows.

    :raises MixedSchemaError: if the files do not have the same columns.
    """
    import pyarrow as pa

    candidates = _candidates()
    names: list[str] = []
    alive: dict[str, set[str]] = {}
    seen: set[str] = set()
    padded: set[str] = set()
    rows = 0
    for path in paths:
        with guard(path):
            found = header(path, lone=len(paths) == 1)
            names = names or found
            check_same_columns(names, paths[0], found, path)
            for name in found:
                alive.setdefault(name, set() if name in given else set(candidates))
            for batch in _text(path, found):
                rows += batch.num_rows
                for name, column in zip(found, batch.columns, strict=True):
                    if name not in seen and "int64" in alive[name] and _is_padded(column):
                        padded.add(name)
                    if alive[name] or name not in seen:
                        _strike(column, alive[name], candidates, name, seen)
    fields = []
    for name in names:
        if name in given:
            kind = given[name]
        elif name not in seen:
            kind = pa.null()
        else:
            kind = next((candidates[c] for c in candidates if c in alive[name]), pa.string())
        fields.append(pa.field(name, kind))
    if lost := [repr(field.name) for field in fields if field.name in padded and pa.types.is_integer(field.type)]:
        log.warning(
            "%s: numbers in %s begin with zeros, which whole numbers lose; if they are codes, such as of places, "
            "say so by schema={%s: 'string'}", paths[0], ", ".join(lost), lost[0],
        )  # fmt: skip
    return pa.schema(fields), rows


def _is_padded(column: Any) -> bool:
    """Return whether some of the texts are whole numbers that begin with zeros, as codes do."""
    import pyarrow.compute as pc

    return bool(pc.any(pc.match_substring_regex(column, r"^\s*0\d+\s*$")).as_py())


def _strike(column: Any, alive: set[str], candidates: dict[str, Any], name: str, seen: set[str]) -> None:
    """Strike out the types that a column's next values do not fit."""
    import pyarrow.compute as pc

    values, missing = _trimmed(column)
    if pc.any(missing).as_py():
        values = values.filter(pc.invert(missing))
    if len(values) == 0:
        return
    seen.add(name)
    for candidate in list(alive):
        if _convert(values, candidates[candidate]) is None:
            alive.discard(candidate)
    # Beyond 64 bits a double would make different identifiers equal.
    if (
        "double" in alive
        and "int64" not in alive
        and pc.any(pc.match_substring_regex(values, r"^[+-]?\d{19,}$")).as_py()
    ):
        alive.discard("double")


def _trimmed(column: Any) -> tuple[Any, Any]:
    """Return text without the space around it, and where it stands for a missing value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pc.utf8_trim_whitespace(column)
    return values, pc.is_in(values, value_set=pa.array(NULL_TOKENS))


def _convert(values: Any, kind: Any) -> Any:
    """Return text as a type, or None if a value does not fit."""
    import pyarrow as pa

    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        return None


def batches(path: str, schema: pyarrow.Schema, given: dict[str, Any], rows: int) -> Iterator[Any]:
    """Yield a file's record batches in this schema.

    :raises CorruptDataError: if a value does not fit its column's type.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    names = header(path)
    for batch in _text(path, names):
        arrays = []
        for field in schema:
            values = batch.column(names.index(field.name))
            if pa.types.is_string(field.type):
                arrays.append(pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values))
                continue
            values, missing = _trimmed(values)
            values = pc.if_else(missing, pa.scalar(None, pa.string()), values)
            converted = pa.nulls(len(values)) if pa.types.is_null(field.type) else _convert(values, field.type)
            if converted is None:
                raise CorruptDataError(
                    f"{path}: column {field.name!r} has values that are not {field.type}"
                    + (", the type that schema= gives it" if field.name in given else ""),
                    path=path,
                    column=field.name,
                    type=str(field.type),
                )
            arrays.append(converted)
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def header(path: str, lone: bool = True) -> list[str]:
    """Return the column names of a file; one without a name is called as pandas does, ``Unnamed: 0``.

    :param lone: whether it is the only file of its source; then an empty one is an empty source, with no columns.
    :raises CorruptDataError: if the file does not begin with a line of names in UTF-8.
    """
    with (
        open_text(path) as raw,
        io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as file,
    ):
        try:
            names = next(csv.reader(file), [])
            "".join(names).encode()
        except (UnicodeEncodeError, csv.Error) as error:
            raise CorruptDataError(
                f"{path} does not begin with a line of column names in UTF-8: save it as UTF-8", path=path
            ) from error
    check_separator(path, names)
    if not names and not lone:
        raise CorruptDataError(f"{path} is empty: it has no line of column names", path=path)
    names = [name or f"Unnamed: {i}" for i, name in enumerate(names)]
    check_names(names, path)
    return names


def check_separator(path: str, names: list[str]) -> None:
    """Refuse a file whose only column name is a whole line of names that something else than a comma separates.

    It is not read by guessing: who separates by semicolons often writes 1,5 for 1.5, which would become text.

    :raises CorruptDataError: saying how it is separated, and how it becomes one that is read.
    """
    if len(names) != 1:
        return
    found = max(SEPARATORS, key=names[0].count)
    if count := names[0].count(found):
        decimal = ', decimal=","' if found == ";" else ""
        raise CorruptDataError(
            f"the first line of {path} has {count + 1} names separated by {SEPARATORS[found]}, and a CSV file is one "
            f"separated by commas; turn it into one, or into Parquet: pandas.read_csv(..., sep={found!r}{decimal})"
            ".to_parquet(...)",
            path=path,
        )


def _text(path: str, names: list[str]) -> Iterator[Any]:
    """Yield a file's rows with every column as text."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    if not names:
        return
    places = [str(i) for i in range(len(names))]
    try:
        with (
            open_stream(path) as raw,
            pa.input_stream(raw, compression="gzip" if path.lower().endswith(".gz") else None) as stream,
            arrow_csv.open_csv(
                stream,
                read_options=arrow_csv.ReadOptions(block_size=BLOCK, column_names=places, skip_rows_after_names=1),
                parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=False
                ),
            ) as reader,
        ):
            last = ""
            for batch in reader:
                if batch.num_rows:
                    last = batch.column(batch.num_columns - 1)[-1].as_py()
                yield batch
    except pa.ArrowInvalid as error:
        raise CorruptDataError(f"{path} cannot be read as CSV: {_reason(str(error))}", path=path) from error
    if _is_open(path, last):
        raise CorruptDataError(
            f"{path} cannot be read as CSV: a quotation mark is not closed before the file ends", path=path
        )


def _is_open(path: str, last: str) -> bool:
    """Return whether a file ends within the quotes of its last value, which Arrow takes as if they were closed.

    Such a value may have swallowed any number of rows, or the file was cut short.
    """
    raw = b'"' + last.encode().replace(b'"', b'""')
    if path.lower().endswith(".gz"):
        # Decompressing once more pays only where rows can have been swallowed; a cut is noticed by gzip.
        if "\n" not in last:
            return False
        tail = b""
        with open_text(path) as file:
            while block := file.read(1 << 20):
                tail = (tail + block)[-len(raw) - 1 :]
    else:
        with open_input(path) as file:
            file.seek(0, io.SEEK_END)
            file.seek(max(0, file.tell() - len(raw) - 1))
            tail = file.read()
    return tail.endswith(raw) and (bool(last) or not tail.endswith(b'""'))


def _reason(message: str) -> str:
    """Return what is wrong with the text, without the row that Arrow quotes."""
    columns = re.search(r"Expected (\d+) columns?, got (\d+)", message)
    if columns:
        row = re.search(r"Row #(\d+)", message)
        where = f"row {row[1]}" if row else "a row"
        return f"{where} has {columns[2]} fields, but the first line names {columns[1]} columns"
    if "UTF8" in message or "UTF-8" in message:
        return "it is not UTF-8; save it as UTF-8"
    if "straddling" in message:
        return f"a row is longer than {BLOCK >> 20} MB; a quotation mark may not be closed"
    return "its rows are not well-formed CSV, or it ends early"
