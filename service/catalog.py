"""Follows a folder of models: what is new in it is loaded beside what is served, and then takes its place at once."""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from service.detector import Detector
from service.errors import StartError
from service.folders import VERSION, Look, folders, look_at
from service.repository import ModelRepository, Refusal
from service.runtime import Runtime
from service.signatures import SUFFIX, Signers
from service.thresholds import THRESHOLDS, Thresholds, read_thresholds

logger = logging.getLogger(__name__)

SECONDS_OF_QUIET = 1.0
"""What can't be loaded is given so long after its last change, for it may still be being copied."""

SECONDS_TO_RETRY = 60.0
"""What was refused may have been so for want of memory or of file handles, and is tried again."""

Key = tuple[str, str]
"""A dataset's folder, and the name of a version's folder or of the file of changed thresholds in it."""


@dataclass
class Entry:
    """Something that can be loaded.

    Attributes:
        look: How it looked when it was last tried.
        tried: When that was, by `time.monotonic`.
        refusal: Why the last try failed, if it did.
        loaded: What is served of it: of the last try that did not fail.
    """

    look: Look | None = None
    tried: float = 0.0
    refusal: Refusal | None = None
    loaded: Detector | Thresholds | None = None

    def is_to_be_tried(self, look: Look, retry: bool) -> bool:
        """Tells whether it looks otherwise than before, or was refused long ago."""
        if self.refusal and (retry or time.monotonic() - self.tried > SECONDS_TO_RETRY):
            return True
        return look != self.look


