"""The commands and their arguments. Every ``airflow`` command imports this, so it imports nothing else of ours."""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.cli.cli_config import ActionCommand, Arg, CLICommand

_COMMANDS = "airflow_mlops.cli.commands"
_LIFECYCLE = "airflow_mlops.cli.lifecycle"
_CONTAINERS = "airflow_mlops.cli.containers"
_DOCTOR = "airflow_mlops.cli.doctor"
_SERVING = "airflow_mlops.cli.serving"
_RETRAINING = "airflow_mlops.cli.retraining"
_SKELETON = "airflow_mlops.cli.skeleton"
_MONITORING = "airflow_mlops.cli.monitoring"


def get_mlops_cli_commands() -> list[CLICommand]:
    """Return the group ``airflow mlops``."""
    from airflow.cli.cli_config import ARG_OUTPUT, ARG_VERBOSE, ActionCommand, Arg, GroupCommand, lazy_load_command

    name = Arg(("name",), help="Name of the registered model")
    optional_name = Arg(("name",), nargs="?", help="Name of the registered model (default: all that have a ledger)")
    version = Arg(("version",), help="Number of the version", type=int)
    alias = Arg(("--alias",), help="The alias to move (default: champion)", default="champion")
    reason = Arg(("--reason",), help="Why; kept in the ledger")
    by = Arg(("--by",), help="Who; kept in the ledger (default: your user name)")
    expected = Arg(
        ("--expected-champion",),
        help="The version that the alias must have now, or 'none' "
        "(default: the one that the version's evidence was measured against)",
        metavar="VERSION",
        default="unset",
    )
    waive = Arg(
        ("--without-evidence",),
        help="Promote although the version's evidence failed, or has none that can be verified; the ledger says so",
        action="store_true",
    )
    clock = Arg(
        ("--clock",),
        help="When this takes place in the time of the data, where months are replayed (default: now)",
        metavar="INSTANT",
    )
    to_name = Arg(
        ("--to-name",),
        help="Another registered name to promote to; the version is made there of the same files",
        metavar="NAME",
    )
    incidents = Arg(("--incidents",), help="Show what monitors alerted of instead", action="store_true")
    mlflow = Arg(("--mlflow-conn-id",), help="Connection of type mlflow (default: the configured back end)")
    store = Arg(("--store-conn-id",), help="Connection of the store (default: the configured back end)")
    common = (mlflow, store, ARG_OUTPUT, ARG_VERBOSE)
    metric = Arg(("--metric",), help="Show this figure of every window instead, such as roc_auc")
    series = Arg(("--series",), help="Show every window of a series instead: performance, estimate, drift, service...")
    since = Arg(("--since",), help="Show the windows that end after this instant", metavar="INSTANT")
    return [
        GroupCommand(
            name="mlops",
            help="Registered models, the store and containers: what serves, promotion by hand, clearing up, a check-up",
            subcommands=(
                ActionCommand(
                    name="status",
                    help="Show which version each alias points at, whether the ledger agrees, and how the model does",
                    func=lazy_load_command(f"{_COMMANDS}.status"),
                    args=(optional_name, *common),
                ),
                ActionCommand(
                    name="history",
                    help="Show every entry of a model's ledger, the figures of its windows, or its incidents",
                    func=lazy_load_command(f"{_COMMANDS}.history"),
                    args=(name, metric, series, since, incidents, *common),
                ),
                ActionCommand(
                    name="promote",
                    help="Point an alias at a version",
                    func=lazy_load_command(f"{_COMMANDS}.promote"),
                    args=(name, version, alias, to_name, reason, expected, by, waive, clock, *common),
                ),
                ActionCommand(
                    name="adopt",
                    help="Put a version that is served elsewhere on record, so that it can be monitored",
                    func=lazy_load_command(f"{_COMMANDS}.adopt"),
                    args=(
                        name,
                        version,
                        Arg(("--baseline",), help="Its level, such as roc_auc=0.81", nargs="+", metavar="METRIC=VALUE"),
                        Arg(("--reference",), help="Path, glob or URI of the data that it is compared with"),
                        *common,
                    ),
                ),
                *_governance_commands(name, alias, reason, by, common),
                *_lifecycle_commands(common),
                _calibrate_command(common),
                _decide_command(common),
                _reproduce_command(common),
                _init_command((ARG_VERBOSE,)),
                _reap_command((ARG_OUTPUT, ARG_VERBOSE)),
                _serve_command((mlflow, store, ARG_VERBOSE)),
            ),
        )
    ]


