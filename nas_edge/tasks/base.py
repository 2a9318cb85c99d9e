"""`Task`: what the networks of a run are for. `NetworkTask`: one whose networks are trained and delivered.

What a network's outputs mean, how far they are from the targets and what an app makes of them is known to a task and
to nothing else: shared weights, training, export and reports ask it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from nas_edge.errors import DataError
from nas_edge.settings import ChoiceSettings

if TYPE_CHECKING:
    import numpy as np

    from nas_edge.data.augmentation import Changes
    from nas_edge.data.dataset import Dataset
    from nas_edge.data.loading import Batches
    from nas_edge.data.mixing import Mixing
    from nas_edge.data.preprocessing import Preprocessing
    from nas_edge.data.settings import DataSettings
    from nas_edge.data.splits import Split
    from nas_edge.networks import layers as L
    from nas_edge.networks.graph import Shape
    from nas_edge.spaces.decisions import SearchSpace
    from nas_edge.training.settings import OptimizationSettings

Array: TypeAlias = "np.ndarray[Any, Any]"
# Inputs float32 [batch, height, width, channels], normalised, and their targets [batch, ...].
Batch: TypeAlias = tuple[Array, Array]
SpaceT = TypeVar("SpaceT", bound="SearchSpace")


class TaskSettings(ChoiceSettings):
    """The settings of any task.

    Attributes:
        name: of the task.
    """

    name: str


@dataclass(frozen=True)
class TaskData:
    """A dataset, how it is split, and how its examples become inputs.

    Attributes:
        dataset: the examples as they are stored.
        split: which of them serve for what.
        preprocessing: turns examples into inputs.
        augmentation: of training examples.
        workers: threads that read and decode ahead; they change no batch.
        mixing: changes to whole batches that are trained with; None for none.
        processes: that read ahead in place of the threads, where batches are shuffled.
    """

    dataset: Dataset
    split: Split
    preprocessing: Preprocessing
    augmentation: Changes
    workers: int = 0
    mixing: Mixing | None = None
    processes: int = 0

    def arrays(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> Batch:
        """Inputs float32 `[n, size, size, channels]` and their targets, in order; all of them in memory at once."""
        import numpy as np

        batches = list(self.in_order(indices, 256))
        return np.concatenate([images for images, _ in batches]), np.concatenate([targets for _, targets in batches])

    def in_order(self, indices: np.ndarray[Any, np.dtype[np.int64]], batch_size: int) -> Iterable[Batch]:
        """Every example once, in order, as at inference; the last batch may be smaller."""
        from nas_edge.data.loading import in_order

        return in_order(self.dataset, indices, batch_size, self.preprocessing, self.workers)

    def pixels(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> Array:
        """What a network sees of examples before normalising; of images `uint8 [n, size, size, channels]`."""
        return self.preprocessing.fit(self.dataset.stored(indices))

    def shuffled(
        self,
        indices: np.ndarray[Any, np.dtype[np.int64]],
        batch_size: int,
        rng: np.random.Generator,
        *,
        augmented: bool = True,
    ) -> Batches:
        """Batches without end, shuffled, and augmented to train with; to be closed."""
        from nas_edge.data.loading import Batches

        changes, mixing = (self.augmentation, self.mixing) if augmented else (None, None)
        return Batches(
            self.dataset, indices, batch_size, rng, self.preprocessing, changes, self.workers, mixing, self.processes
        )

    @property
    def training_indices(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Images that train a network outside the search.

        Once the architecture is chosen, those it was chosen with may teach it; the test images stay unseen.
        """
        import numpy as np

        return np.sort(np.concatenate([self.split.train, self.split.validation]))


def _unknown(value: float, count: int) -> None:
    return None


@dataclass(frozen=True)
class PairedTest:
    """A two-sided test of whether two networks differ in the metric, on the same examples.

    Attributes:
        name: as it stands in reports, for example `McNemar`.
        p_value: of two networks' `NetworkTask.example_scores`, each `[n]`, of the same examples in the same order:
            how likely a difference at least as large is where there is none, 0 to 1.
    """

    name: str
    p_value: Callable[[Array, Array], float]


@dataclass(frozen=True)
class Metric:
    """What quality is, in words and numbers. More is better: a task that goes by an error negates it.

    Attributes:
        name: as it stands in tables, for example `accuracy`.
        form: how a value is written, see `format`.
        bounds: the least and the greatest value there can be; None for no bound.
        interval: the 95% interval of a value found on so many examples; None where that is not known, or follows from
            the examples themselves, see `NetworkTask.bootstraps`.
        paired_test: compares networks on the same examples; None where there is no such test.
    """

    name: str
    form: str = ".4g"
    bounds: tuple[float | None, float | None] = (None, None)
    interval: Callable[[float, int], tuple[float, float] | None] = _unknown
    paired_test: PairedTest | None = None

    def text(self, value: float | None) -> str:
        """A value as it is shown; `-` for None."""
        return "-" if value is None else format(value, self.form)

    def allows(self, value: float) -> bool:
        """Whether there can be such a value."""
        low, high = self.bounds
        return (low is None or low <= value) and (high is None or value <= high)


