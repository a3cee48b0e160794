"""Machine code that calls its own copies of what it was linked with, so that its bits depend on nothing else in the process.

Numba links a compiled function with the code of all that it calls, and optimises everything together once more. Its copy of a
function it calls is then other code than that function's own, or than the copy in a third one: where rounding may be chosen
(``reassoc``, ``contract``), it rounds otherwise. Numba gives all copies one name that may be defined more than once, of which
the loader keeps the first it meets. So it was the order of loading that chose the bits: a process that compiled a loop
called other copies than one that read the same loop from disk. Here the copies get internal linkage once they are optimised:
nobody else sees them.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any


@cache
def pipeline() -> Any:
    """Numba's compiler for ``pipeline_class``; Numba is imported when it is needed."""
    compiler, codegen = (importlib.import_module(f"numba.core.{name}") for name in ("compiler", "codegen"))
    llvm = importlib.import_module("llvmlite.binding")

    class Library(codegen.JITCodeLibrary):  # type: ignore[misc, name-defined]
        def _finalize_final_module(self) -> None:
            # What others link goes through bitcode, as it does when they read this from disk: a copy in memory lists the
            # uses of its values in another order, which optimisation may follow.
            self._shared_module = shared = llvm.parse_bitcode(self._final_module.as_bitcode())
            for function in shared.functions:
                if not function.is_declaration and function.linkage == llvm.Linkage.external:
                    function.linkage = llvm.Linkage.linkonce_odr
            for function in self._final_module.functions:
                if not function.is_declaration and function.linkage == llvm.Linkage.linkonce_odr:
                    function.linkage = llvm.Linkage.internal
            super()._finalize_final_module()

    class Compiler(compiler.Compiler):  # type: ignore[misc, name-defined]
        def compile_extra(self, function: Any) -> Any:
            self.state.library = Library(self.state.targetctx.codegen(), function.__qualname__)
            self.state.library.enable_object_caching()
            return super().compile_extra(function)

    return Compiler
