"""What is raised where a model has no form in ONNX."""

from __future__ import annotations


class OnnxExporterError(RuntimeError):
    """A model, or a part of it, cannot be exported; the message names the operation and the layer."""
