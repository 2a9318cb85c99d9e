"""Successive halving of finalists: who is trained for how long, on what the scores are, and what a kill costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from nas_edge.config import load_config
from nas_edge.errors import ConfigError, TrainingError
from nas_edge.export.verify import FileQuality, check_precision, file_quality
from nas_edge.networks.keras_model import keras_model
from nas_edge.progress import Stage
from nas_edge.runs.halving import HALVING, HalvingScore, read_halving
from nas_edge.runs.journal import read_journal
from nas_edge.runs.run import Run
from nas_edge.search.finalists import halving_rounds
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture
from nas_edge.stages import training
from nas_edge.stages.context import RunContext, open_task
from nas_edge.stages.halving import best_trained
from nas_edge.testing.trainings import bright_or_dark
from nas_edge.training.context import TrainingContext, training_data
from nas_edge.training.standard import StandardSettings, train_standard
from nas_edge.training.trainer import evaluate
from tests.support.reporters import Terminating
from tests.support.spaces import tiny_space

SPACE = tiny_space(8, 1, 2)
RANKED = [Trial(0, 0, Architecture(choices), 0.5, None, None, None) for choices in ((0, 0), (1, 8), (0, 15))]


class Stopping(Terminating):
    """Stops the run when so many trainings have begun."""

    def __init__(self, trainings: float) -> None:
        super().__init__("nothing", 0)
        self._trainings = trainings

    @contextmanager
    def stage(
        self, name: str, total: int | None, done: int = 0, facts: Callable[[], Sequence[str]] = tuple
    ) -> Iterator[Stage]:
        if len(self.stages) == self._trainings:
            raise KeyboardInterrupt
        with super().stage(name, total, done, facts) as show:
            yield show


def context(folder: Path, reporter: Terminating, *settings: str) -> RunContext:
    task, data = bright_or_dark()
    chosen = (
        "finalists.trained=3",
        "training.epochs=4",
        "training.batch_size=16",
        "training.learning_rate=2",
        *settings,
    )
    config, nothing = load_config("smoke", settings=chosen), cast(Any, None)
    return RunContext(Run(folder), config, task, data, SPACE, nothing, reporter, nothing, "again")


def best(folder: Path, reporter: Terminating, *settings: str, ranked: Sequence[Trial] = RANKED) -> Trial:
    return best_trained(context(folder, reporter, *settings), cast(Any, None), "winner", ranked)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, []),
        (1, []),
        (2, [(2, 1 / 2)]),
        (6, [(6, 1 / 8), (3, 1 / 4), (2, 1 / 2)]),
        (8, [(8, 1 / 8), (4, 1 / 4), (2, 1 / 2)]),
    ],
)
def test_each_round_has_half_the_networks_for_twice_the_epochs(count: int, expected: list[tuple[int, float]]) -> None:
    assert [(each.networks, each.share) for each in halving_rounds(count)] == expected


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trial]:
    """Finalists to which nothing happened."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, best(folder, Terminating("nothing", 0))


def test_the_better_half_goes_on_and_the_best_remains(whole: tuple[Path, Trial]) -> None:
    folder, winner = whole
    scores = read_halving(Run(folder))["winner"]
    assert [score.epochs for score in scores] == [1, 1, 1, 2, 2]
    first, second = ({s.architecture: s.quality or 0.0 for s in part} for part in (scores[:3], scores[3:]))
    assert set(first) == {str(trial.architecture) for trial in RANKED}
    assert sorted(first.values())[-2:] == sorted(first[text] for text in second)
    assert second[str(winner.architecture)] == max(second.values())
    assert len({*first.values(), *second.values()}) > 1


def test_finalists_are_not_trained_with_the_images_they_are_scored_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainingContext] = []

    def look(settings: Any, context: TrainingContext, on_step: Any) -> Any:
        seen.append(context)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_network", look)
    with pytest.raises(KeyboardInterrupt):
        best(tmp_path, Terminating("nothing", 0), "training.images=train+validation")
    split = bright_or_dark()[1].split
    assert sorted(seen[0].data.training_indices) == sorted(split.train)


def test_scores_are_of_the_network_as_it_is_delivered(whole: tuple[Path, Trial]) -> None:
    (task, data), score = bright_or_dark(), read_halving(Run(whole[0]))["winner"][-1]
    settings = StandardSettings.model_validate(
        {**context(whole[0], Terminating("nothing", 0)).config.training.model_dump(), "epochs": 2, "images": "train"}
    )
    network = SPACE.decode(SPACE.parse(score.architecture))
    seen = training_data(settings, data)
    assert not set(seen.training_indices) & set(data.split.validation)
    weights = train_standard(settings, TrainingContext(network, None, task, seen, 0), lambda step: None)
    batches = data.in_order(data.split.validation, 16)
    assert evaluate(keras_model(network, weights), batches, task) == score.quality


