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
    their own, or on the device that is named.
    """
    from device_agents.devices import open_device
    from nas_edge.export.bundle import replay_golden, verify_bundle

    found = verify_bundle(folder)
    with open_device(device) as agent:
        differences = replay_golden(found, agent.run)
        where = agent.info().model
    answers = ", ".join(f"{name} to within {difference:.3g}" for name, difference in differences.items())
    click.echo(printable(f"{folder}: all files are unchanged; on {where} the models answer as recorded: {answers}"))


@bundle.command(cls=Command)
@click.argument("folder", type=PATH)
@click.option("--out", type=PATH, help="Write the page to this new file instead of opening it in a browser.")
def show(folder: Path, out: Path | None) -> None:
    """Shows what is known of the models in FOLDER, as a page in the browser."""
    from nas_edge.export.bundle import verify_bundle
    from nas_edge.report import to_page, write_file
    from nas_edge.report.bundle_page import bundle_report

    if out is not None:
        check_new_file(out)
    found = verify_bundle(folder)
    page = to_page(bundle_report(folder.resolve().name, found.manifest))
    if out is not None:
        click.echo(write_file(out, page))
        return
    with tempfile.NamedTemporaryFile("w", prefix="bundle-", suffix=".html", delete=False, encoding="utf-8") as file:
        file.write(page)
    click.echo(file.name)
    click.launch(file.name)
