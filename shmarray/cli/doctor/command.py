"""`shmarray doctor`: all checks, as a table or as JSON. Exit status 1 when something is wrong."""

from __future__ import annotations

import click

from shmarray.cli.doctor.finding import Finding, Verdict
from shmarray.cli.options import json_option, namespace_option
from shmarray.cli.rendering import echo_json, print_table

__all__ = ["doctor"]


@click.command()
@namespace_option
@json_option
def doctor(as_json: bool) -> None:
    """Look for what is wrong: memory, limits, leftovers, numba, the installation.

    Each finding comes with its remedy. Nothing is changed. The exit status is 1 when something is wrong.
    """
    from shmarray.configuration import config

    findings = _all_findings()
    bad = sum(finding.verdict is Verdict.WRONG for finding in findings)
    if as_json:
        echo_json(
            {
                "namespace": config.namespace,
                "wrong": bad,
                "findings": [
                    {"topic": one.topic, "verdict": one.verdict.value, "text": one.text, "remedy": one.remedy}
                    for one in findings
                ],
            }
        )
    else:
        from rich.markup import escape

        print_table(
            ["", "WHAT", "FOUND", "REMEDY"],
            [(_mark(one.verdict), escape(one.topic), escape(one.text), escape(one.remedy)) for one in findings],
        )
        click.echo("nothing is wrong" if not bad else f"{bad} {'thing is' if bad == 1 else 'things are'} wrong")
    if bad:
        raise click.exceptions.Exit(1)


def _all_findings() -> list[Finding]:
    from shmarray.cli.doctor.compilation import check_compilation
    from shmarray.cli.doctor.installation import check_installation
    from shmarray.cli.doctor.memory import check_memory
    from shmarray.cli.doctor.segments import check_segments

    return [*check_installation(), *check_memory(), *check_segments(), *check_compilation()]


def _mark(verdict: Verdict) -> str:
    # In square brackets what rich reads as a colour, on a terminal.
    colour = {Verdict.GOOD: "green", Verdict.NOTE: "yellow", Verdict.WRONG: "bold red"}[verdict]
    return f"[{colour}]{verdict.value}[/{colour}]"
