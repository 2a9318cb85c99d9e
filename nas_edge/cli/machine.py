"""Commands about this machine and what is installed: doctor, completion, spaces."""

from __future__ import annotations

from pathlib import Path

import click

from nas_edge.cli import completion
from nas_edge.cli.base import Command, print_checks, print_table, tell_watching, watch_option


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


@click.command(cls=Command)
@click.argument("name", required=False, shell_complete=completion.spaces)
def spaces(name: str | None) -> None:
    """Lists the search spaces, or the decisions of one."""
    from nas_edge.spaces import SPACES, network_space_names
    from nas_edge.spaces.published import REFERENCE_NETWORKS

    if name is not None:
        rows = [("#", "DECISION", "KIND", "CHOICES")]
        for i, decision in enumerate(SPACES.make(SPACES.settings(name), 1001, 3).decisions):
            rows.append((str(i), decision.path, decision.kind, " ".join(map(str, decision.choices))))
        print_table(rows)
        return
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