def _governance_commands(name: Arg, alias: Arg, reason: Arg, by: Arg, common: tuple[Arg, ...]) -> list[ActionCommand]:
    from airflow.cli.cli_config import ActionCommand, Arg, lazy_load_command

    to_version = Arg(("--to-version",), help="A version that it had (default: the one before)", metavar="VERSION")
    keep = Arg(("--keep",), help="The newest versions that stay in any case (default: 10)", default=10, type=int)
    keep_rollback = Arg(
        ("--keep-rollback",),
        help="Versions that each alias can be rolled back to (default: all that it ever had)",
        type=int,
        metavar="N",
    )
    files = Arg(("--delete-files",), help="Delete their files too, if nothing that stays has them", action="store_true")
    optional_version = Arg(("version",), help="Number of the version (default: the alias's)", type=int, nargs="?")
    do = Arg(("--archive",), help="Do it; without this nothing changes", action="store_true")
    return [
        ActionCommand(
            name="rollback",
            help="Point an alias back at what it had before",
            func=lazy_load_command(f"{_COMMANDS}.rollback"),
            args=(name, alias, to_version, reason, by, *common),
        ),
        ActionCommand(
            name="archive",
            help="Show or archive old versions that nothing needs",
            func=lazy_load_command(f"{_COMMANDS}.archive"),
            args=(name, keep, keep_rollback, files, do, reason, by, *common),
        ),
        ActionCommand(
            name="card",
            help="Make a version's model card anew, and print it as Markdown",
            func=lazy_load_command(f"{_COMMANDS}.card"),
            args=(name, optional_version, alias, *common),
        ),
    ]


def _lifecycle_commands(common: tuple[Arg, ...]) -> list[ActionCommand]:
    from airflow.cli.cli_config import ActionCommand, Arg, lazy_load_command

    delete = Arg(("--delete",), help="Do it; without this nothing changes", action="store_true")
    by = Arg(("--by",), help="Who; kept in the record (default: your user name)")
    grace = Arg(("--grace",), help="Touch nothing younger than this; longer than any run (default: 14d)", default="14d")
    retention = Arg(
        ("--retention",),
        help="Keep reports, and the data of versions that were never promoted, for this long (default: 90d)",
        default="90d",
    )
    keep_rollback = Arg(
        ("--keep-rollback",),
        help="Versions that each alias can be rolled back to (default: all that it ever had)",
        type=int,
        metavar="N",
    )
    listing = Arg(("--list",), help="Show each object, not only the kinds", action="store_true")
    key = Arg(("--key",), help="The person's key; it stays in your shell's history", nargs="+", metavar="VALUE")
    keys_file = Arg(("--keys-file",), help="File with one key on each line, or - for standard input")
    column = Arg(("--column",), help="The column that holds it (default: the key role of each dataset)")
    reason = Arg(("--reason",), help="Why; kept in the record")
    as_json = Arg(("--json",), help="Short for --output json", action="store_true")
    return [
        ActionCommand(
            name="gc",
            help="Show or delete what nothing in the store needs",
            func=lazy_load_command(f"{_LIFECYCLE}.gc"),
            args=(delete, grace, retention, keep_rollback, listing, by, *common),
        ),
        ActionCommand(
            name="erase",
            help="Show or erase a person's rows in every stored dataset",
            func=lazy_load_command(f"{_LIFECYCLE}.erase"),
            args=(key, keys_file, column, reason, by, delete, *common),
        ),
        ActionCommand(
            name="doctor",
            help="Check versions, configuration and back ends, and say how to mend what is wrong",
            func=lazy_load_command(f"{_DOCTOR}.doctor"),
            args=(as_json, *common),
        ),
    ]


def _decide_command(common: tuple[Arg, ...]) -> ActionCommand:
    from airflow.cli.cli_config import ActionCommand, Arg, lazy_load_command

    return ActionCommand(
        name="decide",
        help="Show the decisions about retraining a model, or make them again from what they were made of",
        func=lazy_load_command(f"{_RETRAINING}.decide"),
        args=(
            Arg(("name",), help="Name of the model, as the decisions are kept under"),
            Arg(("--number",), help="Only this decision", type=int, metavar="N"),
            Arg(("--replay",), help="Decide again on the same inputs; exit code 1 if it differs", action="store_true"),
            Arg(("--policy",), help="JSON or a file of it: what this policy would have decided", metavar="POLICY"),
            *common,
        ),
    )


