"""Commands about devices: the list, set-up, doctor, cleaning."""

from __future__ import annotations

import textwrap
from typing import Any

import click

from nas_edge.cli import completion
from nas_edge.cli.base import Command, Group, print_checks, print_table, tell_watching, watch_option
from nas_edge.formatting import command
from nas_edge.terminal import printable


class _Devices(Group):
    """The group `devices`, after which many expect an address."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if ":" in args[0]:
            raise click.UsageError(f"to look at a device, run: {command('devices', 'doctor', args[0])}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Devices, invoke_without_command=True)
@click.option("--at", metavar="ADDRESS", help="List those of another host, for example ssh://HOST.")
@click.pass_context
def devices(context: click.Context, at: str | None) -> None:
    """Lists the devices that can be reached, and how to name others."""
    if context.invoked_subcommand is not None:
        if at is not None:
            raise click.UsageError("--at is for the list alone; name the device as that list does", context)
        return
    from device_agents.devices import list_devices, schemes

    found = list_devices(at)
    rows = [("ADDRESS", "KIND", "MODEL", "STATE", "DETAIL")]
    rows += [(row.address, row.kind, row.model, row.state, row.detail) for row in found]
    print_table(rows)
    for row in found:
        if row.fix:
            # Addresses and commands are to be copied, so no word is broken.
            fix = textwrap.fill(
                f"{row.address}  fix: {row.fix}",
                80,
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            click.echo(f"\n{fix}")
    click.echo("\nAddresses:")
    print_table([(f"  {scheme.form}", scheme.what) for scheme in schemes()])


_OPTIONS = f"{__name__}.setup"


class _SetUp(Command):
    """`devices setup`, whose options are those of the device schemes."""

    def _options(self) -> list[click.Parameter]:
        from device_agents.schemes import loaded_schemes

        setups = [scheme.setup for scheme in loaded_schemes()]
        options = {option.name: option for setup in setups if setup is not None for option in setup.options}
        return [click.Option([f"--{o.name}"], metavar=o.metavar, help=o.help) for o in options.values()]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Its own, and those of the schemes."""
        own, inherited = self.params, super().get_params(ctx)[len(self.params) :]
        # Made once for each command line: what the parser knows and what is processed must be the same objects.
        options = ctx.meta.setdefault(_OPTIONS, []) or self._options()
        ctx.meta[_OPTIONS] = options
        return [*own[:-1], *options, *own[-1:], *inherited]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples of the schemes that have one."""
        from device_agents.schemes import loaded_schemes

        setups = [scheme.setup for scheme in loaded_schemes()]
        examples = dict.fromkeys(setup.example for setup in setups if setup is not None and setup.example)
        if examples:
            with formatter.section("Examples"):
                for example in examples:
                    formatter.write_text(f"{ctx.command_path} {example}")


@devices.command("setup", cls=_SetUp)
@click.argument("address", shell_complete=completion.devices)
def set_up_device(address: str, **options: str | None) -> None:
    """Installs what measuring needs on the device at ADDRESS, and keeps it for others of its kind.

    Which options a device takes depends on its kind.
    """
    from device_agents.devices import set_up_device as set_up

    given = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    print_table([*set_up(address, given)])
    click.echo(f"\nNext: {command('devices', 'doctor', address)}")


@devices.command("doctor")
@click.argument("address", shell_complete=completion.devices)
@watch_option
@click.option("--json", "as_json", is_flag=True, help="For other programs.")
def examine_device(address: str, watch_s: float | None, as_json: bool) -> int:
    """Checks whether the device at ADDRESS is fit to be measured, and says what to do where it is not.

    Says how quiet it is, too, what that means for a search, and what is kept of it.
    """
    from device_agents.doctor import examine
    from device_agents.noise import WATCH_S

    watch_s = WATCH_S if watch_s is None else watch_s
    tell_watching(watch_s)
    return print_checks(examine(address, watch_s), as_json)


@devices.command("clean")
@click.argument("address", shell_complete=completion.devices)
def clean_device(address: str) -> None:
    """Removes what stays on the device at ADDRESS for measuring, and what is kept about it.

    Whatever is needed again is put there again by the next measurement.
    """
    from device_agents.devices import clean_device as clean
    from device_agents.devices import scheme_of

    removed = clean(address)
    if removed is None:
        scheme, _ = scheme_of(address)
        click.echo(f"nothing stays on {scheme.name}: devices ({scheme.what})")
    elif not removed:
        click.echo(f"nothing is kept for {address}")
    for line in removed or ():
        click.echo(f"removed  {printable(line)}")
