"""Fits RaDOGAGA and exports it for the service; `RaDOGAGADetector` is the estimator for Python."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.estimator import RaDOGAGADetector

__all__ = ["RaDOGAGADetector"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is asked for
    """Loads the estimator, and all that it needs, when it is asked for."""
    if name in __all__:
        from training.estimator import RaDOGAGADetector

        return RaDOGAGADetector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
