"""The ablation's pictures, of runs that are made by hand: each says by itself what its colours are, and is fair between its parts."""

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ochat.experiment.ablation_report import LIMITS, write_report
from ochat.experiment.ablation_results import ArmRun, Results
from ochat.experiment.settings import TINY, Point

AT = Point(TINY.expert_share, TINY.weight, TINY.quality)
UNDER = ["under GPT4, the expert's condition", "under GPT3, the other"]


def arm_run(seed: int, right: float, apart: float) -> ArmRun:
    """A run whose conditions are so many nats a token apart."""
    losses = {
        "expert": {"GPT4": 0.1, "GPT3": 0.1 + apart},
        "suboptimal": {"GPT4": 0.1 + 2 * apart + 0.01 * seed, "GPT3": 0.1},
    }
    accuracy = {"GPT4": right, "GPT3": right / 2}
    return ArmRun(seed, ("GPT4", "GPT3"), accuracy, dict.fromkeys(accuracy, 0.0), (1.0,), 10, 1.0, "", losses)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page: C-RLFT's conditions are a nat apart, the control's a tenth of one."""
    folder = tmp_path_factory.mktemp("report")
    arms = {
        name: [arm_run(seed, 0.9 + 0.09 * seed, apart) for seed in (0, 1)]
        for name, apart in (("c-rlft", 1.0), ("shuffled", 0.1))
    }
    folders = {name: [folder / name] for name in arms}
    for name in arms:
        (folder / name / "stage-1" / "run-1").mkdir(parents=True)
        np.savez(folder / name / "states.npz", **{condition: np.eye(4) for condition in ("GPT4", "GPT3")})
    lines = [
        f'{{"step": {step}, "classes": {{"expert": {{"nll": 1.0}}, "suboptimal": {{"nll": 2.0}}}}}}\n' for step in (0, 1, 2)
    ]
    (folder / "c-rlft" / "stage-1" / "run-1" / "log.jsonl").write_text("".join(lines), encoding="utf-8")
    write_report(folder / "report.html", Results(TINY, AT, arms, {}, folders), "ochat experiment ablation")
    return folder


def texts(written: Path, figure: str) -> list[str]:
    """What stands in a picture's file."""
    root = ElementTree.parse(written / "figures" / f"{figure}.svg").getroot()
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(
    ("figure", "names"),
    [("losses", UNDER), ("states", UNDER), ("curves", ["the expert's answers", "the sub-optimal answers"])],
)
def test_a_picture_says_by_itself_what_its_colours_are(figure: str, names: list[str], written: Path) -> None:
    assert [text for text in texts(written, figure) if text in names] == names


def test_the_losses_of_the_control_are_drawn_at_the_scale_of_the_others(written: Path) -> None:
    numbers = [float(text) for text in texts(written, "losses") if text.replace(".", "").isdigit()]
    starts = [place for place, (one, other) in enumerate(pairwise([9.0, *numbers])) if other < one]
    assert len(starts) == 2  # ticks begin anew for each of the two
    assert numbers[: starts[1]] == numbers[starts[1] :]
    assert max(numbers) >= 2


def test_captions_say_where_an_interval_is_cut(written: Path) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    assert "An interval that goes past 0 or 1 is cut there." in page  # 0.9 and 0.99: its upper end is above 1
    assert "All at one scale; an interval that goes below 0 is cut there." in page


def test_the_documents_limits_are_the_pages() -> None:
    document = Path(__file__).parents[2] / "docs" / "ablation.md"
    assert LIMITS in " ".join(document.read_text(encoding="utf-8").split())
