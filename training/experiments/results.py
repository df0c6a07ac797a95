"""docs/results.md: every figure in it comes from the JSON lines beside it."""

from pathlib import Path

BEGIN = "<!-- {name}: written by `python -m training reproduce {name}` -->"
END = "<!-- end of {name} -->"


class ResultsError(Exception):
    """The page has no place for a table."""


def lines_file(docs: Path, name: str) -> Path:
    """Returns the file with an experiment's JSON lines."""
    return docs / "results" / f"{name}.jsonl"


def write_section(docs: Path, name: str, text: str) -> None:
    """Replaces what stands between an experiment's marks in results.md, and leaves the rest as it is.

    Raises:
        ResultsError: The page or its marks are missing.
    """
    page = docs / "results.md"
    begin, end = BEGIN.format(name=name), END.format(name=name)
    content = page.read_text() if page.exists() else ""
    before, found, rest = content.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ResultsError(f"{page} has no lines '{begin}' and '{end}' to write the table between")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")
