"""Logs that servers of others write, one event a request: SageMaker's data capture and KServe's inference logger.

Both become rows with the columns ``event_id``, ``event_time``, ``row`` (its number in the request), ``key``, and for
what was asked and answered ``input_<n>`` and ``output_<n>`` by place, ``input.<name>`` and ``output.<name>`` by name.
``key`` is the caller's own id of the inference where there is one, else the event's id; with several rows in a request
``/<row>`` follows.

SageMaker: JSON lines of ``{"captureData": {"endpointInput", "endpointOutput"}, "eventMetadata": {"eventId",
"inferenceTime", "inferenceId"}}`` with CSV, JSON or Base64 inside. KServe: CloudEvents in JSON lines, types
``...inference.request`` and ``...inference.response`` with one id; or the records that its blob store writes
(``Id``, ``ReqType``, ``Bytes`` in Base64), one or a list of them in each file.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.data.files import look, pattern_of
from airflow_mlops.core.data.places import open_text
from airflow_mlops.core.errors import CorruptDataError, EmptyDataError
from airflow_mlops.core.vocabulary import DatasetRef

if TYPE_CHECKING:
    import pandas

FORMATS = ("sagemaker", "kserve")
#: What is which column, where nobody says otherwise.
COLUMNS = {"key": "key", "time": "event_time", "prediction": "output_0"}


def read(source: str, format: str) -> tuple[DatasetRef, pandas.DataFrame]:
    """Return the ref and the rows of a log of events.

    :param source: path, folder, glob or ``s3://`` URI; folders by date are walked.
    :raises CorruptDataError: for a line that is no event of this format, naming file and line.
    :raises EmptyDataError: if there is none.
    """
    import pandas

    states = look((pattern_of(source),), partitions=True)
    rows: list[dict[str, Any]] = []
    answers: dict[str, dict[str, Any]] = {}
    for state in states:
        for number, event in _events(state.path):
            try:
                rows += _sagemaker(event) if format == "sagemaker" else _kserve(event, answers)
            except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
                raise CorruptDataError(
                    f"{state.path}, event {number}, is no event of {format} ({type(error).__name__}); take the file "
                    "out of the source, or name its format",
                    path=state.path,
                    line=number,
                ) from None
    if not rows:
        raise EmptyDataError(f"{source} has no answered request of {format} in {len(states)} files")
    frame = pandas.DataFrame(rows)
    frame["event_time"] = pandas.to_datetime(frame["event_time"], utc=True, format="ISO8601", errors="coerce")
    return (
        DatasetRef(
            name=source.rstrip("/").rpartition("/")[2] or format,
            uri=source,
            digest=digests.of_json([state.in_manifest() for state in states]),
            format=format,
            rows=len(frame),
            source=source,
        ),
        frame,
    )


def _events(path: str) -> Iterator[tuple[int, Any]]:
    """Yield the events of a file with their numbers: one a line, or one JSON value for the whole file."""
    with open_text(path) as file:
        text = file.read().decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except ValueError:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError:
                    raise CorruptDataError(
                        f"{path}, line {number}, is not JSON; it ends early or is damaged", path=path, line=number
                    ) from None
        return
    yield from enumerate(value if isinstance(value, list) else [value], 1)


def _sagemaker(event: dict[str, Any]) -> list[dict[str, Any]]:
    data, about = event["captureData"], event["eventMetadata"]
    if "endpointOutput" not in data:
        return []
    asked = _payload(data["endpointInput"]) if "endpointInput" in data else []
    return _rows(
        about["eventId"], about.get("inferenceId"), about["inferenceTime"], asked, _payload(data["endpointOutput"])
    )


def _payload(part: dict[str, Any]) -> list[Any]:
    text, encoding = part.get("data") or "", str(part.get("encoding") or "").upper()
    if encoding == "BASE64":
        text = base64.b64decode(text).decode("utf-8", "replace")
    kind = str(part.get("observedContentType") or "")
    if encoding == "JSON" or "json" in kind:
        return _json_rows(text)
    return [[_number(cell) for cell in line] for line in csv.reader(io.StringIO(text.strip())) if line]


def _json_rows(text: str) -> list[Any]:
    try:
        return _as_rows(json.loads(text))
    except ValueError:
        # JSON lines, which SageMaker takes as one payload.
        return [row for line in text.splitlines() if line.strip() for row in _as_rows(json.loads(line))]


def _as_rows(value: Any) -> list[Any]:
    """Return the rows of a payload in the protocols of TensorFlow Serving (v1), of Open Inference (v2), or plain."""
    if isinstance(value, dict):
        for name in ("instances", "predictions", "dataframe_records"):
            if isinstance(value.get(name), list):
                return list(value[name])
        for name in ("inputs", "outputs"):
            if isinstance(value.get(name), list) and value[name] and "data" in value[name][0]:
                return _tensors(value[name])
        return [value]
    return list(value) if isinstance(value, list) else [value]


def _tensors(tensors: list[dict[str, Any]]) -> list[Any]:
    count = int((tensors[0].get("shape") or [len(tensors[0]["data"])])[0])
    found: list[dict[str, Any]] = [{} for _ in range(count)]
    for tensor in tensors:
        data = tensor["data"]
        width = max(len(data) // max(count, 1), 1)
        for place in range(count):
            part = data[place * width : (place + 1) * width] if len(data) != count else data[place]
            found[place][str(tensor["name"])] = part[0] if isinstance(part, list) and len(part) == 1 else part
    return found


def _kserve(event: dict[str, Any], waiting: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a request once both it and its answer were seen."""
    if "ReqType" in event:
        kind, name, moment = event["ReqType"], event["Id"], _header(event)
        text = base64.b64decode(event.get("Bytes") or "").decode("utf-8", "replace")
        body = json.loads(text)
    else:
        kind, name, moment = event["type"], event["id"], event.get("time")
        body = event["data"] if "data" in event else json.loads(base64.b64decode(event["data_base64"]))
    both = waiting.setdefault(str(name), {})
    both["answer" if str(kind).endswith("response") else "asked"] = _as_rows(body)
    both["at"] = both.get("at") or moment
    if "answer" not in both or "asked" not in both:
        return []
    waiting.pop(str(name))
    return _rows(str(name), None, both["at"], both["asked"], both["answer"])


def _header(event: dict[str, Any]) -> Any:
    """Return when a request came, if the logger was told to keep a header that says so."""
    headers = {key.lower(): value for key, value in (event.get("Metadata") or {}).items()}
    for name in ("ce-time", "x-request-time", "date"):
        if headers.get(name):
            return headers[name][0]
    return None


def _rows(event: str, inference: Any, moment: Any, asked: list[Any], answered: list[Any]) -> list[dict[str, Any]]:
    own = str(inference or event)
    found = []
    for place, answer in enumerate(answered):
        row: dict[str, Any] = {
            "event_id": event,
            "event_time": moment,
            "row": place,
            "key": own if len(answered) == 1 else f"{own}/{place}",
        }
        if len(asked) == len(answered):
            row |= _flat("input", asked[place])
        found.append(row | _flat("output", answer))
    return found


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {f"{name}.{key}": one for key, one in value.items() if not isinstance(one, (dict, list))}
    return {f"{name}_{place}": one for place, one in enumerate(value if isinstance(value, list) else [value])}


def _number(cell: str) -> Any:
    try:
        number = float(cell)
    except ValueError:
        return cell.strip()
    return int(number) if number.is_integer() and "." not in cell and "e" not in cell.lower() else number
