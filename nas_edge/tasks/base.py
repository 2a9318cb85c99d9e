"""`Task`: what the networks of a run are for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.settings import ChoiceSettings

if TYPE_CHECKING:
    import numpy as np

    from nas_edge.data.preprocessing import Augmentation, Preprocessing
    from nas_edge.data.settings import DataSettings
    from nas_edge.data.sources import Dataset
    from nas_edge.data.splits import Split


class TaskSettings(ChoiceSettings):
    """The settings of any task.

    Attributes:
        name: of the task.
    """

    name: str


@dataclass(frozen=True)
class TaskData:
    """A dataset, how it is split, and how its pixels become inputs."""

    dataset: Dataset
    split: Split
    preprocessing: Preprocessing
    augmentation: Augmentation

    def arrays(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[Any, Any]:
        """Inputs float32 `[n, size, size, channels]` and their targets, in order."""
        import numpy as np

        from nas_edge.data.preprocessing import in_order

        batches = list(in_order(self.dataset, indices, 256, self.preprocessing))
        return np.concatenate([images for images, _ in batches]), np.concatenate([targets for _, targets in batches])

    @property
    def training_indices(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Images that train a network outside the search.

        Once the architecture is chosen, those it was chosen with may teach it; the test images stay unseen.
        """
        import numpy as np

        return np.sort(np.concatenate([self.split.train, self.split.validation]))


class Task(ABC):
    """What the networks of a run are for.

    Args:
        settings: of the task.

    Attributes:
        delivers: whether a run ends with a trained network; otherwise with the architecture that was found.
    """

    delivers: bool = True

    def __init__(self, settings: TaskSettings) -> None:
        self.settings = settings

    @abstractmethod
    def load(self, settings: DataSettings, input_size: int, seed: int) -> TaskData | None:
        """Opens and splits the data; None for a task without any.

        Raises:
            DataError: when it cannot be used.
        """

    @abstractmethod
    def outputs(self, data: TaskData | None) -> int:
        """How many numbers a network gives for one input."""

    def describe(self, settings: DataSettings, data: TaskData) -> str:
        """One line that lets a user see that this is the data they meant."""
        parts = data.split
        train, validation, test = (len(part) for part in (parts.train, parts.validation, parts.test))
        return (
            f"data {settings.source}: {train + validation + test} images; {train} to train with, {validation} to score "
            f"architectures, {test} to test"
        )
