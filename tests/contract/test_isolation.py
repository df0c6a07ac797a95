"""What training and serving share is files: serving works without anything that training needs."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SERVE = """
import sys
from pathlib import Path
import service.__main__
from service.app import create_app
from service.catalog import Catalog
from service.runtime import Runtime
from service.settings import Settings
create_app(Settings())
repository = Catalog(Path("models"), Runtime("cpu")).open()
assert repository.datasets()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""

TRAIN = "import sys, training.__main__; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def modules(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_serving_imports_nothing_of_training() -> None:
    loaded = modules(SERVE)
    assert {"service", "onnxruntime", "fastapi"} <= loaded
    assert not loaded & {"torch", "onnx", "onnxscript", "training", "scipy", "sklearn", "polars", "jsonschema", "httpx"}


def test_training_imports_nothing_of_serving() -> None:
    loaded = modules(TRAIN)
    assert {"training", "torch"} <= loaded
    assert not loaded & {"service", "fastapi", "uvicorn", "pydantic"}
