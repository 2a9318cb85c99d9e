"""Commands about devices: the list, set-up, doctor."""

from __future__ import annotations

from typing import Any

import click

from nas_edge.cli import completion
from nas_edge.cli.base import Group, print_checks, print_table


class _Devices(Group):
    """The group `devices`, after which many expect an address."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if ":" in args[0]:
            raise click.UsageError(f"to look at a device, run: nas-edge devices doctor {args[0]}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Devices, invoke_without_command=True)
@click.pass_context
def devices(context: click.Context) -> None:
    """Lists the devices that can be reached, and how to name others."""
    if context.invoked_subcommand is not None:
        return
    from device_agents.devices import list_devices, schemes

    found = list_devices()
    rows = [("ADDRESS", "KIND", "MODEL", "STATE", "DETAIL")]
    rows += [(row.address, row.kind, row.model, row.state, row.detail) for row in found]
    print_table(rows)
    for row in found:
        if row.fix:
            click.echo("\n" + click.wrap_text(f"{row.address}  fix: {row.fix}", 80, subsequent_indent="  "))
    click.echo("\nAddresses:")
    print_table([(f"  {scheme.form}", scheme.what) for scheme in schemes()])


@devices.command("setup")
@click.argument("address", shell_complete=completion.devices)
@click.option("--benchmark-model", "source", metavar="FILE|URL", help="TFLite's benchmark_model for the phone; https.")
@click.option("--sha256", metavar="HEX", help="What the SHA-256 of the tool must be.")
def set_up_device(address: str, source: str | None, sha256: str | None) -> None:
    """Installs what measuring needs on the phone at ADDRESS, and keeps it for other phones of its kind.

    \b
    Example:
      nas-edge devices setup adb: --benchmark-model android_aarch64_benchmark_model
    """  # noqa: D301 - click wants the control character, not its name
    from device_agents.android.address import SCHEMES, open_transport
    from device_agents.devices import parse_address

    scheme, _ = parse_address(address)
    if scheme not in SCHEMES:
        raise click.UsageError(f"only phones need setting up, adb:... addresses; received {address!r}")
    from device_agents.android.setup import set_up

    with open_transport(address) as transport:
        done = set_up(transport, source, sha256)
    identity = done.identity
    facts = (identity.soc, f"Android {identity.android}" if identity.android else "", identity.abi)
    rows = [
        ("phone", f"{identity.model or 'unknown'} ({', '.join(filter(None, facts))})"),
        ("tool", f"{done.source}, SHA-256 {done.tool.sha256}"),
        ("on the phone", done.tool.path),
        ("tried", f"runs the anchor model in {done.latency_ms:.3f} ms (one run, no measurement)"),
    ]
    if done.kept is not None:
        rows.append(("kept", f"{done.kept}, for every phone of ABI {identity.abi}"))
    print_table(rows)
    click.echo(f"\nNext: nas-edge devices doctor {address}")


@devices.command("doctor")
@click.argument("address", shell_complete=completion.devices)
@click.option("--json", "as_json", is_flag=True, help="For other programs.")
def examine_device(address: str, as_json: bool) -> int:
    """Checks whether the device at ADDRESS is fit to be measured, and says what to do where it is not."""
    from device_agents.doctor import examine

    return print_checks(examine(address), as_json)