@pytest.mark.parametrize("quantization", ["post-training", "aware"])
def test_scores_may_be_of_the_quantised_file(
    tmp_path: Path, quantization: str, whole: tuple[Path, Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[bytes] = []

    def look(file: bytes, *others: Any) -> FileQuality:
        check_precision(file, "int8")
        files.append(file)
        return file_quality(file, *others)

    monkeypatch.setattr("nas_edge.export.verify.file_quality", look)
    settings = ("finalists.trained=2", "finalists.quantized=true", f"export.quantization={quantization}")
    reporter, (_, data) = Terminating("nothing", 0), bright_or_dark()
    best(tmp_path, reporter, *settings)
    tuned = [stage for stage in reporter.stages if stage.startswith("tuning finalist")]
    assert len(tuned) == (2 if quantization == "aware" else 0)
    found = read_halving(Run(tmp_path))["winner"]
    assert [score.quality for score in found] == [
        file_quality(file, data.in_order(data.split.validation, 32), bright_or_dark()[0]).value for file in files
    ]
    assert found[0].recipe != read_halving(Run(whole[0]))["winner"][0].recipe


def test_a_quantised_file_that_answers_no_numbers_is_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([FileQuality(math.nan, None), FileQuality(0.25, None)])
    monkeypatch.setattr("nas_edge.export.verify.file_quality", lambda *_: next(answers))
    settings = ("finalists.trained=2", "finalists.quantized=true", "training.epochs=2")
    assert best(tmp_path, Terminating("nothing", 0), *settings) is RANKED[1]
    assert [score.quality for score in read_halving(Run(tmp_path))["winner"]] == [None, 0.25]


def test_stopped_and_continued_it_gives_the_same_and_trains_none_twice(
    tmp_path: Path, whole: tuple[Path, Trial]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        best(tmp_path, Stopping(4))
    reporter = Stopping(math.inf)
    assert best(tmp_path, reporter) == whole[1]
    assert len(reporter.stages) == 1
    journal = HALVING["winner"]
    assert (tmp_path / journal).read_bytes() == (whole[0] / journal).read_bytes()


def test_with_other_settings_all_are_trained_again(tmp_path: Path, whole: tuple[Path, Trial]) -> None:
    name = HALVING["winner"]
    Run(tmp_path).write_bytes(name, (whole[0] / name).read_bytes())
    reporter = Stopping(1)
    with pytest.raises(KeyboardInterrupt):
        best(tmp_path, reporter, "training.learning_rate=1.5")
    assert len(read_journal(tmp_path / name).records) == 6
    assert len(read_halving(Run(tmp_path))["winner"]) == 1, "those of the last settings alone are told of"


def test_what_diverges_is_last_and_is_an_error_if_all_do(tmp_path: Path) -> None:
    settings = ("training.learning_rate=1e30", "finalists.trained=2", "training.epochs=2")
    with pytest.raises(TrainingError, match=r"all finalists diverged, for example: again --set training\.learning_r"):
        best(tmp_path, Terminating("nothing", 0), *settings)
    assert [score.quality for score in read_halving(Run(tmp_path))["winner"]] == [None, None]


def test_without_the_setting_or_another_finalist_nothing_is_trained(tmp_path: Path) -> None:
    reporter = Terminating("nothing", 0)
    assert best(tmp_path, reporter, "finalists.trained=0") is RANKED[0]
    assert best(tmp_path, reporter, ranked=RANKED[:1]) is RANKED[0]
    assert not reporter.stages
    assert not list(tmp_path.iterdir())


def test_the_setting_requires_trainings() -> None:
    with pytest.raises(ConfigError, match=r"finalists\.trained trains networks; leave it out, or give training"):
        load_config("smoke", settings=["finalists.trained=2", "training.epochs=0", "export.weights=shared"])
    with pytest.raises(ConfigError, match=r"quantized scores trained finalists; leave it out, or give trained"):
        load_config("smoke", settings=["finalists.quantized=true"])
    with pytest.raises(ConfigError, match=r"finalists\.trained: a search of a table trains no networks; leave it out"):
        open_task(load_config("smoke", settings=["finalists.trained=2", "task=tabular"]))


def test_records_are_checked_when_they_are_read(tmp_path: Path) -> None:
    score = HalvingScore("recipe", "0:1", 2.0, None)
    assert HalvingScore.from_json(score.to_json()) == score
    for damage in ({"quality": "1"}, {"epochs": -1}):
        with pytest.raises(ValueError, match="expected a number"):
            HalvingScore.from_json({**score.to_json(), **damage})
