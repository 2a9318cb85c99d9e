"""The plots, as Vega-Lite specifications: plain dicts that name tables and their columns.

Colours are `$names` of the page's CSS variables, one set for light and one for dark pages, after Okabe and Ito's
palette (jfly.uni-koeln.de/color), which people with any colour vision can tell apart. What matters differs in shape,
too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from nas_edge.report.content import Plot

Spec = dict[str, Any]

_STAR = "M0,-1.4L.41,-.56L1.33,-.43L.67,.21L.83,1.13L0,.7L-.83,1.13L-.67,.21L-1.33,-.43L-.41,-.56Z"
# Colour and shape of each series.
SERIES = {
    "trial": ("$muted", "circle"),
    "Pareto front": ("$blue", "circle"),
    "winner": ("$vermillion", _STAR),
    "best of random": ("$purple", "triangle-up"),
    "reference": ("$green", "square"),
    "finalists": ("$vermillion", "diamond"),
    "search": ("$blue", "circle"),
    "random": ("$purple", "triangle-up"),
    "within target": ("$blue", "circle"),
    "over target": ("$vermillion", "cross"),
}
# Axes need not start at 0, and no point lies on the edge.
_SCALE = {"zero": False, "nice": False, "padding": 14}
# How a network that matters is marked.
_MARKED = {"type": "point", "filled": True, "size": 190, "opacity": 1, "stroke": "$page", "strokeWidth": 1}
# Trials with a latency that can be relied on.
_TIMED = {"filter": "isValid(datum.latency_ms)"}
_POINT = {"type": "point", "filled": True, "size": 28, "opacity": 0.5}


@dataclass(frozen=True)
class Axes:
    """What latencies and qualities are, and how they are written.

    Attributes:
        latency: for example `measured latency`.
        latency_form: format of latencies in ms.
        quality: for example `accuracy with shared weights`.
        quality_form: format of qualities.
    """

    latency: str
    latency_form: str
    quality: str
    quality_form: str

    def x(self, field: str = "latency_ms") -> Spec:
        """Latency."""
        return _number(field, f"{self.latency} (ms)")

    def y(self) -> Spec:
        """Quality."""
        return _number("quality", self.quality, form=_tick_form(self.quality_form))

    def hover(self) -> list[Spec]:
        """What a tooltip says of a network."""
        return [
            _hover("latency_ms", "ms", self.latency_form),
            _hover("latency_kind", "latency is"),
            _hover("low_ms", "95% from, ms", self.latency_form),
            _hover("high_ms", "95% to, ms", self.latency_form),
            _hover("quality", "quality", self.quality_form),
            _hover("verdict", "verdict"),
        ]


def pareto(axes: Axes, target_ms: float | None, scored: Sequence[str], unscored: Sequence[str]) -> Plot:
    """Quality vs. latency of all trials with both, and of the networks in the table `marked`.

    Args:
        axes: of the trials.
        target_ms: None when there is none yet.
        scored: the members of `SERIES` that have a quality in that table.
        unscored: those that have none.
    """
    looks = _looks(["trial", "Pareto front", *scored, *unscored])
    layers = _trial_layers(axes, looks)
    if target_ms is not None:
        layers += _target_line(target_ms)
    layers += _marked_layers(axes, looks, bool(scored), bool(unscored))
    return Plot(
        "pareto",
        f"Quality vs. {axes.latency}",
        "The line connects the Pareto-optimal trials."
        + f" The reference network has no {axes.quality}, so it is drawn at the bottom." * bool(unscored),
        f"Scatter plot of all trials with a latency: {axes.latency} on the x axis, {axes.quality} on the y axis. A "
        "line connects the Pareto front, other trials are grey; the target and the chosen networks are marked.",
        {"layer": layers, "height": 400},
    )


def _trial_layers(axes: Axes, looks: Spec) -> list[Spec]:
    """The trials as points, and a line along their front."""
    where = {"x": axes.x(), "y": axes.y()}
    facts = [*axes.hover(), _hover("reward", "reward", ".4f"), _hover("architecture", "architecture")]
    trials = {"name": "trials"}
    front = [_where("series", "Pareto front")]
    line = {"type": "line", "interpolate": "step-after", "color": "$blue", "strokeWidth": 1.5, "opacity": 0.7}
    on_front = {"test": "datum.series === 'Pareto front'"}
    points = {
        "size": {"condition": {**on_front, "value": 80}, "value": 28},
        "opacity": {"condition": {**on_front, "value": 1}, "value": 0.5},
        "order": {"field": "series", "type": "nominal", "sort": "descending"},  # the front is drawn last
    }
    return [
        {
            "data": trials,
            "transform": [_TIMED],
            "mark": {"type": "point", "filled": True},
            "encoding": {**where, **looks, **points, "tooltip": [_hover("step", "step"), *facts]},
        },
        {"data": trials, "transform": front, "mark": line, "encoding": where},
    ]


def _marked_layers(axes: Axes, looks: Spec, scored: bool, unscored: bool) -> list[Spec]:
    """The networks that matter; one from outside the space has no quality and is drawn at the bottom."""
    data, facts = {"name": "marked"}, [_hover("name", "network"), *axes.hover()]
    layers: list[Spec] = []
    if scored:
        layers.append(
            {
                "data": data,
                "transform": [{"filter": "datum.quality !== null"}],
                "mark": _MARKED,
                "encoding": {"x": axes.x(), "y": axes.y(), **looks, "tooltip": facts},
            }
        )
    if unscored:
        layers.append(
            {
                "data": data,
                "transform": [{"filter": "datum.quality === null"}],
                "mark": {**_MARKED, "yOffset": -9},
                "encoding": {"x": axes.x(), "y": {"value": "height"}, **looks, "tooltip": facts},
            }
        )
    return layers


def delivered(
    target_ms: float, form: str, accuracy: str, accuracy_form: str, names: Sequence[str], precisions: Collection[str]
) -> Plot:
    """Test accuracy vs. latency of the trained networks, in each precision.

    Args:
        target_ms: what was asked for.
        form: format of latencies.
        accuracy: what it is, for example `test accuracy`.
        accuracy_form: its format.
        names: the members of `SERIES` that are there.
        precisions: those that are there.
    """
    where = {
        "x": _number("latency_ms", "measured latency (ms)"),
        "y": _number("accuracy", accuracy, form=_tick_form(accuracy_form), scale={**_SCALE, "padding": 24}),
    }
    looks = _looks(names)
    facts = [
        _hover("name", "network"),
        _hover("precision", "precision"),
        _hover("latency_ms", "ms", form),
        _hover("low_ms", "95% from, ms", form),
        _hover("high_ms", "95% to, ms", form),
        _hover("accuracy_text", accuracy),
        _hover("verdict", "verdict"),
    ]
    data = {"name": "delivered"}
    quantized = next((precision for precision in precisions if precision != "float32"), "quantised")
    layers: list[Spec] = [
        {
            "data": data,
            "transform": [_where("precision", precision)],
            "mark": {"type": "point", "filled": precision != "float32", "size": 190, "strokeWidth": 2, "opacity": 1},
            "encoding": {**where, **looks, "tooltip": facts},
        }
        for precision in precisions
    ]
    layers += _target_line(target_ms)
    return Plot(
        "delivered",
        f"Trained networks: {accuracy} vs. measured latency",
        f"Filled: {quantized}. Hollow: float.",
        f"Scatter plot of the delivered network and its baselines, each as {quantized} and as float: measured "
        f"latency on the x axis, {accuracy} on the y axis.",
        {"layer": layers, "height": 280},
    )


def target_hits(axes: Axes) -> Plot:
    """Latency over target of every trial with a latency."""
    looks = _looks(["within target", "over target"], "hit")
    facts = [_hover("step", "step"), *axes.hover(), _hover("of_target", "of target", ".1%")]
    points = {
        "data": {"name": "trials"},
        "transform": [_TIMED],
        "mark": _POINT,
        "encoding": {
            "x": _number("step", "search step"),
            "y": _number("of_target", f"{axes.latency}, % of target", form=".0%"),
            **looks,
            "tooltip": facts,
        },
    }
    return Plot(
        "target_hits",
        f"{axes.latency[:1].upper()}{axes.latency[1:]} of each trial relative to the target",
        "",
        "Scatter plot: search steps on the x axis, latency relative to the target on the y axis, a line at 100%.",
        {"layer": [points, *_target_line(1.0, "y")], "height": 240},
    )


def rolling_hits(window: int) -> Plot:
    """Share of recent trials within the target."""
    line = {
        "data": {"name": "trials"},
        "transform": [_TIMED],
        "mark": {"type": "line", "color": "$blue", "strokeWidth": 2},
        "encoding": {
            "x": _number("step", "search step"),
            "y": _number("rolling_hits", "share within target", form=".0%", scale={"domain": [0, 1]}),
            "tooltip": [_hover("step", "step"), _hover("rolling_hits", "within target", ".0%")],
        },
    }
    return Plot(
        "rolling_hits",
        f"Share of the last {window} trials with a latency that were within the target",
        "",
        "Line plot: search steps on the x axis, the share of recent trials within the target on the y axis.",
        {"layer": [line], "height": 170},
    )


def over_steps(column: str, title: str, unit: str, form: str) -> Plot:
    """One condition of the device at each trial."""
    points = {
        "data": {"name": "trials"},
        "transform": [{"filter": f"datum.{column} !== null"}],
        "mark": {**_POINT, "color": "$blue"},
        "encoding": {
            "x": _number("step", "search step"),
            "y": _number(column, unit),
            "tooltip": [_hover("step", "step"), _hover(column, title, "" if form == "d" else form)],
        },
    }
    return Plot(
        column,
        title,
        "",
        f"Scatter plot: search steps on the x axis, {title.lower()} on the y axis.",
        {"layer": [points], "height": 150},
    )


def confidence(decisions: int) -> Plot:
    """Probability of the most likely choice of each decision, over the steps."""
    cells = {
        "data": {"name": "policy"},
        "transform": [_where("rank", 0)],
        "mark": {"type": "rect"},
        "encoding": {
            "x": {"field": "step", "type": "ordinal", "title": "search step", "axis": {"labelAngle": 0}},
            "y": {"field": "decision", "type": "ordinal", "title": None, "sort": None, "axis": {"labelLimit": 130}},
            "color": {
                "field": "probability",
                "type": "quantitative",
                "scale": {"scheme": "viridis", "domain": [0, 1]},
                "legend": {"title": "probability", "orient": "top", "format": ".0%", "gradientLength": 160},
            },
            "tooltip": [
                _hover("decision", "decision"),
                _hover("step", "step"),
                _hover("choice", "most likely"),
                _hover("probability", "probability", ".1%"),
            ],
        },
    }
    return Plot(
        "confidence",
        "Probability of each decision's most likely choice",
        "",
        "Heat map: search steps on the x axis, one row per decision; brighter is more certain.",
        {"layer": [cells], "height": 12 * decisions},
    )


def one_decision(decisions: Sequence[str]) -> Plot:
    """Probabilities of the choices of one decision, selected from a list."""
    choices = {"input": "select", "options": list(decisions), "name": "decision "}
    pick = {"name": "picked", "value": decisions[0], "bind": choices}
    facts = [_hover("choice", "choice"), _hover("step", "step"), _hover("probability", "probability", ".1%")]
    areas = {
        "data": {"name": "policy"},
        "transform": [{"filter": "datum.decision === picked"}],
        "mark": {"type": "area", "line": False},
        "encoding": {
            "x": _number("step", "search step"),
            "y": {
                "field": "probability",
                "type": "quantitative",
                "stack": "normalize",
                "title": "probability",
                "axis": {"format": ".0%"},
            },
            "order": {"field": "index"},
            "color": {
                "field": "choice",
                "type": "ordinal",
                "sort": {"field": "index", "op": "min"},
                "scale": {"scheme": "viridis"},
                "legend": {"title": "choice", "orient": "top"},
            },
            "tooltip": facts,
        },
    }
    return Plot(
        "one_decision",
        "One decision over time",
        "",
        "Stacked areas: search steps on the x axis, probabilities of the selected decision's choices on the y axis.",
        {"params": [pick], "layer": [areas], "height": 190},
    )


def prediction(form: str) -> Plot:
    """Predicted vs. measured latency of the half that the model was not fitted on."""
    data = {"name": "prediction"}
    axis = _number("measured_ms", "measured latency (ms)")
    points = {
        "data": data,
        "mark": {**_POINT, "color": "$blue"},
        "encoding": {
            "x": axis,
            "y": _number("predicted_ms", "predicted (ms)"),
            "tooltip": [_hover("measured_ms", "measured, ms", form), _hover("predicted_ms", "predicted, ms", form)],
        },
    }
    line = {
        "data": data,
        "mark": {"type": "line", "color": "$ink", "strokeDash": [6, 4], "strokeWidth": 1},
        "encoding": {"x": axis, "y": _number("measured_ms", "predicted (ms)")},
    }
    return Plot(
        "prediction",
        "Predicted vs. measured latency of architectures the model was not fitted on",
        "Points on the dashed line are predicted exactly.",
        "Scatter plot: measured latency on the x axis, predicted latency on the y axis; a dashed line marks equality.",
        {"layer": [line, points], "height": 300},
    )


def bars(table: str, label: str, value: str, title: str, heading: str) -> Plot:
    """A bar for each row of a table, the longest first.

    Args:
        table: its name, and that of the plot.
        label: column of what a bar stands for.
        value: column of its length.
        title: of the axis.
        heading: of the plot.
    """
    encoding = {
        "y": {"field": label, "type": "nominal", "title": None, "sort": "-x"},
        "x": {"field": value, "type": "quantitative", "title": title},
        "tooltip": [_hover(label, label), _hover(value, title, ".4g")],
    }
    spec = {"data": {"name": table}, "mark": {"type": "bar", "color": "$blue"}, "encoding": encoding}
    return Plot(table, heading, "", f"Bar chart: {title} of each {label}.", spec)


def columns(table: str, place: str, value: str, title: str, heading: str) -> Plot:
    """A column for each row of a table, in its order.

    Args:
        table: its name, and that of the plot.
        place: column of numbers, from left to right.
        value: column of its height; rows without one have none.
        title: of the axis.
        heading: of the plot.
    """
    encoding = {
        "x": {"field": place, "type": "ordinal", "title": place},
        "y": {"field": value, "type": "quantitative", "title": title},
        "tooltip": [_hover(place, place), _hover("operator", "operator"), _hover(value, title, ".4g")],
    }
    spec = {"data": {"name": table}, "mark": {"type": "bar", "color": "$blue"}, "encoding": encoding, "height": 200}
    return Plot(table, heading, "", f"Column chart: {title} by {place}.", spec)


def baseline(names: Sequence[str], quality: str, form: str) -> Plot:
    """Qualities of the search's and of random architectures, as ticks and box plots.

    Args:
        names: the members of `SERIES` that are there.
        quality: what it is, for example `accuracy with shared weights`.
        form: its format.
    """
    data = {"name": "baseline"}
    where = {
        "x": _number("quality", quality, form=_tick_form(form)),
        "y": {"field": "series", "type": "nominal", "title": None, "sort": list(names)},
    }
    colours = _looks(names)["color"] | {"legend": None}
    facts = [
        _hover("series", "series"),
        _hover("quality", "quality", form),
        _hover("latency_ms", "ms", ".4~r"),
        _hover("latency_kind", "latency is"),
    ]
    ticks = {
        "data": data,
        "mark": {"type": "tick", "thickness": 1.5, "opacity": 0.35, "size": 34},
        "encoding": {
            **where,
            "color": colours,
            "tooltip": facts,
        },
    }
    box = {
        "data": data,
        "mark": {
            "type": "boxplot",
            "extent": "min-max",
            "size": 16,
            "box": {"opacity": 0.35},
            "median": {"color": "$ink"},
            "rule": {"color": "$soft"},
        },
        "encoding": {**where, "color": colours},
    }
    return Plot(
        "baseline",
        "Quality of architectures within the target",
        "Each tick is an architecture; a box spans the interquartile range.",
        "Box plots with ticks, one row each for finalists, search and random architectures: quality on the x axis.",
        {"layer": [ticks, box], "height": 58 * len(names)},
    )


def fronts(table: str, winners: str | None, axes: Axes, runs: Sequence[str]) -> Plot:
    """The Pareto fronts of several runs.

    Args:
        table: holds the fronts.
        winners: the table that holds the winners, if there are any.
        axes: of the trials.
        runs: their names.
    """
    # More shapes than colours, so that their combinations repeat late.
    colours = [f"${name}" for name in ("blue", "vermillion", "green", "purple", "muted")]
    shapes = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]
    legend = {"title": None, "orient": "top", "columns": 3, "labelLimit": 260}
    series = {"field": "run", "type": "nominal", "legend": legend}
    encoding = {
        "x": axes.x(),
        "y": axes.y(),
        "color": {**series, "scale": {"domain": list(runs), "range": _cycled(colours, len(runs))}},
        "shape": {**series, "scale": {"domain": list(runs), "range": _cycled(shapes, len(runs))}},
    }
    facts = [
        _hover("run", "run"),
        _hover("latency_ms", "ms", axes.latency_form),
        _hover("latency_kind", "latency is"),
        _hover("quality", "quality", axes.quality_form),
    ]
    more = [_hover("step", "step"), _hover("architecture", "architecture")]
    layers: list[Spec] = [
        {"mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.5, "opacity": 0.7}},
        {"mark": {**_POINT, "opacity": 0.8}, "encoding": {"tooltip": [*facts, *more]}},
    ]
    if winners is not None:
        layers.append({"data": {"name": winners}, "mark": _MARKED, "encoding": {"tooltip": facts}})
    return Plot(
        table,
        f"Pareto fronts: quality vs. {axes.latency}",
        "" if winners is None else "The large marks are the winners, with their final latencies.",
        f"Lines and points, one colour and shape per run: {axes.latency} on the x axis, {axes.quality} on the y axis.",
        {"data": {"name": table}, "encoding": encoding, "layer": layers, "height": 380},
    )


# ---------------------------------------------------------------- parts


def _number(field: str, title: str, form: str = "", **more: Any) -> Spec:
    """A quantitative channel."""
    axis = {"axis": {"format": form}} if form else {}
    return {"field": field, "type": "quantitative", "title": title, "scale": _SCALE, **axis, **more}


def _tick_form(form: str) -> str:
    """The format of numbers along an axis, where values are written with `form`."""
    return ".0%" if form.endswith("%") else "~g"


def _looks(names: Sequence[str], field: str = "series") -> Spec:
    """Colour and shape by series, with one legend for both."""
    legend = {"title": None, "orient": "top", "symbolOpacity": 1, "columns": 3}
    colours = {"domain": list(names), "range": [SERIES[name][0] for name in names]}
    shapes = {"domain": list(names), "range": [SERIES[name][1] for name in names]}
    return {
        "color": {"field": field, "type": "nominal", "scale": colours, "legend": legend},
        "shape": {"field": field, "type": "nominal", "scale": shapes, "legend": legend},
    }


def _hover(field: str, title: str, form: str = "") -> Spec:
    """A line of a tooltip."""
    return {"field": field, "title": title, **({"format": form} if form else {})}


def _where(field: str, value: str | int) -> Spec:
    return {"filter": {"field": field, "equal": value}}


def _target_line(target: float, channel: str = "x") -> list[Spec]:
    """A dashed line at the target, with its name."""
    data = {"values": [{"target": target, "label": "target"}]}
    where = {channel: {"field": "target", "type": "quantitative"}}
    edge = {"y": {"value": 0}} if channel == "x" else {"x": {"value": 0}}
    text = {"type": "text", "align": "left", "dx": 5, "dy": 9 if channel == "x" else -8, "color": "$ink"}
    return [
        {"data": data, "mark": {"type": "rule", "strokeDash": [6, 4], "color": "$ink"}, "encoding": where},
        {"data": data, "mark": text, "encoding": {**where, **edge, "text": {"field": "label"}}},
    ]


def _cycled(values: Sequence[str], count: int) -> list[str]:
    return [values[i % len(values)] for i in range(count)]
