"""The command: which bars it tries, what it prints and keeps, and how it ends."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.chaos import __main__ as command
from tests.chaos import records
from tests.chaos.bars import Bar, Outcome
from tests.chaos.records import Record
from training.experiments.results import check_section

PAGE = "Before.\n\n<!-- chaos -->\nold\n<!-- end of chaos -->\nBehind.\n"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "reliability.md").write_text(PAGE)
    return tmp_path


Bars = dict[int, list[float]]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Bars:
    """Puts bars 1 and 2 in place of all; bar 2 is not met. The scales they were tried with are noted."""
    scales: Bars = {1: [], 2: []}

    def bar(number: int, failures: list[str]) -> Bar:
        def run(scale: float) -> Outcome:
            scales[number].append(scale)
            return Outcome({"requests": 12_345, "worst": "a | b"}, failures)

        return Bar(number, f"promise {number}", run)

    for number, failures in ((1, []), (2, ["3 of 7 were lost"])):
        module = ModuleType(f"tests.chaos.fake_{number}")
        module.BAR = bar(number, failures)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(command, "MODULES", {2: "fake_2", 1: "fake_1"})
    monkeypatch.setattr(records, "commit", lambda: "abc1234")
    return scales


def run(docs: Path, *words: str) -> int:
    return command.main(["--docs", str(docs), *words])


def lines(docs: Path) -> list[Record]:
    return records.read(docs)


def test_bars_are_tried_in_order_and_one_that_is_not_met_is_a_failure(
    docs: Path, tried: Bars, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(docs, "--only", "1,2", "--scale", "0.25") == 1
    assert tried == {1: [0.25], 2: [0.25]}
    text = capsys.readouterr().out
    assert text.index("2. promise 2") < text.index("NOT HELD: 3 of 7 were lost") < text.index("NOT MET")
    assert text.index("NOT MET") < text.index("1. promise 1") < text.index("requests: 12,345", text.index("1. promise"))
    assert text.endswith("not met: 2\n")
    assert not lines(docs)


def test_bars_that_are_met_end_well(docs: Path, tried: Bars) -> None:
    assert run(docs, "--only", "1") == 0
    assert tried == {1: [1.0], 2: []}


@pytest.mark.usefixtures("tried")
def test_figures_are_recorded_as_they_come(docs: Path) -> None:
    assert run(docs, "--only", "1,2", "--record") == 1
    assert [(line.bar, line.scale, line.commit, line.failures) for line in lines(docs)] == [
        (2, 1.0, "abc1234", ["3 of 7 were lost"]),
        (1, 1.0, "abc1234", []),
    ]
    page = (docs / "reliability.md").read_text()
    assert page.startswith("Before.\n\n<!-- chaos -->\n")
    assert page.endswith("<!-- end of chaos -->\nBehind.\n")
    assert "old" not in page
    assert "| 1 | promise 1 | met |" in page
    assert "| 2 | promise 2 | **not met** |" in page
    assert "- Bar 2: 3 of 7 were lost" in page
    assert "| 1 | requests | 12,345 |" in page


def test_what_was_recorded_in_full_at_this_commit_is_not_tried_again(
    docs: Path, tried: Bars, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(docs, "--only", "2", "--record")
    run(docs, "--only", "1", "--record", "--scale", "0.5")
    capsys.readouterr()
    assert run(docs, "--record", "--resume") == 1, "what was not met is still not met"
    assert tried == {1: [0.5, 1.0], 2: [1.0]}
    assert "recorded 20" in capsys.readouterr().out
    monkeypatch.setattr(records, "commit", lambda: "def5678")
    run(docs, "--record", "--resume")
    assert tried == {1: [0.5, 1.0, 1.0], 2: [1.0, 1.0]}


def test_nothing_is_taken_from_a_checkout_with_changes(
    docs: Path, tried: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "commit", lambda: "abc1234+")
    run(docs, "--only", "1", "--record")
    run(docs, "--only", "1", "--record", "--resume")
    assert tried[1] == [1.0, 1.0]


def test_the_page_is_written_anew_from_what_is_recorded(docs: Path, tried: Bars) -> None:
    run(docs, "--only", "1", "--record")
    page = (docs / "reliability.md").read_text()
    (docs / "reliability.md").write_text(PAGE)
    assert run(docs, "--render") == 0
    assert (docs / "reliability.md").read_text() == page
    assert tried[1] == [1.0]


def test_shares_of_a_bar_are_not_in_the_table(docs: Path, tried: Bars) -> None:
    run(docs, "--only", "1", "--record", "--scale", "0.5")
    assert "No bar has been recorded in full." in (docs / "reliability.md").read_text()
    assert tried[1] == [0.5]


def test_a_bar_that_ends_in_an_error_is_not_met_and_the_next_is_tried(
    docs: Path, tried: Bars, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(scale: float) -> Outcome:
        raise ValueError(f"no room for {scale}")

    sys.modules["tests.chaos.fake_2"].BAR = Bar(2, "promise 2", fail)  # type: ignore[attr-defined]
    assert run(docs) == 1
    assert tried[1] == [1.0]
    assert "NOT HELD: it could not be tried to its end: ValueError: no room for 1.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda patch: patch.setattr(command, "MODULES", {1: "nowhere"}), "there is no module tests.chaos.nowhere"),
        (lambda patch: patch.setattr(command, "MODULES", {2: "fake_1"}), r"tests.chaos.fake_1.BAR is Bar\(number=1"),
        (lambda patch: patch.delattr(sys.modules["tests.chaos.fake_1"], "BAR"), "tests.chaos.fake_1.BAR is None"),
    ],
    ids=["no module", "another number", "no bar"],
)
def test_a_bar_that_is_missing_is_named_before_any_is_tried(
    spoil: Callable[[pytest.MonkeyPatch], None],
    text: str,
    docs: Path,
    tried: Bars,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(monkeypatch)
    assert run(docs, "--only", ",".join(map(str, command.MODULES))) == 2
    assert tried == {1: [], 2: []}
    assert re.search(text, capsys.readouterr().err)


def test_a_page_without_a_place_for_the_table_is_said_before_any_bar_is_tried(
    docs: Path, tried: Bars, capsys: pytest.CaptureFixture[str]
) -> None:
    (docs / "reliability.md").write_text("no marks")
    assert run(docs, "--record") == 2
    assert tried == {1: [], 2: []}
    assert "<!-- chaos -->" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--only", "9"], ["--only", "x"], ["--scale", "0"], ["--scale", "1.5"]])
def test_options_that_make_no_sense_are_refused(words: list[str], docs: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(docs, *words)


def test_the_soak_comes_last_and_all_eight_are_there() -> None:
    assert sorted(command.MODULES) == list(range(1, 9))
    assert list(command.MODULES)[-1] == 7


@pytest.mark.parametrize(
    ("value", "text"), [(12_345, "12,345"), (0.012345, "0.01235"), (12_345.678, "12,346"), ("a", "a"), (0, "0")]
)
def test_figures_are_written_for_readers(value: float | str, text: str) -> None:
    assert records.written(value) == text


def test_the_commit_knows_of_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"rev-parse": "abc1234", "status": ""}
    monkeypatch.setattr(records, "_git", lambda *words: said[words[0]])
    assert records.commit() == "abc1234"
    said["status"] = " M service/app.py"
    assert records.commit() == "abc1234+"


def test_the_page_of_the_project_has_a_place_for_the_table() -> None:
    check_section(command.DOCS, records.SECTION, records.PAGE)
    for line in records.read(command.DOCS):
        json.dumps(line.figures)
