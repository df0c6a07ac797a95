"""Every model folder under `models/`, loaded and ready."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from service.detector import Detector
from service.errors import DatasetNotFound, StartError, VersionNotFound
from service.runtime import Runtime
from service.signatures import Signers

VERSION = re.compile(r"[1-9][0-9]{0,8}")


class ModelRepository:
    """Detectors by dataset and version.

    Arguments:
        detectors: At least one version of each dataset.
    """

    def __init__(self, detectors: Mapping[str, Mapping[int, Detector]]) -> None:
        self._detectors = detectors
        self._newest = {dataset: versions[max(versions)] for dataset, versions in detectors.items()}

    @classmethod
    def load(cls, models: Path, runtime: Runtime, signers: Signers | None = None) -> "ModelRepository":
        """Loads every ``<dataset>/<version>/`` under a folder; hidden entries and single files are not models.

        Raises:
            StartError: The folder can't be read or has no model, or any of its models breaks the contract.
        """
        runtime.prepare()
        detectors: dict[str, dict[int, Detector]] = {}
        for dataset in _folders(models):
            for version in _folders(dataset):
                if not VERSION.fullmatch(version.name):
                    raise StartError(f"{version}: the folder is called '{version.name}', expected a version like 1")
                detectors.setdefault(dataset.name, {})[int(version.name)] = Detector.load(version, runtime, signers)
        if not detectors:
            raise StartError(f"{models}: there is no model folder <dataset>/<version>/ in it (RADOGAGA_MODELS)")
        return cls(detectors)

    def find(self, dataset: str, version: int | None = None) -> Detector:
        """Returns one version of a dataset's model, the newest unless it is named.

        Raises:
            DatasetNotFound: No such dataset is served.
            VersionNotFound: The dataset has no such version.
        """
        if version is None:
            try:
                return self._newest[dataset]
            except KeyError:
                raise DatasetNotFound(dataset, self._detectors) from None
        versions = self.versions(dataset)
        try:
            return versions[version]
        except KeyError:
            raise VersionNotFound(dataset, version, versions) from None

    def versions(self, dataset: str) -> Mapping[int, Detector]:
        """Returns the versions of a dataset.

        Raises:
            DatasetNotFound: No such dataset is served.
        """
        try:
            return self._detectors[dataset]
        except KeyError:
            raise DatasetNotFound(dataset, self._detectors) from None

    def datasets(self) -> list[str]:
        """Returns the names of the datasets, in alphabetical order."""
        return sorted(self._detectors)

    def providers(self) -> list[str]:
        """Returns the execution providers that the sessions really got."""
        return sorted({detector.provider for detector in self})

    def __iter__(self) -> Iterator[Detector]:
        """Iterates over all versions of all datasets."""
        for versions in self._detectors.values():
            yield from versions.values()


def find_folder(models: Path, dataset: str, version: int | None = None) -> Path:
    """Returns the folder of one version of a dataset's model, the newest unless it is named; nothing is loaded.

    Raises:
        StartError: The folder of models can't be read.
        DatasetNotFound: There is no such dataset in it.
        VersionNotFound: The dataset has no such version.
    """
    versions = {
        parent.name: {int(folder.name): folder for folder in _folders(parent) if VERSION.fullmatch(folder.name)}
        for parent in _folders(models)
    }
    known = versions.get(dataset)
    if not known:
        raise DatasetNotFound(dataset, [name for name, folders in versions.items() if folders])
    wanted = max(known) if version is None else version
    if wanted not in known:
        raise VersionNotFound(dataset, wanted, known)
    return known[wanted]


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise StartError(f"{parent}: can't be read ({error.strerror}) (RADOGAGA_MODELS)") from error
