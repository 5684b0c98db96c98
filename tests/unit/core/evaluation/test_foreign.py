"""Testing what others have made: columns by other names, a table of theirs, a log of predictions without a model."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from airflow_mlops.core.data.sql_connection import VARIABLE
from airflow_mlops.core.errors import EmptyDataError, MissingColumnError, SpecError
from airflow_mlops.core.evaluation.step import evaluate_model

THEIRS = {"größe": "HEIGHT", "distance": "DIST", "id": "ID", "airport": "ORIG"}
AUC = [{"kind": "metric", "metric": "roc_auc", "min": 0.8}]


def details_of(context: Any, report: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = context.store.get_json(context.store.key_of(report["details_uri"]))
    return found


@pytest.fixture
def foreign(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns={**THEIRS, "late": "LATE"})


@pytest.fixture
def database(tmp_path: Path, foreign: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        foreign.to_sql("flights", connection, index=False)
    monkeypatch.setenv(VARIABLE, f"sqlite:///{path}")
    return path


class TestColumns:
    def test_a_model_is_tested_on_columns_of_other_names(self, context, log_model, foreign, frame, save) -> None:
        model = log_model(recorded=False)
        arguments = {"tests": [*AUC, {"kind": "slices", "by": ["airport"], "metric": "roc_auc", "min": 0.5}]}

        report = evaluate_model(
            context,
            model=model.uri,
            trust="unverified",
            dataset=save(foreign),
            columns=THEIRS,
            target="LATE",
            roles={"key": "ID"},
            **arguments,
        )

        ours = evaluate_model(
            context, model=model.uri, trust="unverified", dataset=save(frame, "ours"), target="late", **arguments
        )
        assert report["passed"], report["failures"]
        assert report["metrics"] == ours["metrics"]
        assert details_of(context, report)["dataset"]["roles"] == {"key": "id", "target": "LATE"}

    @pytest.mark.parametrize("target", ["label", "LATE"])
    def test_the_target_goes_by_either_name(self, context, log_model, foreign, save, target: str) -> None:
        report = evaluate_model(
            context,
            model=log_model().to_dict(),
            dataset=save(foreign),
            columns={**THEIRS, "label": "LATE"},
            target=target,
            tests=AUC,
        )
        assert report["passed"], report["failures"]

    def test_a_column_that_is_not_there(self, context, log_model, foreign, save) -> None:
        with pytest.raises(MissingColumnError, match=r"'größe' stands for 'HIGHT', .* did you mean 'HEIGHT'"):
            evaluate_model(
                context, model=log_model().to_dict(), dataset=save(foreign), columns={"größe": "HIGHT"}, target="LATE"
            )

    def test_two_columns_of_one_name(self, context, log_model, foreign, save) -> None:
        with pytest.raises(SpecError, match="'DIST' stands for one column and is the name of another"):
            evaluate_model(
                context, model=log_model().to_dict(), dataset=save(foreign), columns={"DIST": "HEIGHT"}, target="LATE"
            )

    def test_rows_that_it_was_trained_on_are_left_out_by_their_names(self, context, log_model, frame, foreign, save):
        model = log_model(frame, keys=frame.head(200))
        report = evaluate_model(
            context,
            model=model.to_dict(),
            dataset=save(foreign),
            columns=THEIRS,
            roles={"key": "ID"},
            target="LATE",
            tests=AUC,
        )
        assert details_of(context, report)["dataset"]["judged"] == 400


class TestTables:
    @pytest.mark.parametrize(
        "where",
        [{"table": "flights"}, {"sql": "select * from flights where ID >= :first", "parameters": {"first": 0}}],
    )
    def test_a_table_or_query_in_its_database(self, context, log_model, database, frame, save, where: Any) -> None:
        model = log_model()
        report = evaluate_model(
            context, model=model.to_dict(), **where, conn_id="theirs", columns=THEIRS, target="LATE", tests=AUC
        )

        ours = evaluate_model(context, model=model.to_dict(), dataset=save(frame), target="late", tests=AUC)
        assert report["metrics"] == ours["metrics"]
        assert details_of(context, report)["dataset"]["name"] == "flights"
        assert "data/" not in json.dumps(list(context.store.keys())), "nothing of it is copied"

    def test_the_order_of_rows_is_not_in_the_digest_and_values_are(self, context, log_model, database) -> None:
        def digest(sql: str) -> str:
            report = evaluate_model(
                context, model=log_model().to_dict(), sql=sql, columns=THEIRS, target="LATE", tests=AUC
            )
            return str(details_of(context, report)["dataset"]["digest"])

        first = digest("select * from flights order by ID")
        assert digest("select * from flights order by DIST") == first
        assert digest("select * from flights where ID <> 7") != first

    def test_one_source(self, context, log_model, database) -> None:
        with pytest.raises(SpecError, match="one of dataset, table and sql"):
            evaluate_model(context, model=log_model().to_dict(), dataset="x", table="flights")


class TestPredictionLogs:
    @pytest.fixture
    def log(self, frame: pd.DataFrame) -> pd.DataFrame:
        """What somebody's service has written."""
        model = LogisticRegression().fit(frame[["größe", "distance"]], frame["late"])
        score = model.predict_proba(frame[["größe", "distance"]])[:, 1]
        return pd.DataFrame(
            {
                "request": frame["id"],
                "ts": frame["day"],
                "answer": (score >= 0.5).astype(int),
                "p": score,
                "truth": frame["late"],
                "from": frame["airport"],
            }
        )

    COLUMNS = {"key": "request", "time": "ts", "prediction": "answer", "probability": "p", "label": "truth"}  # noqa: RUF012

    def test_a_log_is_measured_without_a_model(self, context, log, save) -> None:
        report = evaluate_model(
            context,
            predictions={"uri": save(log), "format": "parquet", "columns": self.COLUMNS},
            subject="churn:7",
            tests=[
                *AUC,
                {"kind": "metric", "metric": "accuracy", "min": 0.99},
                {"kind": "slices", "by": "from", "metric": "roc_auc", "min": 0.5, "severity": "warning"},
            ],
        )

        assert report["metrics"]["roc_auc"] == pytest.approx(roc_auc_score(log["truth"], log["p"]))
        assert report["metrics"]["accuracy"] == pytest.approx(accuracy_score(log["truth"], log["answer"]))
        assert report["metrics"]["log_loss"] == pytest.approx(log_loss(log["truth"], log["p"]))
        assert (report["passed"], report["subject"]) == (False, "churn:7")
        assert [one["name"] for one in report["failures"]] == ["accuracy"]
        assert report["model_uri"] is report["run_id"] is report["model_name"] is None
        details = details_of(context, report)
        assert "Measured on a log of predictions" in details["caveats"][0]
        assert {one["by"] for one in details["slices"]} == {"from"}
        page = context.store.get_bytes(context.store.key_of(report["report_uri"])).decode()
        assert "churn:7" in page

    def test_without_tests_it_is_measured(self, context, log, save) -> None:
        report = evaluate_model(context, predictions={"uri": save(log), "columns": self.COLUMNS})
        assert report["passed"]
        assert report["metrics"]["roc_auc"] == pytest.approx(roc_auc_score(log["truth"], log["p"]))
        assert report["subject"].startswith("sha256:")

    def test_probabilities_alone_and_of_a_named_class(self, context, log, save) -> None:
        words = log.assign(truth=log["truth"].map({1: "bad", 0: "good"})).drop(columns="answer")
        columns = {"probability": "p", "label": "truth"}
        expected = roc_auc_score(log["truth"], log["p"])
        said = {"uri": save(words), "columns": columns, "positive": "bad"}
        assert evaluate_model(context, predictions=said)["metrics"]["roc_auc"] == pytest.approx(expected)
        wrong = {**said, "positive": "good"}
        assert evaluate_model(context, predictions=wrong)["metrics"]["roc_auc"] == pytest.approx(1 - expected)

    def test_a_probability_for_each_class(self, context, log, save) -> None:
        three = log.assign(
            truth=[("a", "b", "c")[i % 3] for i in range(len(log))],
            pa=[(0.8, 0.1, 0.2)[i % 3] for i in range(len(log))],
            pb=[(0.1, 0.7, 0.3)[i % 3] for i in range(len(log))],
            pc=[(0.1, 0.2, 0.5)[i % 3] for i in range(len(log))],
        )
        columns = {"probability": {"a": "pa", "b": "pb", "c": "pc"}, "label": "truth"}
        report = evaluate_model(context, predictions={"uri": save(three), "columns": columns})
        assert report["metrics"]["accuracy"] == 1.0
        assert report["metrics"]["log_loss"] == pytest.approx(-np.log([0.8, 0.7, 0.5]).mean())
        single = {"uri": save(three), "columns": {"probability": "pa", "label": "truth"}}
        with pytest.raises(SpecError, match="speaks of two classes; the labels have 3"):
            evaluate_model(context, predictions=single)

    def test_a_regressor(self, context, log, save) -> None:
        said = log.assign(truth=log["p"] * 10, answer=log["p"] * 10 + 0.5)
        columns = {"prediction": "answer", "label": "truth"}
        report = evaluate_model(context, predictions={"uri": save(said), "columns": columns})
        assert report["metrics"]["mean_absolute_error"] == pytest.approx(0.5)

    def test_labels_come_later_from_elsewhere_by_the_key(self, context, log, save) -> None:
        labels = (
            log[["request", "truth"]].rename(columns={"request": "ID", "truth": "LATE"}).sample(400, random_state=0)
        )
        said = {"uri": save(log.drop(columns="truth")), "columns": {"key": "request", "probability": "p"}}
        arguments = {"dataset": save(labels, "labels"), "roles": {"key": "ID"}, "target": "LATE"}

        report = evaluate_model(context, predictions=said, **arguments)

        known = log.loc[labels.index]
        assert report["metrics"]["roc_auc"] == pytest.approx(roc_auc_score(known["truth"], known["p"]))
        assert details_of(context, report)["dataset"]["judged"] == 400

        twice = {**arguments, "dataset": save(pd.concat([labels, labels.head(3)]), "twice")}
        with pytest.raises(SpecError, match="3 rows of the labels repeat a key"):
            evaluate_model(context, predictions=said, **twice)
        other = {**arguments, "dataset": save(labels.assign(ID=labels["ID"] + 10**6), "other")}
        with pytest.raises(EmptyDataError, match="no key of the log"):
            evaluate_model(context, predictions=said, **other)

    def test_a_log_in_a_table(self, context, log, tmp_path, monkeypatch) -> None:
        with sqlite3.connect(tmp_path / "log.db") as connection:
            log.to_sql("answers", connection, index=False)
        monkeypatch.setenv(VARIABLE, f"sqlite:///{tmp_path / 'log.db'}")
        report = evaluate_model(context, predictions={"columns": self.COLUMNS}, table="answers", tests=AUC)
        assert report["metrics"]["roc_auc"] == pytest.approx(roc_auc_score(log["truth"], log["p"]))

    def test_rows_without_an_answer_are_told(self, context, log, save) -> None:
        log.loc[:9, "p"] = np.nan
        report = evaluate_model(context, predictions={"uri": save(log), "columns": self.COLUMNS})
        assert not report["passed"]
        assert "10 of 600 predictions are NaN" in report["summary"]

    def test_a_file_whose_name_does_not_say_what_it_is(self, context, log, save, tmp_path) -> None:
        log.to_csv(tmp_path / "answers.log", index=False)
        said = {"uri": str(tmp_path / "answers.log"), "format": "csv", "columns": self.COLUMNS}
        report = evaluate_model(context, predictions=said)
        assert report["metrics"]["roc_auc"] == pytest.approx(roc_auc_score(log["truth"], log["p"]))

    @pytest.mark.parametrize(
        ("predictions", "more", "error", "message"),
        [
            ({"columns": {"prediction": "answer"}}, {}, SpecError, "has no labels"),
            ({"columns": {"label": "truth"}}, {}, SpecError, "name the column of 'prediction' or of 'probability'"),
            ({"columns": {"predicton": "p"}}, {}, SpecError, "did you mean 'prediction'"),
            ({"columns": {"prediction": "p"}, "fromat": "csv"}, {}, SpecError, "did you mean 'format'"),
            ({"columns": {"prediction": "p"}, "format": "seldon"}, {}, SpecError, "format must be one of"),
            ({"columns": {"prediction": "answr", "label": "truth"}}, {}, MissingColumnError, "did you mean 'answer'"),
            ({}, {}, SpecError, "needs 'columns'"),
            ({"columns": COLUMNS}, {"tests": [{"kind": "latency", "p95_ms": 3}]}, SpecError, "needs the model"),
            ({"columns": COLUMNS}, {"tests": [{"kind": "signature"}]}, SpecError, "can be asked: metric, slices"),
            ({"columns": COLUMNS}, {"champion": "a@b"}, SpecError, "give model, not predictions"),
            ({"columns": COLUMNS}, {"model": "models:/a/1"}, SpecError, "either model, or predictions"),
        ],
    )
    def test_what_cannot_be(self, context, log, save, predictions, more, error, message) -> None:
        with pytest.raises(error, match=message):
            evaluate_model(context, predictions={"uri": save(log), **predictions}, **more)

    def test_nothing_at_all(self, context) -> None:
        with pytest.raises(SpecError, match="either model, or predictions"):
            evaluate_model(context)
