"""``python -m airflow_mlops``: the commands of ``airflow mlops`` for Airflow 3.1, which reads none of a provider."""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

import argparse


def parser() -> argparse.ArgumentParser:
    """Return the parser of the commands that ``airflow mlops`` has, which imports none of them."""
    # Before anything else of Airflow's, which would meet it half made.
    from airflow import configuration  # noqa: F401
    from airflow.cli.cli_config import ActionCommand, GroupCommand

    from airflow_mlops.cli.definition import get_mlops_cli_commands

    (group,) = get_mlops_cli_commands()
    assert isinstance(group, GroupCommand)
    found = argparse.ArgumentParser(prog="python -m airflow_mlops", description=group.help)
    commands = found.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for command in group.subcommands:
        assert isinstance(command, ActionCommand)
        one = commands.add_parser(command.name, help=command.help, description=command.help)
        for argument in command.args:
            argument.add_to_parser(one)
        one.set_defaults(func=command.func)
    return found


def main(words: list[str] | None = None) -> None:
    """Run a command as ``airflow mlops`` would."""
    arguments = parser().parse_args(words)
    arguments.func(arguments)


if __name__ == "__main__":
    main()
