"""docs/results.md and docs/performance.md: every figure in them comes from the JSON lines beside them."""

from pathlib import Path

RESULTS = "results.md"

BEGIN = "<!-- {name} -->"
END = "<!-- end of {name} -->"
SOURCE = "*Written by `{command}` from [results/{name}.jsonl](results/{name}.jsonl).*"


class ResultsError(Exception):
    """The page has no place for a table, or the lines behind it can't be read."""


def lines_file(docs: Path, name: str) -> Path:
    """Returns the file with an experiment's JSON lines."""
    return docs / "results" / f"{name}.jsonl"


def write_section(docs: Path, name: str, text: str, command: str | None = None, page: str = RESULTS) -> None:
    """Replaces what stands between an experiment's marks in a page, and leaves the rest as it is.

    Arguments:
        docs: The folder of the page.
        name: The name of the experiment.
        text: Its tables and figures.
        command: What writes them, for readers; `reproduce` unless given.
        page: The file with the marks.

    Raises:
        ResultsError: The page or its marks are missing.
    """
    before, after = check_section(docs, name, page)
    source = SOURCE.format(name=name, command=command or f"python -m training reproduce {name}")
    begin, end = BEGIN.format(name=name), END.format(name=name)
    (docs / page).write_text(f"{before}{begin}\n\n{source}\n\n{text}\n{end}{after}")


def check_section(docs: Path, name: str, page: str = RESULTS) -> tuple[str, str]:
    """Returns what stands before and after an experiment's section of a page.

    Raises:
        ResultsError: The page or its marks are missing.
    """
    path = docs / page
    begin, end = BEGIN.format(name=name), END.format(name=name)
    content = path.read_text() if path.exists() else ""
    before, found, rest = content.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ResultsError(f"{path} has no lines '{begin}' and '{end}' to write the table between")
    return before, after