def _calibrate_command(common: tuple[Arg, ...]) -> ActionCommand:
    from airflow.cli.cli_config import ActionCommand, Arg, lazy_load_command

    return ActionCommand(
        name="calibrate",
        help="Show what each sensitivity of learnt drift thresholds would have cost: alarms and retrainings a year",
        func=lazy_load_command(f"{_MONITORING}.calibrate"),
        args=(
            Arg(("name",), help="What is watched, as reports call it"),
            Arg(("--data",), help="Its past: a path, glob or URI", required=True),
            Arg(("--time",), help="Column that says when a row is of", required=True),
            Arg(("--key",), help="Column that names a row, which is no feature"),
            Arg(("--columns",), help="Only these columns", nargs="+", metavar="COLUMN"),
            Arg(("--length",), help="Of a window (default: 7d)", default="7d"),
            Arg(("--reference",), help="Windows to learn from, the first ones (default: 8)", type=int, default=8),
            Arg(("--windows",), help="Drifted ones that retrain, k of the last n (default: 3of3)", default="3of3"),
            Arg(("--cooldown",), help="Rest after a retraining (default: 14d)", default="14d"),
            *common,
        ),
    )


def _reproduce_command(common: tuple[Arg, ...]) -> ActionCommand:
    from airflow.cli.cli_config import ActionCommand, Arg, lazy_load_command

    return ActionCommand(
        name="reproduce",
        help="Train a version again from its record and compare; exit code 1 if it is another model",
        func=lazy_load_command(f"{_RETRAINING}.reproduce"),
        args=(
            Arg(("name",), help="Name of the registered model"),
            Arg(("version",), help="Number of the version", type=int),
            Arg(("--python",), help="Another interpreter to train in, with the libraries on record", metavar="PATH"),
            Arg(
                ("--code",),
                help="Folder that the trainer is imported from (default: the code on record)",
                metavar="FOLDER",
            ),
            *common,
        ),
    )


def _init_command(common: tuple[Arg, ...]) -> ActionCommand:
    from airflow.cli.cli_config import ActionCommand, Arg, lazy_load_command

    return ActionCommand(
        name="init",
        help="Write the DAGs of a level and a small project for your own data into a dags folder",
        func=lazy_load_command(f"{_SKELETON}.init"),
        args=(
            Arg(("folder",), help="The dags folder", metavar="TARGET"),
            Arg(("--level",), help="MLOps level; it has the levels below it (default: 1)", type=int, default=1),
            Arg(("--data",), help="Your CSV or Parquet: a file, folder, glob or s3:// URI (default: the project's)"),
            Arg(("--target",), help="The column to predict (default: the project's)", metavar="COLUMN"),
            Arg(("--name",), help="Name of project, model and DAG (default: the file's)"),
            *common,
        ),
    )


def _reap_command(common: tuple[Arg, ...]) -> ActionCommand:
    from airflow.cli.cli_config import ActionCommand, Arg, lazy_load_command

    return ActionCommand(
        name="reap",
        help="Show or remove the containers of steps that nobody will come back for",
        func=lazy_load_command(f"{_CONTAINERS}.reap"),
        args=(
            Arg(("--delete",), help="Remove them; without this nothing changes", action="store_true"),
            Arg(
                ("--grace",),
                help="Touch none younger than this; longer than a retry is put off (default: 1d)",
                default="1d",
            ),
            Arg(("--running",), help="Those that run too, once older than the grace period", action="store_true"),
            Arg(("--kept",), help="Those too that runtime['auto_remove'] kept for people", action="store_true"),
            Arg(("--dag",), help="Of this DAG alone", metavar="DAG_ID"),
            Arg(("--docker-conn-id",), help="Connection of type docker (default: docker_default)"),
            *common,
        ),
    )


def _serve_command(common: tuple[Arg, ...]) -> ActionCommand:
    from airflow.cli.cli_config import ActionCommand, Arg, lazy_load_command

    return ActionCommand(
        name="serve",
        help="Serve the models that are deployed on this machine, behind one gateway, until it is stopped",
        func=lazy_load_command(f"{_SERVING}.serve"),
        args=(
            Arg(("--host",), help="Address that the gateway listens at (default: 127.0.0.1)", default="127.0.0.1"),
            Arg(("--port",), help="Its port (default: 8600)", type=int, default=8600),
            Arg(("--timeout",), help="Seconds that a model may take to answer (default: 60)", type=int, default=60),
            Arg(("--key",), help="Header that says whose a request is (default: X-Key)", default="X-Key"),
            *common,
        ),
    )
