"""Model cards: what is on record of a version that was released, for people to read.

A card is made of facts alone: the version's record, the ledger, the evidence and MLflow's run. What nobody has recorded
is not on it, except for what the user says of the model (``about``): what it is meant for, and what it is not.

It is kept in the store as ``cards/<model>/<version>/card.{json,md,html}`` and in the artifacts of the model's run in
MLflow (a model's own files are what its digest is of), and the version's tag ``mlops.card`` says where.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import IntegrityError, MlopsError, NotFoundError, SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.markdown import code, plain, table, value
from airflow_mlops.core.plain import clean
from airflow_mlops.core.registry import briefing
from airflow_mlops.core.registry.ledger import Entry, Ledger
from airflow_mlops.core.registry.versions import RegisteredModel, version_record
from airflow_mlops.core.reports import environment, figure
from airflow_mlops.core.store import safe_name
from airflow_mlops.core.tracking import client, mlflow_errors
from airflow_mlops.core.vocabulary import SCHEMA, ModelRef

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

FOLDER = "cards"
CARD_TAG = "mlops.card"
#: Sections that a user may write of a model, in their order; others follow.
SECTIONS = ("intended_use", "out_of_scope", "limitations", "ethical_considerations", "contact")
#: Slices that a card shows.
MOST_SLICES = 30


def publish_card(context: StepContext, name: str, version: int, about: Any = None) -> dict[str, str]:
    """Make the card of a version, or make it anew, and return where it is: ``{"markdown", "html", "page"}``.

    :param about: what the user says of the model; kept for its later versions. None: what was said before.
    """
    known = facts(context, name, version, about_of(context, name, about))
    folder = f"{FOLDER}/{safe_name(name)}/{version}"
    page = (
        environment().get_template("model_card.html").render(card=known, title=f"Model card: {name} version {version}")
    )
    text = markdown(known)
    context.store.put_json(f"{folder}/card.json", known)
    context.store.put_bytes(f"{folder}/card.md", text.encode())
    context.store.put_bytes(f"{folder}/card.html", page.encode())
    found = {kind: context.store.uri_of(f"{folder}/card.{end}") for kind, end in (("markdown", "md"), ("html", "html"))}
    if context.run.get("dag_id"):
        # Beside the task's reports, which Airflow shows to whoever may read the DAG.
        shown = f"{context.report_folder('card', name, version)}/card.html"
        context.store.put_bytes(shown, page.encode())
        found["page"] = context.store.uri_of(shown)
    crash_point("promote.card_stored")
    _attach(context, name, version, known["model"]["run_id"], text, page, found["markdown"])
    return found


def attempt_card(context: StepContext, name: str, version: int, about: Any) -> str | None:
    """Make the card of a version that was just released or refused; return the URI of its page.

    What was decided stands whatever comes of the card, so a failure is a warning.
    """
    try:
        found = publish_card(context, name, version, about)
    except MlopsError as error:
        context.log.warning(
            "the model card of version %d of %r was not made: %s. 'airflow mlops card %s %d' makes it",
            *(version, name, error.message, name, version),
        )
        return None
    context.log.info("model card: %s", found["html"])
    return found.get("page")


def check_about(about: Any) -> dict[str, Any]:
    """Return what a user says of a model; an empty dict for nothing.

    :raises SpecError: if it is no dict of texts or lists of texts.
    """
    if about is None or about == "":
        return {}
    texts = isinstance(about, dict) and all(
        isinstance(key, str)
        and (isinstance(one, str) or (isinstance(one, list) and all(isinstance(x, str) for x in one)))
        for key, one in about.items()
    )
    if not texts:
        raise SpecError(
            "card is a dict of texts or lists of texts, such as {'intended_use': '...', 'limitations': ['...']}, "
            f"got {type(about).__name__}"
        )
    return dict(about)


def about_of(context: StepContext, name: str, about: Any) -> dict[str, Any]:
    """Return what is said of a model: now, else what was said of an earlier version."""
    key = f"{FOLDER}/{safe_name(name)}/about.json"
    said = check_about(about)
    if said:
        context.store.put_json(key, said)
        return said
    return context.store.find_json(key) or {}


def facts(context: StepContext, name: str, version: int, about: dict[str, Any]) -> dict[str, Any]:
    """Return what is on record of a version.

    :raises NotFoundError: if nothing is.
    """
    record = version_record(context, name, version)
    if record is None:
        raise NotFoundError(
            f"nothing is on record of version {version} of {name!r} in {context.store.uri}: it was not registered by "
            "this provider. Register it, which adopts it",
            model=name,
            version=version,
        )
    ref = ModelRef.from_dict(record["ref"])
    releases = [entry for entry in Ledger(context.store, name).entries() if entry.done and entry.version == version]
    reports = _evidence(context, record, releases)
    tested = [one["details"] for one in reports if one["kind"] == "model_test" and one["details"]]
    tests = [test for details in tested for test in details.get("tests") or []]
    return dict(
        clean(
            {
                "schema": SCHEMA,
                "kind": "model_card",
                "name": name,
                "version": version,
                "reason": record.get("reason"),
                "refused": record.get("refused"),
                "about": {key: about[key] for key in (*SECTIONS, *about) if key in about},
                "model": {
                    **{key: getattr(ref, key) for key in ("uri", "digest", "run_id", "target", "created_at")},
                    "registered_at": record.get("at"),
                    "signature": record.get("signature") or _signature(tested),
                    "flavors": next((one["model"].get("flavors") for one in tested if one.get("model")), None),
                },
                "data": _data(ref),
                "code": ref.code or {},
                "environment": ref.environment or {},
                "hyperparameters": briefing.parameters(context, ref),
                "metrics": _metrics(ref, tested),
                "tests": [_test(one) for one in tests if not one.get("slice") and one.get("kind") != "fairness"],
                "fairness": [_test(one) for one in tests if one.get("kind") == "fairness"],
                "slices": [row for one in tested for row in one.get("slices") or [] if row.get("value") is not None][
                    :MOST_SLICES
                ],
                "calibration": [
                    {key: one.get(key) for key in ("ece", "brier")}
                    for details in tested
                    for one in details.get("calibration") or []
                ],
                "caveats": [text for one in tested for text in one.get("caveats") or []],
                "evidence": [{key: one[key] for key in ("kind", "passed", "digest", "report_uri")} for one in reports],
                "approval": next(
                    (
                        {key: one["details"].get(key) for key in ("by", "at", "reason", "decision")}
                        for one in reversed(reports)
                        if one["kind"] == "approval" and one["details"]
                    ),
                    None,
                ),
                "releases": [_release(entry) for entry in releases],
            }
        )
    )


def _evidence(context: StepContext, record: dict[str, Any], releases: list[Entry]) -> list[dict[str, Any]]:
    """Return the reports behind a version, each once, with their details where these are there still."""
    given = [report for entry in releases for report in entry.intent.get("evidence") or []]
    found: dict[Any, dict[str, Any]] = {}
    for report in [*(record.get("evidence") or []), *given]:
        found.setdefault(
            report.get("digest"), {key: report.get(key) for key in ("kind", "passed", "digest", "report_uri")}
        )
    return [one | {"details": _details(context, one["report_uri"])} for one in found.values()]


def _details(context: StepContext, report_uri: str | None) -> dict[str, Any] | None:
    key = context.store.key_of(report_uri) if report_uri else None
    if key is None:
        return None
    try:
        return dict(context.store.get_json(key.rpartition("/")[0] + "/details.json"))
    except (NotFoundError, IntegrityError):
        return None


def _signature(tested: list[dict[str, Any]]) -> dict[str, Any] | None:
    inputs = next((one["model"].get("inputs") for one in tested if one.get("model")), None)
    return {"inputs": inputs} if inputs else None


def _data(ref: ModelRef) -> dict[str, Any]:
    training, held_out = ref.training or {}, ref.test_dataset or {}
    return {
        "training": {key: training.get(key) for key in ("dataset_digest", "window", "rows", "split")},
        "test": {key: held_out.get(key) for key in ("name", "digest", "window", "rows")},
    }


def _metrics(ref: ModelRef, tested: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the metrics with their intervals; what was tested comes before what the training run logged."""
    found: dict[str, dict[str, Any]] = {}
    for details in tested:
        specs = {spec.get("name"): spec.get("metric") for spec in details.get("specs") or []}
        intervals = {
            specs.get(test["name"]): test["interval"]
            for test in details.get("tests") or []
            if test.get("kind") == "metric" and test.get("interval") and not test.get("slice")
        }
        for row in briefing.metrics(details):
            found[row["metric"]] = {**row, "interval": intervals.get(row["metric"]), "measured": "tested"}
    for name, figure_ in (ref.metrics or {}).items():
        found.setdefault(name, {"metric": name, "model": figure_, "interval": None, "measured": "training run"})
    return list(found.values())


