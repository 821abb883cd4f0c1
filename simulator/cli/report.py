"""`abtest report`: rebuild the report of a run or a log, from the log alone."""

from __future__ import annotations

from pathlib import Path

import click

from simulator.cli.failure import failures


@click.command()
@click.argument("source", metavar="RUN_OR_LOG", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the report; the run's own if left out.")
@click.option("--quiet", is_flag=True, help="Print nothing but the path of the page.")
def report(source: Path, out: Path | None, quiet: bool) -> None:
    """Rebuild report.json, report.md and report.html of RUN_OR_LOG: a run's folder, or an event log (a .parquet file or a folder of parts).

    \b
    abtest report runs/kuaishou_like/latest
    abtest report log.parquet --out report
    """
    from simulator import report as reports
    from simulator.report.terminal import show

    with failures():
        log, home = reports.find(source)
        folder = out or home
        content = reports.write(log, folder, runtime=reports.runtime(home))
        if not quiet:
            show(content)
        click.echo(folder / "report.html")
