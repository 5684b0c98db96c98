"""Logs of SageMaker and KServe, as their documentation and sources show them, measured without any model."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core.errors import CorruptDataError, EmptyDataError
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.monitoring.performance import monitor_performance
from airflow_mlops.core.predictions import events
from airflow_mlops.core.steps import StepContext


def sagemaker(data: str, answer: str, number: int = 0, **metadata: Any) -> dict[str, Any]:
    """One line as Model Monitor's documentation shows it."""
    return {
        "captureData": {
            "endpointInput": {"observedContentType": "text/csv", "mode": "INPUT", "data": data, "encoding": "CSV"},
            "endpointOutput": {
                "observedContentType": "text/csv; charset=utf-8",
                "mode": "OUTPUT",
                "data": answer,
                "encoding": "CSV",
            },
        },
        "eventMetadata": {
            "eventId": f"e{number}",
            "inferenceTime": f"2022-02-{1 + number % 28:02d}T17:25:49Z",
            **metadata,
        },
        "eventVersion": "0",
    }


def write(path: Path, *lines: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines))
    return str(path)


def test_sagemakers_capture_below_its_folders_by_date(tmp_path: Path) -> None:
    first = sagemaker("69,0,153.7\n12,1,99.5\n", "0.02\n0.9\n")
    write(tmp_path / "churn/AllTraffic/2022/02/14/17/a.jsonl", first)
    coded = sagemaker("", "", 2, inferenceId="customer-7")
    answer = json.dumps({"predictions": [{"label": "yes", "score": 0.8}]})
    coded["captureData"]["endpointOutput"] = {
        "observedContentType": "application/json",
        "mode": "OUTPUT",
        "data": base64.b64encode(answer.encode()).decode(),
        "encoding": "BASE64",
    }
    write(tmp_path / "churn/AllTraffic/2022/02/14/18/b.jsonl", coded, "")
    ref, frame = events.read(str(tmp_path / "churn"), "sagemaker")
    assert frame["key"].tolist() == ["e0/0", "e0/1", "customer-7"]
    assert frame["output_0"].tolist()[:2] == [0.02, 0.9]
    assert frame["input_2"].tolist()[:2] == [153.7, 99.5]
    assert frame["output.score"].tolist()[2] == 0.8
    assert frame["event_time"][0] == pd.Timestamp("2022-02-01T17:25:49Z")
    assert (ref.format, ref.rows) == ("sagemaker", 3)


def test_kserves_cloud_events_and_blob_records(tmp_path: Path) -> None:
    about = {"specversion": "1.0", "source": "http://localhost:9081/", "time": "2026-01-05T10:00:00Z"}
    kind = "org.kubeflow.serving.inference"
    v2 = {"outputs": [{"name": "score", "shape": [2], "datatype": "FP64", "data": [0.25, 0.5]}]}
    write(
        tmp_path / "ce.jsonl",
        {**about, "id": "a", "type": f"{kind}.request", "data": {"instances": [[1, 2], [3, 4]]}},
        {
            **about,
            "id": "b",
            "type": f"{kind}.request",
            "data": {"inputs": [{"name": "x", "shape": [2, 1], "data": [5, 6]}]},
        },
        {**about, "id": "b", "type": f"{kind}.response", "data": v2},
        {**about, "id": "a", "type": f"{kind}.response", "data": {"predictions": [1, 0]}},
        {**about, "id": "c", "type": f"{kind}.request", "data": {"instances": [[9, 9]]}},
    )
    _, frame = events.read(str(tmp_path / "ce.jsonl"), "kserve")
    assert frame["key"].tolist() == ["b/0", "b/1", "a/0", "a/1"]
    assert frame["output.score"].tolist()[:2] == [0.25, 0.5]
    assert frame["output_0"].tolist()[2:] == [1, 0]
    assert frame["input.x"].tolist()[:2] == [5, 6]
    for name, body in (("request", {"instances": [[1]]}), ("response", {"predictions": [0.75]})):
        record = {"Id": "z", "ReqType": f"{kind}.{name}", "Bytes": base64.b64encode(json.dumps(body).encode()).decode()}
        write(tmp_path / "blob" / f"z-{name}.json", [record])
    _, frame = events.read(str(tmp_path / "blob"), "kserve")
    assert (frame["key"].tolist(), frame["output_0"].tolist()) == (["z"], [0.75])


def test_they_are_read_wherever_predictions_are_taken(context: StepContext, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=600)
    lines = [
        sagemaker(f"{one}", f"{int(one > 0)},{1 / (1 + np.exp(-2 * one))}", n, inferenceId=f"c{n}")
        for n, one in enumerate(x)
    ]
    source = write(tmp_path / "capture" / "a.jsonl", *lines)
    labels = pd.DataFrame({"customer": [f"c{n}" for n in range(600)], "y": (x + rng.normal(size=600) > 0).astype(int)})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    predictions = {
        "uri": source,
        "format": "sagemaker",
        "columns": {"key": "key", "time": "event_time", "prediction": "output_0", "probability": "output_1"},
    }
    arguments: dict[str, Any] = {"predictions": predictions, "roles": {"key": "customer"}, "target": "y"}
    report = monitor_performance(
        context,
        **arguments,
        labels=str(tmp_path / "labels.csv"),
        window={"start": "2022-02-01", "end": "2022-03-01"},
        subject="churn",
        baseline={"roc_auc": 0.8},
        max_drop=0.2,
    )
    assert report["metrics"]["labelled"] == 600
    test = evaluate_model(
        context,
        **arguments,
        dataset=str(tmp_path / "labels.csv"),
        tests=[{"kind": "metric", "metric": "roc_auc", "min": 0.5}],
    )
    assert test["metrics"]["roc_auc"] == pytest.approx(report["metrics"]["roc_auc"])


def test_what_is_no_event_names_its_file_and_line(tmp_path: Path) -> None:
    good = sagemaker("1", "0.5")
    source = write(tmp_path / "a.jsonl", good, {"other": "secret value"})
    with pytest.raises(CorruptDataError, match=r"a\.jsonl, event 2, is no event of sagemaker") as raised:
        events.read(source, "sagemaker")
    assert "secret" not in str(raised.value)
    with pytest.raises(CorruptDataError, match=r"b\.jsonl, line 2, is not JSON"):
        events.read(write(tmp_path / "b.jsonl", good, '{"captureData": {'), "sagemaker")
    del good["captureData"]["endpointOutput"]
    with pytest.raises(EmptyDataError, match="no answered request"):
        events.read(write(tmp_path / "c.jsonl", good), "sagemaker")
