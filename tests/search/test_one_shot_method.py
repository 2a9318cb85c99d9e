"""The published method as a user's settings make it: what is trained, what is scored, and that no setting is ignored.

Searches are made by `make_search`, from settings and data, as runs make them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf

from device_agents.api import Verdict
from nas_edge.controllers.base import Outcome, as_proposed
from nas_edge.controllers.categorical import CategoricalController
from nas_edge.data.augmentation import Augmentation
from nas_edge.data.dataset import Dataset
from nas_edge.data.preprocessing import to_unit_range
from nas_edge.data.splits import Split
from nas_edge.networks import layers as L
from nas_edge.networks.analysis import analyze
from nas_edge.networks.primitives import Primitive
from nas_edge.rewards import Objective
from nas_edge.search.complexity import DecayBySize
from nas_edge.search.methods import SearchContext, make_search
from nas_edge.search.one_shot import OneShotSearch, OneShotSettings
from nas_edge.seeds import generator
from nas_edge.spaces import blocks
from nas_edge.spaces.decisions import Architecture, NetworkSpace
from nas_edge.supernet.shared_weights import SharedWeights
from nas_edge.supernet.supernet import one_hot_masks
from nas_edge.tasks.base import TaskData
from nas_edge.training.schedules import PowerOfCosine, cosine_with_warmup
from tests.support.sources import FunctionSource, failed, timed
from tests.support.spaces import tiny_space
from tests.support.tasks import CLASSIFICATION

SPACE = tiny_space()
KERNEL, WIDTH = 0, 1  # its decisions
WIDEST = len(SPACE.decisions[WIDTH].choices) - 1
BATCH = 12


def inverted_data(space: NetworkSpace = SPACE, shift: float = 0.0) -> TaskData:
    """Bright and dark images, labelled the other way round in the validation part."""
    count = 96
    rng, numbers = np.random.default_rng(0), np.arange(count)
    bright = numbers % 2
    validation = numbers >= 72
    images = (40 + 120 * bright[:, None, None, None] + rng.integers(60, size=(count, *space.input_shape))).astype(
        np.uint8
    )
    labels = np.where(validation, 1 - bright, bright).astype(np.int32)
    split = Split(numbers[~validation], numbers[validation], numbers[:0])
    preprocessing = to_unit_range(space.input_shape[0], 1)
    return TaskData(Dataset(images, labels, ("a", "b", "c")), split, preprocessing, Augmentation(shift=shift))


def searching(
    weights: dict[str, Any] | None = None,
    space: NetworkSpace = SPACE,
    latency: FunctionSource | None = None,
    objectives: tuple[Objective, ...] = (Objective("latency_ms", 1.0),),
    precision: str = "float32",
    shift: float = 0.0,
    **settings: Any,
) -> OneShotSearch:
    """A search without warm-up, of anything, but for what is asked for."""
    given = {
        "steps": 8, "delay_fraction": 0.0, "op_warmup_fraction": 0.0, "filter_warmup_fraction": 0.0,
        "validation_batch_size": 24, "rematerialize": False, **settings,
        "weights": {"learning_rate": 1.0, "batch_size": BATCH, "warmup_fraction": 0.0, **(weights or {})},
    }  # fmt: skip
    context = SearchContext(
        space, CLASSIFICATION, inverted_data(space, shift), latency or FunctionSource(lambda _: timed(1.0)), objectives,
        seed=3, precision=precision,
    )  # fmt: skip
    loop = make_search(OneShotSettings(**given), context)
    assert isinstance(loop, OneShotSearch)
    return loop


@pytest.fixture(scope="module")
def shared() -> SharedWeights:
    """Weights that no test trains for good."""
    return searching({"label_smoothing": 0.3, "weight_decay": 0.05}).weights


def batch(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(BATCH, *SPACE.input_shape)).astype(np.float32), rng.integers(3, size=BATCH).astype(np.int32)


def masks(kernel: int | None, width: int = 5) -> Any:
    """Of one kernel, or of all at equal weight."""
    rows = one_hot_masks(SPACE, Architecture((kernel or 0, width)))
    if kernel is None:
        rows[KERNEL, :2] = 0.5
    return rows


def penalty(shared: SharedWeights, rows: Any) -> float:
    return float(shared.supernet(tf.constant(batch()[0]), tf.constant(rows))[1])


# ---------------------------------------------------------------- the shared weights


def test_operators_that_run_at_once_are_averaged(shared: SharedWeights) -> None:
    images, _ = batch()
    # After the choice the network is linear.
    both, one, other = (shared.outputs(images, masks(kernel)) for kernel in (None, 0, 1))
    np.testing.assert_allclose(both, (one + other) / 2, 1e-4, 1e-5)
    assert not np.allclose(one, other, 1e-2)


def test_weight_decay_of_an_operator_weighs_as_much_as_the_operator(shared: SharedWeights) -> None:
    both, one, other = (penalty(shared, masks(kernel)) for kernel in (None, 0, 1))
    assert both == pytest.approx((one + other) / 2, rel=1e-5)
    assert min(one, other) > 0


def test_the_loss_is_smoothed_and_has_the_weight_decay_in_it(shared: SharedWeights) -> None:
    images, labels = batch()
    start, rows = shared.arrays(), masks(1)
    logits, decayed = shared.outputs(images, rows).astype(np.float64), penalty(shared, rows)
    loss = shared.train_step(images, labels, rows)
    shared.restore(start)
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = 0.7 * np.eye(3)[labels] + 0.3 / 3
    cross_entropy = -(targets * log_softmax).sum(-1).mean()
    assert loss == pytest.approx(cross_entropy + 0.05 * decayed, rel=1e-4)
    assert 0.05 * decayed > 0.01 * loss


def test_an_averaged_step_moves_the_weights_by_the_mean_of_what_each_would() -> None:
    weights = searching({"optimizer": "sgd", "learning_rate": 4.0}).weights
    start, parts = weights.arrays(), [(*batch(1), masks(0)), (*batch(2), masks(1, 9))]
    moves, losses = [], []
    for part in parts:
        losses.append(weights.train_step(*part))
        moves.append(weights.arrays())
        weights.restore(start)
    for _ in range(2):  # a second time, as nothing may be left of the first
        assert weights.train_averaged(iter(parts), len(parts)) == pytest.approx(losses)
        for name, array in weights.arrays().items():
            if name.startswith("weights/"):
                mean = np.mean([moved[name] - start[name] for moved in moves], axis=0)
                np.testing.assert_allclose(array - start[name], mean, 1e-3, 1e-6)
        weights.restore(start)


# ---------------------------------------------------------------- training and scoring


@pytest.mark.parametrize("updates", ["sequential", "averaged"])
def test_weights_learn_from_training_images_and_are_scored_on_validation_images(updates: str) -> None:
    # At random, or the controller would come to like what cannot learn.
    settings = {"steps": 40, "samples_per_step": 2, "controller": {"name": "random"}, "weight_updates": updates}
    search = searching({"learning_rate": 8.0 if updates == "sequential" else 4.0}, **settings)
    reports = [search.take_step() for _ in range(40)]
    # Validation labels are inverted: what learns from training images gets them all wrong. The narrowest networks
    # learn nothing, and get half of them right.
    late = [trial.quality for report in reports[-10:] for trial in report.trials if trial.quality is not None]
    assert np.median(late) <= 0.25
    losses = [report.loss or 0.0 for report in reports]
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
    assert (search.evaluate(Architecture((0, WIDEST))).quality or 0.0) <= 0.25


def test_a_proposal_is_scored_with_the_weights_that_its_step_has_trained() -> None:
    search = searching()
    stale = 0
    for _ in range(8):
        before = search.arrays()
        (trial,) = search.take_step().trials
        after = search.arrays()
        # The validation batch is all validation images, so `evaluate` scores on the same ones.
        assert trial.quality == search.evaluate(trial.architecture).quality
        search.weights.restore(before)
        stale += trial.quality != search.evaluate(trial.architecture).quality
        search.weights.restore(after)
    assert stale > 0, "scored before the training, it would have been the same: this test shows nothing"


@pytest.mark.parametrize(("updates", "batches"), [("sequential", 1), ("averaged", 3)])
def test_proposals_are_scored_on_one_batch_or_as_published_on_one_each(updates: str, batches: int) -> None:
    search = searching(samples_per_step=3, weight_updates=updates, validation_batch_size=4)
    before = search.state()["validation"]["number"]
    search.take_step()
    assert search.state()["validation"]["number"] - before == batches


def changed(search: OneShotSearch) -> dict[str, Any]:
    """Which entries of the stem's kernels the first step changes, by operator; `[height, width, in, out]`."""
    before = search.arrays()
    search.take_step()
    names = {label: f"weights/stem.{label}.conv/kernel" for label in ("k3", "k5")}
    return {label: search.arrays()[name] != before[name] for label, name in names.items()}


