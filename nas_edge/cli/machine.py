"""Commands about this machine and what is installed: doctor, completion, spaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from nas_edge.cli import completion
from nas_edge.cli.base import Command, Group, print_checks, print_table, tell_watching, watch_option
from nas_edge.cli.options import HARDWARE_HELP
from nas_edge.networks.precisions import PRECISIONS


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def print_completion(shell: str) -> None:
    """Prints what makes a SHELL complete at TAB.

    Completed are commands, options, devices and runs.

    \b
    Put this into ~/.bashrc:                      eval "$(nas-edge completion bash)"
    or into ~/.zshrc:                             eval "$(nas-edge completion zsh)"
    or, for fish:  nas-edge completion fish > ~/.config/fish/completions/nas-edge.fish
    """  # noqa: D301 - click wants the control character, not its name
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(
        complete(click.get_current_context().find_root().command, {}, "nas-edge", "_NAS_EDGE_COMPLETE").source(),
        nl=False,
    )


@click.command(cls=Command)
@watch_option
@click.option("--json", "as_json", is_flag=True, help="For other programs.")
def doctor(watch_s: float | None, as_json: bool) -> int:
    """Checks whether this machine is ready, and how quiet it is for measuring.

    Where it is not, says what to do.
    """
    from device_agents.noise import WATCH_S
    from nas_edge.doctor import examine

    watch_s = WATCH_S if watch_s is None else watch_s
    tell_watching(watch_s)
    return print_checks(examine(Path.cwd(), watch_s=watch_s), as_json)


class _Spaces(Group):
    """The group `spaces`, after which the name of a space is short for `show` and it."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in self.commands and not args[0].startswith("-"):
            return "show", self.commands["show"], args
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Its commands, and the spaces."""
        return [*super().shell_complete(ctx, incomplete), *completion.spaces(ctx, ctx.command.params[0], incomplete)]


@click.group(cls=_Spaces, invoke_without_command=True)
@click.pass_context
def spaces(context: click.Context) -> None:
    """Lists the search spaces, or the decisions of one: `nas-edge spaces NAME`."""
    if context.invoked_subcommand is not None:
        return
    from nas_edge.spaces import SPACES, network_space_names
    from nas_edge.spaces.published import REFERENCE_NETWORKS

    rows = [("SPACE", "DECISIONS", "ARCHITECTURES", "DISTINCT")]
    for found in network_space_names():
        entry = SPACES.entries[found]  # not `find_space`, which refuses a name that another package offers too
        space = entry.make(entry.settings.model_validate({"name": found, "input_size": 224}), 1001, 3)
        sizes = (f"{float(space.size):.3e}", f"{float(space.distinct_size):.3e}")
        rows.append((space.name, str(len(space.decisions)), *sizes))
    print_table(rows)
    if plugins := SPACES.plugins.plugins():
        click.echo("\nOf other packages (loaded when named):")
        print_table([(f"  {plugin.name}", plugin.origin) for plugin in plugins])
    click.echo(f"\nReference networks: {', '.join(REFERENCE_NETWORKS)}")


@spaces.command("show")
@click.argument("name", shell_complete=completion.spaces)
def show_space(name: str) -> None:
    """Lists the decisions of the space NAME."""
    from nas_edge.spaces import SPACES

    rows = [("#", "DECISION", "KIND", "CHOICES")]
    for i, decision in enumerate(SPACES.make(SPACES.settings(name), 1001, 3).decisions):
        rows.append((str(i), decision.path, decision.kind, " ".join(map(str, decision.choices))))
    print_table(rows)


@spaces.command("check")
@click.argument("name", shell_complete=completion.spaces)
@click.option("--hardware", required=True, metavar="NAME", shell_complete=completion.hardware, help=HARDWARE_HELP)
@click.option("--precision", type=click.Choice(list(PRECISIONS)), default="int8", show_default=True)
def check_space(name: str, hardware: str, precision: str) -> int:
    """Says which choices of the space NAME do not fit some hardware, and what remains without them.

    The exit code is 1 if some cannot run there. A search with --hardware leaves them out.
    """
    from nas_edge.errors import SpaceError
    from nas_edge.hardware import find_hardware
    from nas_edge.hardware.lint import fit_space, lint_space
    from nas_edge.spaces import SPACES
    from nas_edge.spaces.decisions import NetworkSpace

    profile = find_hardware(hardware)
    space = SPACES.make(SPACES.settings(name), 1001, 3)
    if not isinstance(space, NetworkSpace):
        raise SpaceError(f"{name} is not a space of networks, so there is nothing to run on {hardware}")
    problems = lint_space(space, profile, precision)
    click.echo(f"{space.name} for {profile.name} ({profile.what}), {precision}:")
    if not problems:
        click.echo("every choice fits")
        return 0
    groups: dict[tuple[str, str, str], dict[str, int]] = {}
    for problem in problems:
        values = groups.setdefault(("slow" if problem.runs else "cannot run", problem.operator, problem.why), {})
        where = problem.value or "in every network"
        values[where] = values.get(where, 0) + 1
    rows = [
        (kind, operator, ", ".join(f"{value} ({count})" for value, count in values.items()), why)
        for (kind, operator, why), values in groups.items()
    ]
    print_table([("", "OPERATOR", "CHOICES (DECISIONS)", "WHY"), *rows])
    fitted = fit_space(space, profile, precision)
    sizes = f"{float(fitted.space.size):.3e} of {float(space.size):.3e} architectures"
    click.echo(f"\nWith --hardware {hardware}, a search takes it {', '.join(fitted.changes)}: {sizes}")
    return int(any(not problem.runs for problem in problems))
