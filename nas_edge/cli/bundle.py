"""Commands about bundles: verify, show."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from nas_edge.cli import completion
from nas_edge.cli.base import PATH, Command, Group, check_new_file
from nas_edge.terminal import printable


@click.group(cls=Group)
def bundle() -> None:
    """Checks and shows what app teams receive."""


@bundle.command(cls=Command)
@click.argument("folder", type=PATH)
@click.option(
    "--device",
    default="host:",
    metavar="ADDRESS",
    shell_complete=completion.devices,
    help="Where to run the models; default: this machine.",
)
def verify(folder: Path, device: str) -> None:
    """Checks that FOLDER is as it was delivered, and that its models answer as recorded.

    Every file is checked against its hash, the hashes and `verify.py` included. The models are run in a process of
    their own, or on the device that is named. FOLDER may hold the bundles of several targets; then all are checked.
    """
    from device_agents.devices import open_device
    from nas_edge.export.bundle import replay_golden, verify_bundle
    from nas_edge.export.family import is_family, verify_family

    bundles = list(verify_family(folder).bundles.values()) if is_family(folder) else [verify_bundle(folder)]
    with open_device(device) as agent:
        where = agent.info().model
        for found in bundles:
            differences = replay_golden(found, agent.run)
            answers = ", ".join(f"{name} to within {difference:.3g}" for name, difference in differences.items())
            says = f"all files are unchanged; on {where} the models answer as recorded: {answers}"
            click.echo(printable(f"{found.folder}: {says}"))


@bundle.command(cls=Command)
@click.argument("folder", type=PATH)
@click.option("--out", type=PATH, help="Write the page to this new file instead of opening it in a browser.")
def show(folder: Path, out: Path | None) -> None:
    """Shows what is known of the models in FOLDER, as a page in the browser.

    FOLDER may hold the bundles of several targets; then the page compares them.
    """
    from nas_edge.export.bundle import verify_bundle
    from nas_edge.export.family import is_family, verify_family
    from nas_edge.report import to_page, write_file
    from nas_edge.report.bundle_page import bundle_report
    from nas_edge.report.family_page import family_report

    if out is not None:
        check_new_file(out)
    title = folder.resolve().name
    if is_family(folder):
        page = to_page(family_report(title, verify_family(folder).index))
    else:
        page = to_page(bundle_report(title, verify_bundle(folder).manifest))
    if out is not None:
        click.echo(write_file(out, page))
        return
    with tempfile.NamedTemporaryFile("w", prefix="bundle-", suffix=".html", delete=False, encoding="utf-8") as file:
        file.write(page)
    click.echo(file.name)
    click.launch(file.name)
