"""Nothing public is left unexported: what a file offers stands in its ``__all__``, and its package passes it on."""

import importlib
import inspect
import pkgutil

import kobai
from kobai import linalg, nn, ops, special
from kobai.nn import functional as F

ELSEWHERE = {"kobai.nn.averaging", "kobai.nn.data_parallel"}
"""Files whose layers are in optim.swa_utils and in nn.parallel, as in PyTorch."""
IN_ITS_FILE = {"NonDynamicallyQuantizableLinear"}
"""Layers that PyTorch has in nn.modules.linear alone."""


def files(package):
    names = [found.name for found in pkgutil.iter_modules(package.__path__) if not found.name.startswith("_")]
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def defined(file, is_wanted):
    """Public names that the file itself defines."""
    of_it = {n: value for n, value in vars(file).items() if getattr(value, "__module__", None) == file.__name__}
    return {name for name, value in of_it.items() if not name.startswith("_") and is_wanted(value)}


def doors(function):
    """The function, and all that it wraps."""
    while function is not None:
        yield function
        function = getattr(function, "__wrapped__", None)


def has_example(value):
    """What users are meant to call has an example; helpers have none."""
    return inspect.isfunction(value) and ">>>" in (value.__doc__ or "")


def test_every_layer_is_exported():
    """A public class of a file of nn stands in its ``__all__``, and in the package."""
    for file in files(nn):
        layers = defined(file, lambda value: inspect.isclass(value) and issubclass(value, nn.Module))
        missing = layers - {*getattr(file, "__all__", ())} - IN_ITS_FILE
        assert not missing, f"{file.__name__}: not in __all__: {missing}"
        if layers and file.__name__ not in ELSEWHERE:
            assert {*file.__all__} <= {*vars(nn)}, f"kobai.nn lacks what {file.__name__} offers"


def test_every_function_is_exported():
    for file in files(F):
        missing = defined(file, has_example) - {*file.__all__}
        assert not missing, f"{file.__name__}: not in __all__: {missing}"
        assert {*file.__all__} <= {*vars(F)}, f"kobai.nn.functional lacks what {file.__name__} offers"


def test_every_operation_is_within_reach():
    """In kobai, one of its packages, or as a method of Tensor."""
    places = (kobai, F, linalg, special, kobai.Tensor)
    for file in files(ops):
        for name in defined(file, has_example):
            function = getattr(file, name)
            within = [getattr(place, name) for place in places if hasattr(place, name)]
            assert function in [f for found in within for f in doors(found)], f"{file.__name__}.{name}"
