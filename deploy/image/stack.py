"""What the containers of the stack run: it makes files of secrets, sets servers up, and becomes them.

Only the standard library is imported before it is clear what is asked for: a health check runs every few seconds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

#: Files of secrets, written when a container starts and gone with it.
SECRETS = Path("/tmp/stack")  # noqa: S108 - the container's own


def become(*command: str) -> None:
    """Replace this process, so that signals reach the server."""
    os.execvp(command[0], command)


def write_secret(name: str, text: str) -> Path:
    """Write a file that only this user can read."""
    SECRETS.mkdir(mode=0o700, exist_ok=True)
    path = SECRETS / name
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    return path


def users(text: str) -> tuple[str, dict[str, str]]:
    """Return Airflow's list of users and roles, and the passwords.

    :param text: ``name:role:password``, separated by commas.
    """
    roles, passwords = [], {}
    for one in filter(None, (part.strip() for part in text.split(","))):
        name, role, password = ([*one.split(":", 2), "", ""])[:3]
        if not name or not password or role.lower() not in ("admin", "op", "user", "viewer"):
            sys.exit(
                f"AIRFLOW_USERS: user {name!r} must stand as name:role:password with one of the roles admin, op, user, "
                "viewer; correct it in .env"
            )
        roles.append(f"{name}:{role.lower()}")
        passwords[name] = password
    if not roles:
        sys.exit("AIRFLOW_USERS names nobody; run `make stack-env`")
    return ",".join(roles), passwords


def api_server() -> None:
    """Run Airflow's API server, whose users are those of ``AIRFLOW_USERS``."""
    roles, passwords = users(os.environ.pop("AIRFLOW_USERS", ""))
    os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] = roles
    path = write_secret("passwords.json", json.dumps(passwords))
    os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"] = str(path)
    become("airflow", "api-server", "--host", "0.0.0.0", "--port", "8080")


def mlflow() -> None:
    """Run MLflow's server, which asks for a password."""
    database = os.environ.pop("MLFLOW_DATABASE")
    config = {
        "default_permission": "READ",
        "database_uri": database,
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        # A password is checked slowly, on purpose; remember for a minute that it was right.
        "auth_cache_ttl_seconds": "60",
    }
    text = "[mlflow]\n" + "".join(f"{key} = {value}\n" for key, value in config.items())
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(write_secret("mlflow.ini", text.replace("%", "%%")))
    os.environ["MLFLOW_BACKEND_STORE_URI"] = database  # not in the list of processes
    workers = os.environ.get("MLFLOW_WORKERS", "2")
    become("mlflow", "server", "--app-name", "basic-auth", "--host", "0.0.0.0", "--port", "5000", "--workers", workers)


def set_up() -> None:
    """Bring both databases up to date, and make the gateway's folder and the buckets that are not there."""
    import boto3

    # Given as an argument, the address would show its password in the list of processes.
    upgrade = "import os; from mlflow.db import commands; commands(['upgrade', os.environ['MLFLOW_DATABASE']])"
    databases = [subprocess.Popen(["airflow", "db", "migrate"]), subprocess.Popen([sys.executable, "-c", upgrade])]
    s3 = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"])
    there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for name in os.environ["S3_BUCKETS"].split(","):
        if name not in there:
            s3.create_bucket(Bucket=name)
            print(f"made the bucket {name}", flush=True)
    # What is deployed there already stays. Docker's name server knows the models.
    gateway = [sys.executable, "-m", "airflow_mlops.core.serving.gateway", os.environ["GATEWAY_FOLDER"]]
    gateway += ["--bind", ":8080", "--resolver", "127.0.0.11:53", "--maxconn", "2000", "--log", "stdout"]
    made = subprocess.run(gateway, check=False).returncode
    sys.exit(max(made, *(abs(database.wait()) for database in databases)))


def healthy(url: str, component: str | None) -> None:
    """End with an error unless a server answers, and says of a component that it is well.

    :param component: a part of Airflow that the API server watches.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=8)
    try:
        connection.request("GET", parts.path, headers={"Host": f"localhost:{parts.port}"})
        answer = connection.getresponse()
        body = answer.read()
    except OSError as error:
        sys.exit(f"{url}: {error}")
    if answer.status != 200:
        sys.exit(f"{url}: {answer.status}")
    if component and (status := json.loads(body)[component]["status"]) != "healthy":
        sys.exit(f"{component}: {status}")


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description="What the containers of the stack run.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in (("api-server", api_server), ("mlflow", mlflow), ("set-up", set_up)):
        commands.add_parser(name, help=function.__doc__)
    check = commands.add_parser("healthy", help="say whether a server is well")
    check.add_argument("url")
    check.add_argument("component", nargs="?")
    options = parser.parse_args()
    if options.command == "healthy":
        healthy(options.url, options.component)
    else:
        {"api-server": api_server, "mlflow": mlflow, "set-up": set_up}[options.command]()


if __name__ == "__main__":
    main()