def _test(test: dict[str, Any]) -> dict[str, Any]:
    kept = ("name", "kind", "passed", "severity", "value", "threshold", "interval", "message")
    return {key: test.get(key) for key in kept}


def _release(entry: Entry) -> dict[str, Any]:
    said = entry.to_ledger_entry()
    run = said.run or {}
    return {
        **{key: getattr(said, key) for key in ("seq", "action", "alias", "previous_version", "by", "reason", "at")},
        "run": "/".join(str(run[key]) for key in ("dag_id", "run_id") if run.get(key)) or None,
    }


def _attach(context: StepContext, name: str, version: int, run_id: str | None, text: str, page: str, uri: str) -> None:
    """Put the card into the run's artifacts, and its address on the version."""
    registered = RegisteredModel(context, name)
    with mlflow_errors(registered.uri):
        registered.client.set_model_version_tag(name, str(version), CARD_TAG, uri)
    if not run_id:
        return
    mlflow_client = client(context, "keeping a model card")
    try:
        with mlflow_errors(context.tracking_uri):
            for content, end in ((text, "md"), (page, "html")):
                mlflow_client.log_text(run_id, content, f"model_card/{safe_name(name)}-{version}.{end}")
    except NotFoundError:
        context.log.info("the run %s of the model is gone from MLflow; the card is in the store alone", run_id)


