"""What is to be done: which parts of which tables, where their scores go, and what an earlier run has done of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.manifest import Manifest
from service.offline.errors import OfflineError
from service.offline.outputs import Counts, clear_unfinished, finished
from service.offline.scoring import Options, Task, metadata_of
from service.offline.tables import Part, divide, find_tables, rows_of, stem_of


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        files: The number of tables.
        tasks: What is left to do.
        skipped: The number of files with scores that are there already.
        done: What was found in their rows.
    """

    files: int
    tasks: Sequence[Task]
    skipped: int
    done: Counts

    def rows(self) -> int | None:
        """Returns the number of rows that are left to score, None if only reading would tell.

        Raises:
            OfflineError: A table can't be read.
        """
        total = 0
        for task in self.tasks:
            rows = rows_of(task.part)
            if rows is None:
                return None
            total += rows
        return total


def whole_tables(file: Path, out: Path) -> list[Task]:
    """Returns the one task that makes of a table a file."""
    return [Task(Part(str(file)), str(out))]


def blocks_of(rows: int) -> Callable[[Path, Path], list[Task]]:
    """Returns what makes of a table a folder with a file for each block of about so many rows."""

    def tasks(file: Path, out: Path) -> list[Task]:
        return [Task(part, str(out / f"{part.first_row:012}.parquet")) for part in divide(str(file), rows)]

    return tasks


def make_plan(
    inputs: Sequence[str],
    out: Path,
    manifest: Manifest,
    options: Options,
    tasks_of: Callable[[Path, Path], list[Task]],
    resume: bool = False,
) -> Plan:
    """Finds what is to be done; nothing is written, but what a killed run has left half done is removed.

    Raises:
        OfflineError: A table is not there or can't be read, two of them have the same name, or there are scores
            already that this run would not have written or, without `resume`, any at all.
    """
    out = out.absolute()
    tables = find_tables(inputs)
    targets: dict[Path, Path] = {}
    to_file = tasks_of is whole_tables and is_one_file(inputs) and out.suffix == ".parquet" and not out.is_dir()
    for file, name in tables:
        if file.resolve().is_relative_to(out.resolve()):
            where = "is" if to_file else "lies in"
            raise OfflineError(f"{file}: {where} {out}, where the scores are to go")
        target = out if to_file else out / f"{stem_of(name)}.parquet"
        if target in targets:
            raise OfflineError(f"{file}: its scores would go to {target}, as those of {targets[target]} do")
        targets[target] = file
    tasks = [task for target, file in targets.items() for task in checked(tasks_of(file, target), target)]
    left: list[Task] = []
    done = Counts()
    for task in tasks:
        path = Path(task.out)
        if path.exists():
            if not resume:
                raise OfflineError(
                    f"{path}: is there already; choose another --out, or score what is missing by --resume"
                )
            done += finished(path, metadata_of(task, manifest, options))
        else:
            left.append(task)
    clear_unfinished(Path(task.out) for task in left)
    return Plan(len(tables), left, len(tasks) - len(left), done)


def is_one_file(inputs: Sequence[str]) -> bool:
    """Tells whether inputs are the name of a file, and no pattern or folder."""
    return len(inputs) == 1 and Path(inputs[0]).is_file()


def checked(tasks: list[Task], target: Path) -> list[Task]:
    """Returns tasks unless another kind of run, or one with other blocks, has written where they would.

    Raises:
        OfflineError: One has.
    """
    expected = {Path(task.out) for task in tasks}
    if target in expected:
        if target.is_dir():
            raise OfflineError(f"{target}: is a folder, as --engine ray makes them; choose another --out")
    elif target.is_file():
        raise OfflineError(f"{target}: is a file, as --engine local makes them; choose another --out")
    elif target.is_dir():
        for path in sorted(target.iterdir()):
            if path not in expected and not path.name.startswith("."):
                raise OfflineError(f"{path}: is there already, and is none of this run's blocks; choose another --out")
    return tasks
