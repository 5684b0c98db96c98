from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from airflow_mlops.core.errors import CannotReachError, SpecError
from airflow_mlops.core.training.fitting import (
    apply_features,
    check_hyperparameters,
    fit,
    mapping,
    name_of,
    trainer_of,
)

X = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
Y = pd.Series([0, 0, 1, 1], name="y")


def plain(X, y, depth=3, rate=0.1, name="x", quiet=False):
    return LogisticRegression().fit(X, y)


def run(function, X=X, extras=None, seed=7, **hyperparameters):
    trainer = trainer_of(function)
    return fit(trainer, X, Y, extras or {}, check_hyperparameters(trainer, hyperparameters), seed)


class TestSignature:
    def test_extras_are_no_hyperparameters(self):
        def train(X, y, *, sample_weight, X_val, y_val, seed, depth=3): ...

        trainer = trainer_of(train)
        assert set(trainer.extras) == {"sample_weight", "X_val", "y_val", "seed"}
        assert list(trainer.hyperparameters) == ["depth"]

    def test_a_function_that_takes_too_little(self):
        with pytest.raises(SpecError, match="must take the features and the target"):
            trainer_of(lambda X: None)

    def test_x_val_without_y_val(self):
        with pytest.raises(SpecError, match="not for y_val"):
            trainer_of(lambda X, y, X_val: None)

    def test_a_partial_is_named_after_its_function(self):
        assert name_of(functools.partial(plain, depth=1)) == f"{__name__}:plain"

    def test_the_name_does_not_say_where_a_dag_file_lies(self):
        def train(X, y): ...

        train.__module__ = "unusual_prefix_0123456789abcdef_my_dag"
        assert name_of(train).startswith("my_dag:")


class TestHyperparameters:
    def test_unknown_names_the_nearest(self):
        with pytest.raises(SpecError, match="no hyperparameter 'dept'; did you mean 'depth'"):
            run(plain, dept=3)

    def test_a_missing_one(self):
        with pytest.raises(SpecError, match=r"needs the hyperparameter.*depth"):
            run(lambda X, y, depth: None)

    def test_any_are_taken_by_kwargs(self):
        trainer = trainer_of(lambda X, y, **hyperparameters: None)
        assert check_hyperparameters(trainer, {"x": 1}) == {"x": 1}

    def test_extras_cannot_be_set(self):
        with pytest.raises(SpecError, match="no hyperparameter: the step passes it"):
            run(lambda X, y, sample_weight=None: None, sample_weight=[1])

    def test_text_from_a_template_becomes_a_number(self):
        given = {"depth": "5", "rate": "0.5", "name": "5", "quiet": "True"}
        assert check_hyperparameters(trainer_of(plain), given) == {
            "depth": 5,
            "rate": 0.5,
            "name": "5",
            "quiet": True,
        }
        with pytest.raises(SpecError, match="'depth' must be a int"):
            check_hyperparameters(trainer_of(plain), {"depth": "deep"})

    @pytest.mark.parametrize("value", ['{"a": 1}', "{'a': 1}", {"a": 1}])
    def test_a_dict_that_a_template_rendered(self, value):
        assert mapping(value, "hyperparameters") == {"a": 1}

    def test_no_dict(self):
        with pytest.raises(SpecError, match="hyperparameters must be a dict, got list"):
            mapping([1], "hyperparameters")


class TestFit:
    def test_the_seed_reaches_the_trainer_and_the_global_generators(self):
        drawn = []

        def train(X, y, random_state):
            drawn.append((random_state, np.random.random()))
            return LogisticRegression().fit(X, y)

        run(train)
        run(train)
        run(train, seed=8)
        assert drawn[0] == drawn[1]
        assert drawn[0][0] == 7
        assert drawn[2][1] != drawn[0][1]

    def test_what_a_trainer_asks_for(self):
        def train(X, y, sample_weight, time=None):
            assert list(sample_weight) == [1, 2, 3, 4]
            return LogisticRegression().fit(X, y, sample_weight)

        assert run(train, extras={"sample_weight": np.array([1, 2, 3, 4]), "groups": "not asked for"}).coef_.any()

    @pytest.mark.parametrize(
        ("returned", "message"),
        [(None, "returned nothing"), (LogisticRegression, "the class LogisticRegression"), ({"a": 1}, "a dict")],
    )
    def test_what_is_no_model(self, returned, message):
        with pytest.raises(SpecError, match=message):
            run(lambda X, y: returned)

    def test_a_trainer_that_raises(self):
        def train(X, y):
            raise KeyError("no such thing")

        with pytest.raises(SpecError, match=r"train failed with KeyError: 'no such thing'") as caught:
            run(train)
        assert isinstance(caught.value.__cause__, KeyError)

    def test_a_network_that_fails_is_worth_a_retry(self):
        def train(X, y):
            raise ConnectionResetError("https://me:secret@host/weights is gone")

        with pytest.raises(CannotReachError, match="ConnectionResetError") as caught:
            run(train)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(("value", "what"), [(np.inf, "1 infinite values"), (np.nan, "1 nulls")])
    def test_values_that_scikit_learn_refuses_are_placed(self, value, what):
        with pytest.raises(SpecError, match=f"'b' has {what}"):
            run(plain, X=X.assign(b=[1.0, value, 1.0, 0.0]))

    def test_text_in_a_numeric_model_is_named_by_column_not_by_value(self):
        with pytest.raises(SpecError, match="columns hold text where numbers are needed: 'b'") as caught:
            run(plain, X=X.assign(b=["Ada Lovelace"] * 4))
        assert "Ada" not in str(caught.value)


class TestFeatures:
    def test_the_raw_frame_is_not_changed(self):
        def features(frame):
            frame["c"] = 1
            return frame

        assert "c" in apply_features(features, X)
        assert "c" not in X

    def test_rows_must_stay(self):
        with pytest.raises(SpecError, match="returned 2 rows for 4 rows"):
            apply_features(lambda frame: frame.head(2), X)
        with pytest.raises(SpecError, match="returned a NoneType"):
            apply_features(lambda frame: None, X)

    def test_a_function_that_raises(self):
        with pytest.raises(SpecError, match=r"features function .* failed with KeyError: 'z'"):
            apply_features(lambda frame: frame["z"], X)
