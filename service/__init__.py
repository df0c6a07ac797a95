"""The scoring service: folders under ``models/`` go in, answers over HTTP come out."""

import os

# onnxruntime's Linux wheels report usage unless told not to, and they read this when they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
