"""``python -m tests.monitoring.gpu_build``: the service, as if its onnxruntime were one for GPUs; it gets the CPU."""

import sys

import onnxruntime

from service.__main__ import main
from service.runtime import CPU, CUDA

if __name__ == "__main__":
    onnxruntime.get_available_providers = lambda: [CUDA, CPU]
    onnxruntime.preload_dlls = lambda: None
    sys.exit(main())
