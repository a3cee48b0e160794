"""What each primitive is in ONNX: one table, and the files that fill it.

``FORMS[key](graph, *args, **options)`` adds the nodes for a call of the primitive ``key`` and returns the name of its result.
``args`` are those of the primitive, with a :class:`~kobai.onnx.arrays.Value` in the place of each tensor; a number among them
may be a :class:`~kobai.onnx.sizes.Size`. Some of NumPy's functions, which operations that are no primitives call, are there
too.
"""

from kobai.onnx.forms import elementwise, layers, losses, recurrent, reductions, shapes
from kobai.onnx.forms._table import FORMS

__all__ = ["FORMS"]
