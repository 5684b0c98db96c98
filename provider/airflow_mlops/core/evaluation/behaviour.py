"""What happens to the predictions when the rows change: tests that predict again (Ribeiro et al. 2020, CheckList).

None of them needs the target to be right: a row is held against its own first prediction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import MissingColumnError, SpecError, UnsupportedError, did_you_mean
from airflow_mlops.core.evaluation.loading import features, said
from airflow_mlops.core.evaluation.outcome import Outcome, outcome
from airflow_mlops.core.reports import figure as text
from airflow_mlops.core.training.metrics import for_target, predict
from airflow_mlops.core.training.predictions import Predictions

if TYPE_CHECKING:
    import numpy as np
    import pandas

    from airflow_mlops.core.evaluation.evidence import Evidence

#: Rows that are changed, at most; drawn at random.
ROWS = 5_000
#: Values of a column that every row is given in turn; of more, one at random.
VALUES = 20


def robustness_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that a little noise, missing values and swapped categories change few predictions.

    Noise is normal, ``noise`` times the column's standard deviation, in every number; ``missing`` and ``swap`` are the
    shares of cells that go missing, in columns that can hold that, or get another row's value, in columns of text.
    """
    import numpy as np

    rows, frame = _rows(evidence)
    outcomes = []
    for what, size in (("noise", spec["noise"]), ("missing", spec["missing"]), ("swap", spec["swap"])):
        random = np.random.default_rng(0)
        changed = _PERTURB[what](frame, _inputs(evidence, frame), size, random) if size else None
        if changed is None:
            continue
        one = {**spec, "name": f"{spec['name']}: {_SAID[what]}"}
        outcomes.append(_held(evidence, one, rows, changed, f"With {_SAID[what]} ({size:g})", advice=what))
    return outcomes or [outcome(spec, False, "No column can be changed: noise, missing and swap are 0 or fit none")]


def invariance_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that predictions do not depend on a column: each row is given the column's other values."""
    import numpy as np
    import pandas

    rows, frame = _rows(evidence)
    column = _column(frame, spec)
    if column not in _inputs(evidence, frame):
        return [outcome(spec, True, f"The model does not take {column}", value=0.0, threshold=_threshold(spec))]
    values = pandas.unique(frame[column])
    if len(values) > VALUES:
        order = np.random.default_rng(0).permutation(len(frame))
        others = frame[column].iloc[order].set_axis(frame.index)
        return [_held(evidence, spec, rows, frame.assign(**{column: others}), _if(column))]
    before = evidence.challenger.at(rows)
    apart = np.zeros(len(frame))
    for value in values:
        after = _predict_again(evidence, _with(frame, column, value))
        if before is None or isinstance(after, str):
            why = after if isinstance(after, str) else evidence.challenger.problem
            return [outcome(spec, False, f"{_if(column)} the model cannot predict: {why}", threshold=_threshold(spec))]
        apart = np.maximum(apart, _apart(before, after))
    assert before is not None
    return [_judge(spec, apart, _if(column), before)]


