"""Only the section of an experiment is rewritten."""

from pathlib import Path

import pytest

from training.experiments.results import ResultsError, write_section

PAGE = "# Results\n\nwords\n\n<!-- a -->\nold\n<!-- end of a -->\n\nmore\n"


def test_only_the_section_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(PAGE)
    write_section(tmp_path, "a", "new\n")
    source = "*Written by `python -m training reproduce a` from [results/a.jsonl](results/a.jsonl).*"
    assert page.read_text() == PAGE.replace("-->\nold\n", f"-->\n\n{source}\n\nnew\n\n")
    write_section(tmp_path, "a", "newer\n", "make bench")
    assert page.read_text() == PAGE.replace(
        "-->\nold\n", f"-->\n\n{source.replace('python -m training reproduce a', 'make bench')}\n\nnewer\n\n"
    )


def test_another_page_may_have_the_section(tmp_path: Path) -> None:
    (tmp_path / "speed.md").write_text(PAGE)
    write_section(tmp_path, "a", "new\n", page="speed.md")
    assert "new" in (tmp_path / "speed.md").read_text()
    with pytest.raises(ResultsError, match="other.md has no lines"):
        write_section(tmp_path, "a", "new\n", page="other.md")


@pytest.mark.parametrize("text", ["", "# Results\n", PAGE.replace("<!-- end of a -->", "")])
def test_a_page_without_the_marks_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "results.md"
    page.write_text(text)
    with pytest.raises(ResultsError, match="results.md has no lines '<!-- a -->'"):
        write_section(tmp_path, "a", "new\n")
    assert page.read_text() == text


def test_a_missing_page(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="results.md has no lines"):
        write_section(tmp_path, "a", "new\n")