@dataclass(frozen=True)
class Targets:
    """The second array of a batch.

    Attributes:
        shape: of one example's target; None for a size that differs from batch to batch.
        dtype: NumPy's name, for example `int32`.
    """

    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class BundleSection:
    """What a bundle says of its task.

    Attributes:
        title: what the model is, for example `image classifier`.
        says: what it answers, in a sentence that follows the file's name.
        answer: what an app makes of the outputs, in a clause.
        output: what one output is called in a formula, for example `logit`.
        output_shape: of one example.
        snippet: Python lines that print what the array `outputs`, of one example, answers; `FOLDER` is the bundle's
            path.
        files: what goes into the bundle beside models and golden examples, by name.
        manifest: what goes into the manifest.
        android: further Kotlin sources of `example_android`, of its package, by source set and name, for example
            `main/Decoding.kt` and `test/DecodingTest.kt`.
    """

    title: str
    says: str
    answer: str
    output: str
    output_shape: tuple[int, ...]
    snippet: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    android: Mapping[str, bytes] = field(default_factory=dict)


class Task(ABC):
    """What the networks of a run are for.

    Args:
        settings: of the task.

    Attributes:
        delivers: whether a run ends with a trained network; otherwise with the architecture that was found.
        metric: what quality is.
        examples: what examples are called, several of them.
    """

    delivers: ClassVar[bool] = False
    examples: ClassVar[str] = "images"
    metric: Metric

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
        """How many numbers a network gives for one input, or channels for one place: the width of its last layer."""

    def describe(self, settings: DataSettings, data: TaskData) -> str:
        """One line that lets a user see that this is the data they meant."""
        parts = data.split
        train, validation, test = (len(part) for part in (parts.train, parts.validation, parts.test))
        every = f"{train + validation + test} {self.examples}{self.contents(data)}"
        return (
            f"data {settings.source}: {every}; {train} to train with, {validation} to score architectures, "
            f"{test} to test"
        )

    def contents(self, data: TaskData) -> str:
        """What follows the number of examples in `describe`, such as ` of 10 classes`; may be empty."""
        return ""