def directional_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that a feature moves the prediction the way it must: more of it, a higher one; or a lower one."""
    _, frame = _rows(evidence)
    column = _column(frame, spec)
    threshold = f"≤ {spec['max_wrong']:.1%} the wrong way"
    if column not in _inputs(evidence, frame):
        return [outcome(spec, False, f"The model does not take {column}: it moves nothing", threshold=threshold)]
    moved = _moved(frame[column], spec)
    before, after = _predict_again(evidence, frame), _predict_again(evidence, _with(frame, column, moved))
    if isinstance(before, str) or isinstance(after, str):
        why = before if isinstance(before, str) else after
        return [outcome(spec, False, f"With another {column} it cannot predict: {why}", threshold=threshold)]
    step = _height(after, spec) - _height(before, spec)
    wrong = float(((step < -1e-9) if spec["expect"] == "increase" else (step > 1e-9)).mean())
    passed = wrong <= spec["max_wrong"]
    message = (
        f"{wrong:.1%} of {len(frame):,} predictions go the wrong way when {column} changes (they must "
        f"{spec['expect']}); on average they move by {text(float(step.mean()))}"
    )
    return [outcome(spec, passed, message, value=wrong, threshold=threshold)]


def _rows(evidence: Evidence) -> tuple[np.ndarray[Any, Any], pandas.DataFrame]:
    """Return some of the judged rows: their positions in the dataset, and themselves."""
    import numpy as np

    rows = evidence.challenger.rows
    if len(rows) > ROWS:
        rows = np.sort(np.random.default_rng(0).choice(rows, ROWS, replace=False))
    return rows, evidence.frame.iloc[rows].reset_index(drop=True)


def _inputs(evidence: Evidence, frame: pandas.DataFrame) -> list[str]:
    """Return the columns that the model takes; no other is ever changed, the target least of all."""
    try:
        return [str(name) for name in features(evidence.challenger.copy, frame, evidence.not_features).columns]
    except UnsupportedError:
        return []


def _column(frame: pandas.DataFrame, spec: dict[str, Any]) -> str:
    column, names = spec["column"], [str(name) for name in frame.columns]
    if column not in names:
        near = did_you_mean(column, names)
        raise MissingColumnError(
            f"the test {spec['name']!r} changes {column!r}, which the dataset does not have{near}", column=column
        )
    return str(column)


def _with(frame: pandas.DataFrame, column: str, values: Any) -> pandas.DataFrame:
    import pandas

    changed: pandas.DataFrame = frame.copy()
    changed[column] = pandas.Series(values, index=frame.index).astype(frame[column].dtype)
    return changed


def _moved(numbers: pandas.Series, spec: dict[str, Any]) -> pandas.Series:
    """Return a column times ``factor`` plus ``change``."""
    import pandas

    name = spec["column"]
    types = pandas.api.types
    if not types.is_numeric_dtype(numbers) or types.is_bool_dtype(numbers):
        raise SpecError(f"the test {spec['name']!r} changes the column {name!r} by a number, and it holds none")
    moved = numbers.astype("float64") * spec.get("factor", 1) + spec.get("change", 0)
    back = _typed_like(numbers, moved)
    if len(back) and (back == numbers).fillna(True).all():
        raise SpecError(
            f"the test {spec['name']!r} changes no value of {name!r}, which holds {numbers.dtype} numbers: "
            "give a larger change or factor"
        )
    return back


def _typed_like(column: pandas.Series, values: pandas.Series) -> pandas.Series:
    """Return values in the type of a column, so that the model's signature holds: whole ones stay whole, and fit."""
    import numpy as np
    import pandas

    if pandas.api.types.is_integer_dtype(column):
        limits = np.iinfo(getattr(column.dtype, "numpy_dtype", column.dtype))
        values = values.round().clip(limits.min, limits.max)
    typed: pandas.Series = values.astype(column.dtype)
    return typed


def _if(column: str) -> str:
    return f"With another value of {column}"


def _predict_again(evidence: Evidence, frame: pandas.DataFrame) -> Predictions | str:
    """Return what the model says of changed rows, or why it says nothing."""
    judged = evidence.challenger
    if judged.problem:
        return judged.problem
    with judged.copy.code():
        try:
            found = predict(judged.model, features(judged.copy, frame, evidence.not_features))
        except Exception as error:
            return said(error, frame)
    try:
        return for_target(frame[evidence.target].to_numpy(), found)
    except TypeError:
        return found


def _held(
    evidence: Evidence,
    spec: dict[str, Any],
    rows: np.ndarray[Any, Any],
    changed: pandas.DataFrame,
    when: str,
    advice: str | None = None,
) -> Outcome:
    """Hold changed rows against the first predictions of the same rows."""
    before, after = evidence.challenger.at(rows), _predict_again(evidence, changed)
    if before is None or isinstance(after, str):
        why = after if isinstance(after, str) else evidence.challenger.problem
        hint = f"; {advice}=0 leaves this out" if advice else ""
        return outcome(spec, False, f"{when} the model cannot predict: {why}{hint}", threshold=_threshold(spec))
    return _judge(spec, _apart(before, after), when, before)


