"""The commands and their arguments. Every ``airflow`` command imports this, so it imports nothing else of ours."""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand

_COMMANDS = "airflow_mlops.cli.commands"


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
    mlflow = Arg(("--mlflow-conn-id",), help="Connection of type mlflow (default: the configured back end)")
    store = Arg(("--store-conn-id",), help="Connection of the store (default: the configured back end)")
    common = (mlflow, store, ARG_OUTPUT, ARG_VERBOSE)
    return [
        GroupCommand(
            name="mlops",
            help="Registered models: what serves, how it came to, and promotion by hand",
            subcommands=(
                ActionCommand(
                    name="status",
                    help="Show which version each alias points at, and whether the ledger agrees",
                    func=lazy_load_command(f"{_COMMANDS}.status"),
                    args=(optional_name, *common),
                ),
                ActionCommand(
                    name="history",
                    help="Show every entry of a model's ledger",
                    func=lazy_load_command(f"{_COMMANDS}.history"),
                    args=(name, *common),
                ),
                ActionCommand(
                    name="promote",
                    help="Point an alias at a version",
                    func=lazy_load_command(f"{_COMMANDS}.promote"),
                    args=(name, version, alias, reason, expected, by, waive, *common),
                ),
            ),
        )
    ]
