"""What is served at one moment: detectors by dataset and version, and what was refused."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.detector import Detector
from service.errors import DatasetNotFound, VersionNotFound
from service.thresholds import Change, Thresholds


@dataclass(frozen=True)
class Refusal:
    """Something in the folder of models that is not served.

    Attributes:
        dataset: The dataset's folder; empty if it is about all of them.
        entry: The name of the version's folder or of the file in it; empty if it is about the dataset.
        text: What is wrong, naming the file, the field and the value it had.
        reason: The same, with the file's path within the folder of models, for clients.
        since: When it was refused first, for that reason.
    """

    dataset: str
    entry: str
    text: str
    reason: str
    since: datetime

    def __str__(self) -> str:
        """Names what was refused, as a path within the folder of models."""
        return "/".join(part for part in (self.dataset, self.entry) if part)


class ModelRepository:
    """Detectors by dataset and version; never changed, but replaced as a whole.

    Arguments:
        detectors: At least one version of each dataset.
        refusals: What else is in the folder.
        thresholds: The changes of the thresholds of each dataset.

    Attributes:
        refusals: What else is in the folder.
    """

    def __init__(
        self,
        detectors: Mapping[str, Mapping[int, Detector]],
        refusals: Sequence[Refusal] = (),
        thresholds: Mapping[str, Thresholds] | None = None,
    ) -> None:
        self._detectors = detectors
        self._newest = {dataset: versions[max(versions)] for dataset, versions in detectors.items()}
        self._thresholds = thresholds or {}
        self.refusals = tuple(refusals)

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

    def history(self, detector: Detector) -> list[Change]:
        """Returns the changes of a detector's threshold, the oldest first."""
        found = self._thresholds.get(detector.manifest.dataset)
        return found.history(detector.manifest.version) if found else []

    def datasets(self) -> list[str]:
        """Returns the names of the datasets, in alphabetical order."""
        return sorted(self._detectors)

    def providers(self) -> list[str]:
        """Returns the execution providers that the sessions really got."""
        return sorted({detector.provider for detector in self})

    def serves(self, detector: Detector) -> bool:
        """Tells whether a detector is one of these."""
        versions = self._detectors.get(detector.manifest.dataset, {})
        return versions.get(detector.manifest.version) is detector

    def __iter__(self) -> Iterator[Detector]:
        """Iterates over all versions of all datasets."""
        for versions in self._detectors.values():
            yield from versions.values()