def markdown(card: dict[str, Any]) -> str:
    """Return a card as Markdown."""
    parts = [f"# Model card: {plain(card['name'])} version {card['version']}", _about(card["about"])]
    last = card["releases"][-1] if card["releases"] else None
    if last:
        why = f": {plain(last['reason'])}" if last["reason"] else ""
        who = f"by {plain(last['by'])} on {last['at'][:10]}"
        parts.append(f"Last released as {code(last['alias'])} {who} (entry {last['seq']}){why}")
    if card["reason"]:
        parts.append(f"Made because: {plain(card['reason'])}")
    if card["refused"]:
        parts.append(f"**Not promoted**: {plain(card['refused'])}")
    parts += [
        _section("Model", _listing(card["model"], skip=("signature",))),
        _section("Training data", _listing(card["data"]["training"])),
        _section("Test data", _listing(card["data"]["test"])),
        _section("Code and environment", _listing({**card["code"], **card["environment"]})),
        _section("Hyperparameters", _listing(card["hyperparameters"])),
        _section("Metrics", _metrics_table(card["metrics"])),
        _section("Tests", _tests_table(card["tests"])),
        _section("Fairness", _tests_table(card["fairness"])),
        _section("Slices", _slices_table(card["slices"])),
        _section("Read with care", "\n".join(f"- {plain(one)}" for one in card["caveats"])),
        _section("Approval", _listing(card["approval"] or {})),
        _section("Releases", _releases_table(card["releases"])),
        _section("Evidence", _evidence_table(card["evidence"])),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _about(about: dict[str, Any]) -> str:
    parts = []
    for key, said in about.items():
        lines = [f"- {plain(one)}" for one in said] if isinstance(said, list) else [plain(said)]
        parts.append(_section(key.replace("_", " ").capitalize(), "\n".join(lines)))
    return "\n\n".join(parts)


def _listing(values: dict[str, Any], skip: tuple[str, ...] = ()) -> str:
    rows = [
        [plain(key.replace("_", " ")), value(_text(one))]
        for key, one in values.items()
        if one not in (None, "", {}, []) and key not in skip
    ]
    return table(["", ""], rows) if rows else ""


def _text(one: Any) -> Any:
    if isinstance(one, dict) and {"start", "end"} <= set(one):
        return f"{one['start']} to {one['end']}"
    return json.dumps(one, ensure_ascii=False) if isinstance(one, (dict, list)) else one


def interval(bounds: Any) -> str:
    """Return an interval as people write it; a dash for none."""
    return f"{figure(bounds[0])} to {figure(bounds[1])}" if bounds else "–"


def _metrics_table(rows: list[dict[str, Any]]) -> str:
    shown = [
        [
            code(row["metric"]),
            figure(row["model"]),
            interval(row["interval"]),
            figure(row.get("champion")),
            interval([sure["low"], sure["high"]]) if (sure := row.get("certainty")) else "–",
            row["measured"],
        ]
        for row in rows
    ]
    headers = ["Metric", ">Value", "Interval", ">Champion before", "Better by", "Measured"]
    return table(headers, shown) if shown else ""


def _tests_table(tests: list[dict[str, Any]]) -> str:
    rows = [
        [
            "passed" if one["passed"] else f"**{one['severity']}**",
            plain(one["name"]),
            figure(one["value"]),
            interval(one["interval"]),
            plain(one["threshold"]),
        ]
        for one in tests
    ]
    return table(["Result", "Test", ">Value", "Interval", "Must be"], rows) if rows else ""


def _slices_table(slices: list[dict[str, Any]]) -> str:
    rows = [
        [code(row["by"]), plain(row["slice"]), figure(row["rows"]), code(row["metric"]), figure(row["value"])]
        for row in slices
    ]
    return table(["By", "Slice", ">Rows", "Metric", ">Value"], rows) if rows else ""


def _releases_table(releases: list[dict[str, Any]]) -> str:
    rows = [
        [
            str(one["seq"]),
            one["at"][:19],
            one["action"],
            code(one["alias"]),
            figure(one["previous_version"]),
            plain(one["by"]),
            plain(one["reason"]),
        ]
        for one in releases
    ]
    return table([">Entry", "At", "Action", "Alias", ">Before", "By", "Why"], rows) if rows else ""


def _evidence_table(evidence: list[dict[str, Any]]) -> str:
    rows = [
        [plain(one["kind"]), "passed" if one["passed"] else "failed", code(one["digest"]), code(one["report_uri"])]
        for one in evidence
    ]
    return table(["Report", "Result", "Digest of its details", "Page"], rows) if rows else ""
