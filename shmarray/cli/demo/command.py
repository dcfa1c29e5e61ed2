"""`shmarray demo`: the options, the order of the steps, the exit status.

Everything heavy is imported inside, so that `shmarray --help` stays quick and a missing matplotlib is told
before anything is allocated.
"""

from __future__ import annotations

from pathlib import Path

import click

from shmarray.cli.options import ByteSize, namespace_option

__all__ = ["demo"]

_LEAST = 8_000_000
_SIZES = {"small": 32_000_000, "full": 400_000_000}


@click.command()
@click.option(
    "--nbytes",
    type=ByteSize(_SIZES),
    default="full",
    show_default="400MB",
    metavar="SIZE",
    help="Size of the terrain: 400MB, 1.5GiB, a number of bytes, 'full' (400 MB) or 'small' (32 MB). "
    "Less is used where less memory is free.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("shmarray-demo.png"),
    show_default=True,
    help="Where to write the picture, a PNG.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Lanes to use instead of one for each core this process may use.",
)
@namespace_option
@click.pass_context
def demo(context: click.Context, nbytes: int, out: Path, workers: int | None) -> None:
    """Process real terrain end to end: convert, shade, reduce, share, survive a kill.

    Every step is checked and timed beside NumPy and numba's threads; the exit status is 0 only if all checks
    held.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise click.ClickException(
            "the demo needs matplotlib, for the terrain and the picture; "
            'install it with: pip install "shmarray-engine[demo]"'
        ) from None
    if nbytes < _LEAST:
        raise click.BadParameter("less than 8 MB is done before a worker can be killed in it", param_hint="--nbytes")
    out = out.absolute()
    if not out.parent.is_dir():
        raise click.BadParameter(f"there is no folder {out.parent}", param_hint="--out")
    if out.suffix.lower() != ".png":
        raise click.BadParameter(f"the picture is a PNG; got {out.name!r}: end the name in .png", param_hint="--out")

    from shmarray.configuration import config

    if workers is not None:
        context.with_resource(config.override(workers=workers))
    if not _run(nbytes, out):
        raise click.exceptions.Exit(1)


def _run(nbytes: int, out: Path) -> bool:
    """Run every step; whether all checks held."""
    from rich.console import Console

    from shmarray.cli.demo import steps
    from shmarray.cli.demo.data import load_terrain, plan_mosaic
    from shmarray.cli.demo.report import Report
    from shmarray.cli.rendering import format_nbytes

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    report = Report(console)
    before = steps.names_now()
    terrain = load_terrain()
    rows, columns = terrain.metres.shape
    report.say(
        f"terrain: {rows} x {columns} cells of {terrain.cell_x_m:.0f} x {terrain.cell_y_m:.0f} m "
        "around the Jacksboro fault, Tennessee (SRTM, whole metres)"
    )
    plan = plan_mosaic((rows, columns), nbytes, steps.free_nbytes())
    fit = "reduced to fit into" if plan.reduced else "fits into"
    report.say(
        f"mosaic:  {plan.shape[0]} x {plan.shape[1]} float32, {format_nbytes(plan.nbytes)} of the "
        f"{format_nbytes(nbytes)} asked for: {fit} {format_nbytes(plan.free_nbytes)} of free shared memory"
    )
    with steps.Stage(terrain, plan, report) as stage:
        stage.build()
        stage.copy()
        stage.convert()
        stage.derive()
        stage.statistics()
        stage.neighbour()
        stage.draw(out)
        stage.kill()
        lanes = stage.lanes
    report.print_table(lanes)
    steps.left_behind(report, before)
    report.print_checks()
    return report.all_held
