"""The report of one run, section by section.

Each section is a function of the facts. An unfinished run has the same sections, where they have content.
"""

from __future__ import annotations

from nas_edge.errors import NasEdgeError
from nas_edge.hardware.lint import space_for
from nas_edge.joint import joint_space
from nas_edge.report import conditions, result_sections, search_sections
from nas_edge.report.content import Report
from nas_edge.report.convergence import convergence_section
from nas_edge.report.front_section import front_section
from nas_edge.report.headline import headline, tiles
from nas_edge.report.reading import RunFacts
from nas_edge.spaces import SPACES
from nas_edge.spaces.decisions import SearchSpace
from nas_edge.tasks import TASKS
from nas_edge.tasks.base import with_head


def run_report(facts: RunFacts) -> Report:
    """The report of a run as it is now."""
    space = _space(facts)
    sections = (
        result_sections.result_section(facts),
        search_sections.search_section(facts),
        front_section(facts),
        result_sections.halving_section(facts),
        search_sections.drawing_section(facts, space),
        convergence_section(facts, space),
        search_sections.target_section(facts),
        conditions.device_section(facts),
        search_sections.failures_section(facts),
        search_sections.prediction_section(facts, space),
        result_sections.precision_section(facts),
        result_sections.baseline_section(facts),
        conditions.conditions_section(facts),
        conditions.settings_section(facts),
        search_sections.trials_section(facts),
    )
    return Report(
        facts.name,
        facts.state,
        headline(facts),
        tiles(facts),
        tuple(s for s in sections if s is not None),
    )


def _space(facts: RunFacts) -> SearchSpace | None:
    """The run's search space; None when it comes from a package that is not installed here."""
    # Defaults until they are known: they change only the first and the last layer.
    channels, classes = facts.ends or (3, 10)
    try:
        made = with_head(SPACES.make(facts.config.space, classes, channels), TASKS.make(facts.config.task))
        fitted, _ = space_for(made, facts.config.export.profile, facts.config.export.precision)
        space = joint_space(facts.config.joint, fitted)
        for trial in facts.trials[:1]:
            space.parse(trial.architecture)
    except NasEdgeError:  # or a table that was moved away
        return None
    return space
