from __future__ import annotations

import datetime as dt
import decimal
import logging

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core.training.packaging import example_of, signature_of

LOG = logging.getLogger("test")


def test_every_type_has_a_place_in_the_signature(caplog):
    raw = pd.DataFrame(
        {
            "whole": [1, 2],
            "small": np.array([1, 2], dtype="uint8"),
            "number": [0.5, np.nan],
            "text": ["a", "b"],
            "flag": [True, False],
            "at": pd.to_datetime(["2013-01-01", "2013-01-02"]),
            "list": [[1], [2, 3]],
            "day": [dt.date(2013, 1, 1)] * 2,
            "price": [decimal.Decimal("1.5")] * 2,
            "none": pd.Series([None, None], dtype=object),
            "größe": [1.0, 2.0],
        }
    )
    found = signature_of(raw, np.array([0, 1]), LOG)
    types = {spec["name"]: spec["type"] for spec in found.inputs.to_dict()}
    assert list(types) == list(raw.columns)
    assert types == {
        "whole": "long",
        "small": "integer",
        "number": "double",
        "text": "string",
        "flag": "boolean",
        "at": "datetime",
        "list": "array",
        "day": "datetime",
        "price": "any",
        "none": "any",
        "größe": "double",
    }
    assert {s["name"] for s in found.inputs.to_dict() if not s["required"]} == {"number", "none"}
    assert "price (object)" in caplog.text
    assert found.outputs is not None


def test_a_column_whose_first_rows_are_null_keeps_its_type():
    raw = pd.DataFrame({"late": pd.Series([None] * 1500 + ["x"], dtype=object), "n": range(1501)})
    (spec, _) = signature_of(raw, np.zeros(1501), LOG).inputs.to_dict()
    assert spec == {"name": "late", "type": "string", "required": False}


class TestExample:
    def test_medians_and_common_values(self):
        raw = pd.DataFrame(
            {
                "n": [1, 2, 9] * 5,
                "x": [0.5, 1.5, 2.5] * 5,
                "shop": ["north", "north", "south"] * 5,
                "flag": [True, True, False] * 5,
                "at": pd.to_datetime(["2013-01-01", "2013-01-02", "2013-01-03"] * 5),
            }
        )
        row = example_of(raw).iloc[0].to_dict()
        assert row == {"n": 2, "x": 1.5, "shop": "north", "flag": True, "at": pd.Timestamp("2013-01-02")}
        assert example_of(raw).dtypes.to_dict() == raw.dtypes.to_dict()

    def test_a_text_that_few_rows_share_is_left_out(self):
        raw = pd.DataFrame({"name": ["Ada", "Ada", "Grace", *(f"p{i}" for i in range(50))]})
        assert example_of(raw)["name"].tolist() == [""]

    @pytest.mark.parametrize("dtype", ["float64", "object", "str"])
    def test_nulls_alone_stay_null(self, dtype):
        raw = pd.DataFrame({"x": pd.Series([None] * 9, dtype=dtype)})
        assert example_of(raw)["x"].isna().all()

    def test_no_row_is_copied(self):
        rng = np.random.default_rng(0)
        raw = pd.DataFrame(rng.normal(size=(101, 4)), columns=list("abcd"))
        assert not (raw == example_of(raw).iloc[0]).all(axis=1).any()
