"""The example of the docs, run in Airflow against a real web hook and a real mail server."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from servers.inboxes import MailServer, WebHook

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "alert_owner.py"


def test_the_desk_hears_of_broken_orders_and_of_good_ones_again(
    airflow_test: Any, tmp_path: Path, web_hook: WebHook, mail_server: MailServer
) -> None:
    shutil.copy(EXAMPLE, airflow_test.dags)
    airflow = dataclasses.replace(
        airflow_test, connections={"pager": web_hook.connection, "smtp_default": mail_server.connection}
    )
    pd.DataFrame({"total": [9.5, None]}).to_parquet(tmp_path / "bad.parquet")
    pd.DataFrame({"total": [9.5, 3.0]}).to_parquet(tmp_path / "good.parquet")

    runs = [
        airflow.cli(
            "dags", "test", "orders_watched", f"2026-01-{day:02d}", "--conf",
            json.dumps({"orders": str(tmp_path / f"{name}.parquet")}),
        )
        for day, name in ((2, "bad"), (3, "good"))
    ]  # fmt: skip

    assert [(one["event"], one["incident"]) for one in web_hook.received] == [
        ("opened", "orders/validation/1"),
        ("resolved", "orders/validation/1"),
    ], runs[0].stdout[-3000:]
    first, last = mail_server.received
    assert (first["To"], first["Subject"]) == ("desk@example.com", "[error] Broken data: orders")
    assert last["Subject"] == "[resolved] Broken data: orders"
    assert web_hook.received[0]["owner"] == "order desk"
    assert "/mlops/reports/orders_watched/" in web_hook.received[0]["links"]["Report"]
    rows = json.loads(airflow.cli("mlops", "history", "orders", "--incidents", "-o", "json").stdout.splitlines()[-1])
    assert [(row["event"], row["told"]) for row in rows] == [
        ("opened", "HttpNotifier, SmtpNotifier"),
        ("resolved", "HttpNotifier, SmtpNotifier"),
    ]