def _apart(before: Predictions, after: Predictions) -> np.ndarray[Any, Any]:
    """Return for each row whether its class is another, or by how much its value is, in standard deviations of all."""
    import numpy as np

    if before.classes is not None:
        return np.asarray(before.labels != after.labels, dtype="float64")
    spread = float(np.std(before.labels)) or 1.0
    return np.asarray(np.abs(after.labels - before.labels) / spread, dtype="float64")


def _judge(spec: dict[str, Any], apart: np.ndarray[Any, Any], when: str, before: Predictions) -> Outcome:
    share = float(apart.mean())
    passed = share <= spec["max_flips"]
    if before.classes is not None:
        message = f"{when} {share:.1%} of {len(apart):,} predictions are another class"
    else:
        message = f"{when} {len(apart):,} predictions change by {text(share)} of their standard deviation on average"
    message += "" if passed else f"; must be {_threshold(spec)}"
    return outcome(spec, passed, message, value=share, threshold=_threshold(spec))


def _threshold(spec: dict[str, Any]) -> str:
    return f"≤ {spec['max_flips']:g}"


def _height(predictions: Predictions, spec: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return what must go up or down: the value, or the probability of the positive, or of the given, class."""
    import numpy as np

    if predictions.probabilities is None or not predictions.classes:
        if predictions.labels.dtype.kind not in "iuf":
            raise SpecError(f"the test {spec['name']!r} needs a model that gives probabilities or numbers")
        return np.asarray(predictions.labels, dtype="float64")
    place = len(predictions.classes) - 1
    if "of_class" in spec:
        known = [str(one) for one in predictions.classes]
        if str(spec["of_class"]) not in known:
            raise SpecError(f"the test {spec['name']!r}: the model knows no class {spec['of_class']!r}")
        place = known.index(str(spec["of_class"]))
    elif len(predictions.classes) > 2:
        raise SpecError(f"the test {spec['name']!r} needs of_class: which class's probability must go up or down")
    return np.asarray(predictions.probabilities[:, place], dtype="float64")


def _noisy(
    frame: pandas.DataFrame, columns: list[str], size: float, random: np.random.Generator
) -> pandas.DataFrame | None:
    changed, any_one = frame.copy(), False
    for name in columns:
        column = frame[name]
        if column.dtype.kind in "iuf" and column.nunique() > 2:
            moved = column.astype("float64") + size * float(column.std()) * random.normal(size=len(frame))
            changed[name] = _typed_like(column, moved)
            any_one = True
    return changed if any_one else None


def _holed(
    frame: pandas.DataFrame, columns: list[str], size: float, random: np.random.Generator
) -> pandas.DataFrame | None:
    changed, any_one = frame.copy(), False
    for name in columns:
        if frame[name].dtype.kind == "f" or _is_text(frame[name]):
            changed[name] = frame[name].mask(random.random(len(frame)) < size)
            any_one = True
    return changed if any_one else None


def _swapped(
    frame: pandas.DataFrame, columns: list[str], size: float, random: np.random.Generator
) -> pandas.DataFrame | None:
    changed, any_one = frame.copy(), False
    for name in columns:
        if _is_text(frame[name]):
            others = frame[name].iloc[random.permutation(len(frame))].set_axis(frame.index)
            changed[name] = frame[name].mask(random.random(len(frame)) < size, others)
            any_one = True
    return changed if any_one else None


def _is_text(column: pandas.Series) -> bool:
    import pandas

    types = pandas.api.types
    return types.is_string_dtype(column) or isinstance(column.dtype, pandas.CategoricalDtype)


_PERTURB = {"noise": _noisy, "missing": _holed, "swap": _swapped}
_SAID = {"noise": "noise", "missing": "missing values", "swap": "swapped categories"}
