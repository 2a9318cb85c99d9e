"""What a finished run delivered, as far as a list or a selection tells of it."""

from __future__ import annotations

from dataclasses import dataclass

from nas_edge.errors import RunError
from nas_edge.runs.run import Run
from nas_edge.runs.untrusted import optional_number


@dataclass(frozen=True)
class DeliveredNetwork:
    """The winner, trained on its own.

    Attributes:
        architecture: its text form.
        accuracy: share of the test images, 0 to 1, in the precision delivered; None when it is not told.
        latency_ms: median of the delivered file, in milliseconds, whatever the verdict; None when it is not told.
        verdict: of that measurement.
    """

    architecture: str
    accuracy: float | None
    latency_ms: float | None
    verdict: str


def read_delivered(run: Run) -> DeliveredNetwork | None:
    """Reads the winner's few figures from `result.json`; None before the end.

    Raises:
        RunError: when it cannot be read.
    """
    if not run.finished:
        return None
    result = run.read_json("result.json")
    try:
        winner, precision = result["rows"][0], result["precision"]
        return DeliveredNetwork(
            architecture=str(winner["architecture"]),
            accuracy=optional_number(winner["accuracy"].get(precision), 0, 1),
            latency_ms=optional_number(result["latency_ms"], 0),
            verdict=str(winner["latency"][precision]["verdict"]),
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunError(f"{run.path('result.json')} is damaged: {error!r:.200}") from None