class NetworkTask(Task):
    """A task whose networks are trained and delivered.

    `nas_edge.testing.check_task` checks what is promised here.

    Attributes:
        targets: what a batch's second array is.
        bootstraps: whether the interval of a delivered file's metric is found by bootstrapping the test images; if
            `statistics` are not sums, `drawn_again` has to be overridden.
    """

    delivers = True
    bootstraps: ClassVar[bool] = False
    targets: Targets

    def head(self, template: L.Layer, input_shape: Shape) -> L.Layer:
        """The template of a network, or of a space, with the head that the task needs.

        Args:
            template: ends with `outputs` channels for one place, flattened: a classifier's.
            input_shape: `[height, width, channels]`.

        Returns:
            Another template with the same decisions; the same one by default.

        Raises:
            SpaceError: when it has no place for the head.
        """
        return template

    @abstractmethod
    def loss(self, outputs: Any, targets: Any, settings: OptimizationSettings) -> Any:
        """What training makes small; TensorFlow, imported when it is called.

        Args:
            outputs: float32 `[batch, ...]`, a tensor.
            targets: see `targets`, a tensor.
            settings: of the training.

        Returns:
            A scalar tensor: the mean over the batch.
        """

    def distillation_loss(self, outputs: Any, answers: Any, temperature: float) -> Any:
        """How far outputs are from those of a network that teaches; TensorFlow, imported when it is called.

        Args:
            outputs: float32 `[batch, ...]`, a tensor.
            answers: of the teacher, likewise.
            temperature: how soft answers are made, where that means something.

        Returns:
            A scalar tensor, the mean over the batch, of the same order as `loss`, and least where both are the same.

        Raises:
            NotImplementedError: in a task that does not say; its networks have no teachers, see `distills`.
        """
        raise NotImplementedError

    @property
    def distills(self) -> bool:
        """Whether networks of the task can learn from others."""
        return type(self).distillation_loss is not NetworkTask.distillation_loss

    @abstractmethod
    def statistics(self, outputs: Array, targets: Array) -> Array:
        """What the metric is computed of; that of several batches is what `join` makes of theirs, the sum.

        Args:
            outputs: float32 `[n, ...]`, of a model or of a file, dequantised.
            targets: theirs.

        Returns:
            float64 `[k]`, k fixed, or whatever `join` takes.
        """

    def join(self, statistics: Sequence[Array]) -> Array:
        """The statistics of several batches as one; for a metric that is no function of sums, all of them in a row."""
        total: Array = sum(statistics[1:], start=statistics[0])
        return total

    @abstractmethod
    def quality(self, statistics: Array) -> float:
        """The metric's value, of joined `statistics`."""

    def drawn_again(self, each: Sequence[Array]) -> Callable[[Array], float]:
        """The metric on bootstrap resamples of the examples.

        Args:
            each: the `statistics` of each example.

        Returns:
            A function of how often each example was drawn, integers `[n]`.
        """
        import numpy as np

        statistics = np.stack(each)
        return lambda times: self.quality(times @ statistics)

    @abstractmethod
    def same_answer(self, first: Array, second: Array) -> float:
        """Share of examples, 0 to 1, for which an app would make the same of both outputs, float32 `[n, ...]`."""

    @abstractmethod
    def bundle_section(self, data: TaskData) -> BundleSection:
        """What a bundle says of this task.

        Raises:
            ExportError: when it cannot be said.
        """

    def example_scores(self, outputs: Array, targets: Array) -> Array | None:
        """What the metric's paired test compares.

        Args:
            outputs: float32 `[n, ...]`, of a file, dequantised.
            targets: theirs.

        Returns:
            One score per example, bool or float `[n]`, of which more is better; None for a metric without such a test.
        """
        return None

    def breakdown(self, outputs: Array, targets: Array) -> Array | None:
        """What a bundle says of a model beside the metric is worked out of.

        Args:
            outputs: float32 `[n, ...]`, of a file, dequantised; all of them numbers.
            targets: theirs.

        Returns:
            An array of a fixed shape, such as a confusion matrix, or whatever `join_breakdowns` takes; None for nothing
            more to say.
        """
        return None

    def join_breakdowns(self, breakdowns: Sequence[Array]) -> Array:
        """The breakdown of several batches as one; their sum unless overridden."""
        total: Array = sum(breakdowns[1:], start=breakdowns[0])
        return total

    def describe_breakdown(self, total: Array, data: TaskData) -> Mapping[str, Any]:
        """Entries of the manifest, JSON values by name, of joined `breakdown`.

        What is a mapping of mappings, for example `{"classes": {"cat": {"accuracy": 0.9, "images": 40}, ...}}`, becomes
        a table of the model card: of each its value in the metric, which comes first and may be None, and what else.
        """
        return {}

    def score(self, outputs: Array, targets: Array) -> float:
        """The metric's value on one batch; NaN if an output is not a number, which might pass for an answer."""
        return self.score_all([(outputs, targets)])

    def score_all(self, batches: Iterable[Batch]) -> float:
        """The metric's value over batches of outputs and targets; NaN if an output is not a number.

        Raises:
            DataError: when there are none.
        """
        running = RunningScore(self)
        for outputs, targets in batches:
            running.take(outputs, targets)
        return running.value()


def head_of(task: Task, input_shape: Shape) -> Callable[[L.Layer], L.Layer]:
    """What gives a template the task's head, see `NetworkTask.head`; nothing is changed where there are no networks."""
    return lambda template: task.head(template, input_shape) if isinstance(task, NetworkTask) else template


def with_head(space: SpaceT, task: Task) -> SpaceT:
    """A space whose networks have the task's head; the same space where they have it anyway.

    Raises:
        SpaceError: see `NetworkTask.head`.
    """
    from nas_edge.spaces.decisions import NetworkSpace

    if not isinstance(space, NetworkSpace) or not isinstance(task, NetworkTask):
        return space
    template = head_of(task, space.input_shape)(space.template)
    return space if template == space.template else space.with_template(template)


class RunningScore:
    """A task's metric over batches that come one after another.

    Args:
        task: whose metric.
    """

    def __init__(self, task: NetworkTask) -> None:
        self._task = task
        self._parts: list[Array] = []
        self._finite = True

    def take(self, outputs: Array, targets: Array) -> None:
        """Takes in a batch."""
        import numpy as np

        self._finite = self._finite and bool(np.isfinite(outputs).all())
        if self._finite:
            self._parts.append(self._task.statistics(outputs, targets))

    def value(self) -> float:
        """The metric of all batches so far; NaN if an output was not a number.

        Raises:
            DataError: when there were none.
        """
        if not self._finite:
            return float("nan")
        if not self._parts:
            raise DataError("no images to evaluate", expected="at least one batch")
        return self._task.quality(self._task.join(self._parts))