def test_without_warm_up_one_operator_trains_at_the_width_that_was_proposed() -> None:
    kernels = changed(searching({"weight_decay": 0.0}))
    assert sorted(kernel.any() for kernel in kernels.values()) == [False, True]
    assert not any(kernel[..., -1].any() for kernel in kernels.values()), "the widest by chance: use another seed"


def test_the_operators_warm_up() -> None:
    kernels = changed(searching({"weight_decay": 0.0}, delay_fraction=0.5, op_warmup_fraction=0.5))
    assert all(kernel.any() for kernel in kernels.values())
    assert not any(kernel[..., -1].any() for kernel in kernels.values())


def test_the_widths_warm_up() -> None:
    kernels = changed(searching({"weight_decay": 0.0}, delay_fraction=0.5, filter_warmup_fraction=0.5))
    assert sorted(kernel.any() for kernel in kernels.values()) == [False, True]
    assert any(kernel[..., -1].any() for kernel in kernels.values())


def test_a_subset_of_operators_warms_up_where_that_is_asked_for() -> None:
    search = searching(delay_fraction=0.5, op_warmup_fraction=0.5, op_warmup_decisions=1)
    kernels = changed(search)
    assert all(kernel.any() for kernel in kernels.values())  # the space has but one such decision


@pytest.mark.parametrize("updates", ["sequential", "averaged"])
def test_the_learning_rate_falls_over_all_updates_of_the_search(updates: str) -> None:
    settings = {"steps": 4, "samples_per_step": 3, "weight_updates": updates}
    search = searching({"warmup_fraction": 0.25}, **settings)
    total, per_step, peak = (4, 1, 3 * BATCH / 256) if updates == "averaged" else (12, 3, BATCH / 256)
    for step in range(4):
        expected = cosine_with_warmup(step * per_step, peak, total, total // 4)
        assert float(search.weights.optimizer.learning_rate) == pytest.approx(expected, abs=1e-7)
        search.take_step()
    assert int(search.weights.optimizer.iterations) == total


def test_the_learning_rate_falls_later_for_large_networks_where_that_is_asked_for() -> None:
    peak, steps, trained = BATCH / 256, 8, {}
    for aware in (False, True):
        search = searching(steps=steps, controller={"name": "random"}, complexity_aware=aware)
        for step in range(1, 6):
            (trial,) = search.take_step().trials
            share = cosine_with_warmup(step, 1.0, steps)
            power = DecayBySize(SPACE, PowerOfCosine(1.0, 1), generator(3, "sizes")).power(trial.architecture)
            expected = peak * share ** (power if aware else 1.0)
            assert float(search.weights.optimizer.learning_rate) == pytest.approx(expected, rel=1e-4)
        trained[aware] = search.arrays()
    assert any(np.any(trained[True][name] != array) for name, array in trained[False].items() if "weights/" in name)
    decay = DecayBySize(SPACE, PowerOfCosine(1.0, 1), np.random.default_rng(0))
    assert decay.power(Architecture((0, 0))) == 2.0
    assert decay.power(Architecture((1, WIDEST))) < 0.7
    with pytest.raises(ValueError, match="complexity_aware=true requires weight_updates=sequential"):
        OneShotSettings(complexity_aware=True, weight_updates="averaged")


def test_epsilon_damps_the_weights_steps() -> None:
    moved = {}
    for epsilon in (1.0, 99.0):
        search = searching({"epsilon": epsilon})
        before = search.arrays()
        search.take_step()
        moved[epsilon] = {name: search.arrays()[name] - array for name, array in before.items() if "weights/" in name}
    largest = max(moved[1.0], key=lambda name: float(np.abs(moved[1.0][name]).max()))
    ratio = np.abs(moved[1.0][largest]).max() / np.abs(moved[99.0][largest]).max()
    # Mean squares start at 1 and keep nine tenths of that; gradients of a first step are small.
    assert ratio == pytest.approx(math.sqrt((0.9 + 99) / (0.9 + 1)), rel=0.1)


@dataclass(frozen=True)
class Counted(Primitive):
    """The input; counts how often it is run."""

    runs: ClassVar[list[int]] = []

    def output_shape(self, *inputs: Any) -> Any:
        return inputs[0]

    def keras_layer(self, name: str, seed: int) -> Any:
        raise NotImplementedError

    def run(self, weights: Any, *inputs: Any) -> Any:
        counting = tf.py_function(lambda: Counted.runs.append(1), [], [])
        with tf.control_dependencies([counting]):
            return tf.identity(inputs[0])

    def lower(self, graph: Any, node: Any) -> None:
        graph.alias(node)


def counting_space() -> NetworkSpace:
    decisions = blocks.Decisions()
    kernels = {f"k{k}": L.sequential(conv=blocks.conv_norm(8, "relu", k, 2), counted=Counted()) for k in (3, 5)}
    parts: dict[str, L.Layer] = {"stem": decisions.layers("stem.kernel", kernels), "pool": L.GlobalAveragePool()}  # type: ignore[arg-type]
    parts |= blocks.classifier(3, 0.0)
    return NetworkSpace("counting", L.Sequential(tuple(parts.items())), decisions.list, (8, 8, 1), 3)


@pytest.mark.parametrize("rematerialize", [True, False])
def test_layers_are_run_again_in_the_backward_pass_where_that_is_asked_for(rematerialize: bool) -> None:
    search = searching(space=counting_space(), steps=2, delay_fraction=0.5, rematerialize=rematerialize)
    Counted.runs.clear()
    search.take_step()  # trains and scores nothing
    assert len(Counted.runs) == (2 if rematerialize else 1)


# ---------------------------------------------------------------- the controller


def controlling(**settings: Any) -> CategoricalController:
    """A search's controller, made of its settings."""
    made = searching(steps=40, controller={"name": "reinforce", "learning_rate": 0.05, **settings}).controller
    assert isinstance(made, CategoricalController)
    return made


def learn(controller: CategoricalController, *rewards: float, step: int = 0) -> None:
    """Of the first kernel, of the second and so on in turns; the width is the same for all."""
    proposals = [as_proposed(SPACE, Architecture((i % 2, 3))) for i in range(len(rewards))]
    controller.update([Outcome(p, reward) for p, reward in zip(proposals, rewards, strict=True)], step)


def test_the_controllers_rate_decides_how_far_its_logits_move() -> None:
    slow, fast = controlling(), controlling(learning_rate=0.1)
    for controller in (slow, fast):
        learn(controller, 1.0, 0.0)
    np.testing.assert_allclose(fast.logits[KERNEL], 2 * slow.logits[KERNEL], 1e-6)
    # Adam's first step has the length of the rate.
    np.testing.assert_allclose(slow.logits[KERNEL], [0.05, -0.05], 1e-3)


@pytest.mark.parametrize("when", ["learning", "always"])
def test_second_moments_rest_in_the_delay_unless_that_is_asked_for(when: str) -> None:
    """Where they do not, networks of the delay are measured, but are no trials, and the policy rests all the same."""
    latency = FunctionSource(lambda candidate: timed(1.0 + sum(candidate.architecture.choices)))  # type: ignore[union-attr]
    search = searching(latency=latency, delay_fraction=0.5, controller={"name": "reinforce", "second_moments": when})
    trials = [trial for _ in range(4) for trial in search.take_step().trials]
    learned = search.state()["controller"]["learned"]
    assert not trials
    assert not any(learned["logits"])
    assert (len(latency.asked), any(learned["v"])) == ((4, True) if when == "always" else (0, False))
    assert len(search.take_step().trials) == 1


def test_the_temperature_flattens_the_policy() -> None:
    odds = {}
    for temperature in (1.0, 5.0):
        controller = controlling(temperature=temperature)
        learn(controller, 1.0, 0.0)
        first, second = controller.probabilities()["stem.kernel"]
        odds[temperature] = math.log(first / second)
    assert odds[1.0] == pytest.approx(5 * odds[5.0], rel=1e-3)
    assert odds[1.0] == pytest.approx(0.1, rel=1e-3)


def test_the_momentum_decides_what_rewards_are_compared_with() -> None:
    for momentum, expected in ((0.5, 1 / 3), (0.95, 0.0475 / 0.0975)):
        controller = controlling(baseline_momentum=momentum)
        learn(controller, 1.0)
        learn(controller, 0.0, step=1)
        assert controller.baseline == pytest.approx(expected)


def test_the_published_baseline_takes_a_reward_in_before_it_is_compared() -> None:
    memories = {}
    for baseline in ("before", "after"):
        controller = controlling(baseline=baseline)
        for step, reward in enumerate((1.0, 1.0, 2.0)):
            learn(controller, reward, step=step)
        memories[baseline] = controller.state()["learned"]["v"][0]  # of squared gradients, the third's alone
    advantages = {"after": 2.0 - 1.0, "before": 2.0 - (1 + 0.05 / (1 - 0.95**3))}
    assert memories["before"] / memories["after"] == pytest.approx((advantages["before"] / advantages["after"]) ** 2)


def test_the_entropy_weight_keeps_the_policy_open() -> None:
    entropies = {}
    for weight in (0.0, 2.0):
        controller = controlling(entropy_weight=weight)
        learn(controller, 1.0, 0.0)
        for step in range(1, 5):
            learn(controller, 0.5, 0.5, step=step)
        entropies[weight] = controller.entropy() or 0.0
    assert entropies[2.0] > entropies[0.0]


# ---------------------------------------------------------------- the reward


def test_a_reward_without_latency_is_the_quality_also_of_what_could_not_be_timed() -> None:
    answers = iter([timed(7.0), failed(Verdict.UNSTEADY), failed(Verdict.RUN_FAILED), *[timed(1.0)] * 5])
    search = searching(latency=FunctionSource(lambda _: next(answers)), objectives=())
    trials = [trial for _ in range(4) for trial in search.take_step().trials]
    assert [trial.reward == trial.quality for trial in trials] == [True, True, False, True]
    assert trials[2].reward is None, "a candidate that fails on the device is to become less likely all the same"
    assert [trial.latency_ms for trial in trials] == [7.0, None, None, 1.0]


def test_peak_memory_is_that_of_the_delivered_precision() -> None:
    for precision, bytes_per_value in (("float32", 4), ("int8", 1)):
        objective = Objective("peak_memory_bytes", 1000.0)
        search = searching(objectives=(objective,), precision=precision)
        (trial,) = search.take_step().trials
        values = analyze(SPACE.decode(trial.architecture), 1).peak_memory_bytes
        assert trial.usage == {"peak_memory_bytes": values * bytes_per_value}


# ---------------------------------------------------------------- the data


def test_only_images_that_are_trained_with_are_augmented() -> None:
    search, data = searching(shift=0.4), inverted_data()
    raw = next(iter(data.in_order(np.arange(96), 96)))[0]
    known = {image.round(4).tobytes() for image in raw}
    steps = search.weight_steps
    trained, scored = next(steps.train_batches)[0], next(steps.validation)[0]
    assert (len(trained), len(scored)) == (BATCH, 24)
    assert all(image.round(4).tobytes() in known for image in scored)
    assert not all(image.round(4).tobytes() in known for image in trained)


def test_batches_follow_from_the_seed_of_the_run() -> None:
    first, again = (searching().weight_steps for _ in range(2))
    for one, other in ((first.train_batches, again.train_batches), (first.validation, again.validation)):
        np.testing.assert_array_equal(next(one)[0], next(other)[0])


def test_a_validation_batch_is_no_larger_than_the_data() -> None:
    assert len(next(searching(validation_batch_size=512).weight_steps.validation)[0]) == 24
