"""The table of controllers: light to import, and open to other packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nas_edge.controllers import CONTROLLERS, EvolutionController, SearchPlan
from nas_edge.errors import ConfigError
from nas_edge.testing import check_controller
from nas_edge.testing.problems import flat_space
from tests.support.packages import install

PACKAGE = """
from typing import Literal

from nas_edge.controllers import RandomSearchController
from nas_edge.registry import Entry
from nas_edge.settings import ChoiceSettings


class Settings(ChoiceSettings):
    name: Literal["twice"] = "twice"
    times: int = 2

    @classmethod
    def from_text(cls, rest):
        return {"times": rest} if rest else {}


class Twice(RandomSearchController):
    "Draws several times, and takes the last."

    name = "twice"

    def __init__(self, space, times):
        super().__init__(space)
        self.times = times

    def propose(self, n, rng):
        return super().propose(n * self.times, rng)[-n:]


twice = Entry(Settings, lambda settings, space, plan: Twice(space, settings.times), "twice as random")
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_controller_of_another_package_is_found_and_conforms(site: Path) -> None:
    install(
        site, "my-controllers", {"nas_edge.controllers": {"twice": "my_controllers:twice"}}, {"my_controllers": PACKAGE}
    )
    assert CONTROLLERS.names[-1] == "twice"
    settings = CONTROLLERS.settings("twice:3")
    controller = CONTROLLERS.make(settings, flat_space(), SearchPlan(10))
    assert (controller.name, controller.times) == ("twice", 3)  # type: ignore[attr-defined]
    check_controller(CONTROLLERS.find("twice"), times=4)
    with pytest.raises(ConfigError, match=r"^controller: times: input should be"):
        CONTROLLERS.settings("twice:often")


def test_a_name_that_is_built_in_cannot_be_taken(site: Path) -> None:
    install(site, "my-controllers", {"nas_edge.controllers": {"random": "a:b"}})
    with pytest.raises(ConfigError, match="the controller 'random' is built in, but my-controllers"):
        CONTROLLERS.settings("random")


def test_the_table_is_light() -> None:
    heavy = ("tensorflow", "keras", "optuna", "torch", "scipy", "sklearn", "pandas")
    code = f"import sys; from nas_edge.controllers import CONTROLLERS; assert not set({heavy}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("plan", "given", "expected"),
    [
        (SearchPlan(10_000), {}, (100, 25)),
        (SearchPlan(60, delay_steps=20, samples_per_step=2), {}, (20, 5)),
        (SearchPlan(4), {}, (2, 1)),
        (SearchPlan(4), {"population_size": 40}, (40, 10)),
        (SearchPlan(4), {"population_size": 40, "sample_size": 3}, (40, 3)),
    ],
)
def test_a_population_fits_the_length_of_the_search(
    plan: SearchPlan, given: dict[str, int], expected: tuple[int, int]
) -> None:
    made = CONTROLLERS.make(CONTROLLERS.settings({"name": "evolution", **given}), flat_space(), plan)
    assert isinstance(made, EvolutionController)
    assert (made._population.maxlen, made._sample_size) == expected
