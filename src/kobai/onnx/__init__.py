"""``kobai.onnx``: models as files of ONNX, which many programs run, and the way back.

:func:`export` runs a model on examples and notes its primitives (``trace.py``, ``arrays.py``), finds out which sizes depend
on which axes (``sizes.py``), and writes what each primitive is in ONNX (``forms/``) into a graph (``graph.py``). :func:`load`
makes a module of a file (``load.py``, ``readers.py``). The package ``onnx`` does the files.
"""

from __future__ import annotations

from kobai.compat.absent import within
from kobai.onnx.errors import OnnxExporterError
from kobai.onnx.export import TrainingMode, export, is_in_onnx_export
from kobai.onnx.load import OnnxModule, load

__all__ = ["OnnxExporterError", "OnnxModule", "TrainingMode", "export", "is_in_onnx_export", "load"]

__getattr__ = within(
    __name__,
    """
    ExportOptions InputObserver JitScalarType ONNXProgram ONNXRuntimeOptions OnnxExporterWarning OnnxRegistry
    OperatorExportTypes dynamo_export enable_fake_mode register_custom_op_symbolic select_model_mode_for_export
    unregister_custom_op_symbolic verification symbolic_helper symbolic_opset9 utils ops
    """,
)