class Catalog:
    """What is served of a folder of models. Not to be used by two threads at once.

    Arguments:
        models: The folder, with a `<dataset>/<version>/` for each model.
        runtime: Makes the sessions.
        signers: Who has to have signed everything, if signatures are demanded.

    Attributes:
        loads: How many times something was loaded ("served"), and how many times it could not be ("refused").
        pending: Whether something can't be loaded that may still be being copied, and is to be looked at again soon.
    """

    def __init__(self, models: Path, runtime: Runtime, signers: Signers | None = None) -> None:
        self._models = models
        self._runtime = runtime
        self._signers = signers
        self._entries: dict[Key, Entry] = {}
        self._unreadable: dict[str, Refusal] = {}
        self.loads = {"served": 0, "refused": 0}
        self.pending = False

    def open(self, strict: bool = False) -> ModelRepository:
        """Loads everything for the first time.

        Arguments:
            strict: Whether the first refusal is a failure.

        Raises:
            StartError: The runtime or the folder can't be used, or it has no model that can be served; or, if this
                is strict, something is refused.
        """
        self._runtime.prepare()
        self._update(self._scan(), seconds_of_quiet=0.0)
        repository = self._repository()
        refusals = repository.refusals
        if refusals and (strict or not repository.datasets()):
            more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
            raise StartError(refusals[0].text + more)
        if not repository.datasets():
            raise StartError(f"{self._models}: there is no model folder <dataset>/<version>/ in it (RADOGAGA_MODELS)")
        return repository

    def look(self, retry: bool = False) -> ModelRepository | None:
        """Looks what has changed, and returns what is to be served from now on; None if nothing has changed.

        What can't be loaded is refused, and what was served of it goes on. So does everything if the folder can't be
        read or has no model left: it may not be mounted.

        Arguments:
            retry: Whether what was refused is tried again although it looks as it did.
        """
        before = self._state()
        try:
            found = self._scan()
            if not any(name != THRESHOLDS for _, name in found):
                raise StartError(f"{self._models}: there is no model left in it; what was there before is served on")
            self._unreadable.pop("", None)
        except StartError as error:
            self._unreadable[""] = self._refuse(("", ""), error, self._unreadable.get(""))
        else:
            self._update(found, SECONDS_OF_QUIET, retry)
        return None if self._state() == before else self._repository()

    def fell_back(self, repository: ModelRepository) -> bool:
        """Tells whether sessions did not get the execution provider that was meant."""
        return self._runtime.fell_back(repository.providers())

    def _scan(self) -> dict[Key, Path]:
        found: dict[Key, Path] = {}
        for parent in folders(self._models):
            dataset = parent.name
            try:
                versions = folders(parent)
                self._unreadable.pop(dataset, None)
            except StartError as error:
                self._unreadable[dataset] = self._refuse((dataset, ""), error, self._unreadable.get(dataset))
                found |= {key: parent / key[1] for key in self._entries if key[0] == dataset}
                continue
            found |= {(dataset, folder.name): folder for folder in versions}
            if versions and os.path.lexists(parent / THRESHOLDS):
                found[dataset, THRESHOLDS] = parent / THRESHOLDS
        for dataset in self._unreadable.keys() - {key[0] for key in found} - {""}:
            del self._unreadable[dataset]
        return found

    def _update(self, found: Mapping[Key, Path], seconds_of_quiet: float, retry: bool = False) -> None:
        self.pending = False
        known = {key[0] for key, entry in self._entries.items() if isinstance(entry.loaded, Detector)}
        for key in self._entries.keys() - found.keys():
            logger.info("gone", extra={"fields": {"model": "/".join(key)}})
            del self._entries[key]
        for key, path in found.items():
            look = look_at(path, beside=path.with_name(path.name + SUFFIX))
            if look is not None:
                entry = self._entries.setdefault(key, Entry())
                if path.name == THRESHOLDS and entry.loaded is None and key[0] in known:
                    entry.loaded = Thresholds(dataset=key[0])  # what is in force while there is no file
                if entry.is_to_be_tried(look, retry):
                    self._try(key, path, look, entry, seconds_of_quiet)

    def _try(self, key: Key, path: Path, look: Look, entry: Entry, seconds_of_quiet: float) -> None:
        try:
            loaded = self._load(path)
        except StartError as error:
            if not look.is_quiet(seconds_of_quiet):
                self.pending = True
                return
            entry.refusal = self._refuse(key, error, entry.refusal)
        else:
            self.loads["served"] += 1
            logger.info("loaded", extra={"fields": {"model": "/".join(key)}})
            entry.loaded, entry.refusal = loaded, None
        entry.look, entry.tried = look, time.monotonic()

    def _load(self, path: Path) -> Detector | Thresholds:
        """Loads a version's folder or a file of changed thresholds.

        Raises:
            StartError: It is refused.
        """
        if path.name != THRESHOLDS and not VERSION.fullmatch(path.name):
            raise StartError(f"{path}: the folder is called '{path.name}', expected a version like 1")
        try:
            if path.name == THRESHOLDS:
                return read_thresholds(path.parent, self._signers)
            return Detector.load(path, self._runtime, self._signers)
        except StartError:
            raise
        except Exception as error:
            logger.exception("unforeseen error while loading %s", path)
            raise StartError(f"{path}: unforeseen: {error!r}; the log has the rest") from error

    def _refuse(self, key: Key, error: StartError, before: Refusal | None) -> Refusal:
        text = str(error)
        if before is not None and before.text == text:
            return before
        self.loads["refused"] += 1
        logger.error("refused: %s", text)
        return Refusal(*key, text, text.replace(f"{self._models}/", ""), datetime.now(UTC))

    def _state(self) -> tuple[object, ...]:
        tried = {key: (entry.loaded, entry.refusal) for key, entry in self._entries.items() if entry.look}
        return tried, dict(self._unreadable)

    def _repository(self) -> ModelRepository:
        detectors: dict[str, dict[int, Detector]] = {}
        for (dataset, name), entry in self._entries.items():
            thresholds = self._thresholds(dataset)
            if isinstance(entry.loaded, Detector) and thresholds is not None:
                change = thresholds.of(int(name))
                if entry.loaded.change != change:
                    entry.loaded = entry.loaded.changed(change)
                detectors.setdefault(dataset, {})[int(name)] = entry.loaded
        refused = [*self._unreadable.values(), *(entry.refusal for entry in self._entries.values() if entry.refusal)]
        histories = {dataset: thresholds for dataset in detectors if (thresholds := self._thresholds(dataset))}
        return ModelRepository(detectors, sorted(refused, key=str), histories)

    def _thresholds(self, dataset: str) -> Thresholds | None:
        """Returns the changes of a dataset's thresholds; None if they are not known, as at a start with a broken file.

        The calibrated thresholds would then be other ones than were in force before.
        """
        entry = self._entries.get((dataset, THRESHOLDS))
        if entry is None:
            return Thresholds.model_construct(dataset=dataset)
        return entry.loaded if isinstance(entry.loaded, Thresholds) else None
