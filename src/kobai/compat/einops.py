"""einops, which programs of transformers use: it learns of Kobai's tensors when it is imported, before or after Kobai.

einops asks each of its backends whether a tensor is its own, and finds them as subclasses of ``AbstractBackend``. So one is
defined when that module has been executed. ``einops.layers.kobai`` has layers that ``einops.layers.torch`` has.

Source: einops, "Writing a backend"; PEP 302 (finders).
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

BACKENDS, LAYERS = "einops._backends", "einops.layers.kobai"


def introduce(backends: ModuleType) -> None:
    """Define einops' backend for Kobai's tensors."""
    kobai: Any = sys.modules["kobai"]  # whole by the time a tensor is seen; this file stands on a lower floor

    class KobaiBackend(backends.AbstractBackend):  # type: ignore[misc, name-defined]
        framework_name = "kobai"

        def is_appropriate_type(self, tensor: Any) -> bool:
            return isinstance(tensor, kobai.Tensor)

        def from_numpy(self, x: Any) -> Any:
            return kobai.from_numpy(x)

        def to_numpy(self, x: Any) -> Any:
            return x.detach().cpu().numpy()

        def arange(self, start: int, stop: int) -> Any:
            return kobai.arange(start, stop)

        def transpose(self, x: Any, axes: Any) -> Any:
            return x.permute(axes)

        def reduce(self, x: Any, operation: str, axes: Any) -> Any:
            if operation in ("min", "max"):
                return getattr(x, f"a{operation}")(dim=axes)
            if operation in ("sum", "mean"):
                return getattr(x, operation)(dim=axes)
            for axis in sorted(axes, reverse=True):  # any, all, prod: over one dimension at a time
                x = getattr(x, operation)(dim=axis)
            return x

        def stack_on_zeroth_dimension(self, tensors: list[Any]) -> Any:
            return kobai.stack(tensors)

        def add_axis(self, x: Any, new_position: int) -> Any:
            return x.unsqueeze(new_position)

        def add_axes(self, x: Any, n_axes: int, pos2len: dict[int, int]) -> Any:
            for place in pos2len:
                x = x.unsqueeze(place)
            return x.expand([pos2len.get(i, -1) for i in range(n_axes)])

        def tile(self, x: Any, repeats: Any) -> Any:
            return x.repeat(repeats)

        def concat(self, tensors: list[Any], axis: int) -> Any:
            return kobai.cat(tensors, dim=axis)

        def is_float_type(self, x: Any) -> bool:
            return bool(x.is_floating_point())

        def layers(self) -> Any:
            return importlib.import_module("einops.layers.kobai")

        def einsum(self, pattern: str, *x: Any) -> Any:
            return kobai.einsum(pattern, *x)

    vars(backends)["KobaiBackend"] = KobaiBackend  # einops finds its backends among the subclasses that somebody holds


def layers() -> dict[str, Any]:
    """``Rearrange`` and ``Reduce`` as modules of Kobai."""
    from einops.layers import RearrangeMixin, ReduceMixin

    base = sys.modules["kobai"].nn.Module

    def forward(self: Any, x: Any) -> Any:
        return self._apply_recipe(x)

    def layer(name: str, mixin: type) -> type:
        return type(name, (mixin, base), {"forward": forward, "__module__": LAYERS, "__doc__": mixin.__doc__})

    return {"Rearrange": layer("Rearrange", RearrangeMixin), "Reduce": layer("Reduce", ReduceMixin)}


class Finder:
    """Adds the backend to einops' module of backends when that is imported, and finds the layers."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """As importlib wants it; first of all finders."""
        if name == LAYERS:
            return ModuleSpec(name, Finder)  # type: ignore[arg-type]
        spec = PathFinder.find_spec(name, path) if name == BACKENDS else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def introduced(module: ModuleType) -> None:
                execute(module)
                introduce(module)

            spec.loader.exec_module = introduced  # type: ignore[method-assign]
        return spec

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """As importlib wants it: an ordinary module."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Fill the module of layers."""
        vars(module).update(layers())


def connect() -> None:
    """Let einops know of Kobai, now or when it is imported."""
    sys.meta_path.insert(0, Finder)
    if BACKENDS in sys.modules:
        introduce(sys.modules[BACKENDS])
