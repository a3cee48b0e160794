"""Every public name with its arguments and their defaults, every member of every public class: ``public_surface.txt``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from freezing import check, difference

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("api_table", ROOT / "scripts" / "api_table.py")
api_table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(api_table)

PATHS = {
    "kobai.errors": "BackendError CaptureError CheckpointError DataError",
    "kobai.gradcheck": "gradcheck",
    "kobai.serialization": "load save",
    "kobai.lab": "Probe diagnose treat Doctor compare tune EXPERIMENTS Experiment Result Settings run report",
    "kobai.lab.experiments.register": "EXPERIMENTS find read run write",
    "kobai.bench": "CAPTURED EAGER Plan Timing facts measure picture win",
    "kobai.cli": "main",
    "kobai.autograd.function": "Function",
    "kobai.backends.cuda": "is_built matmul",
    "kobai.backends.cudnn": "is_available version",
    "kobai.backends.mkl": "is_available",
    "kobai.backends.mps": "is_available is_built",
    "kobai.cuda.amp": "GradScaler autocast",
    "kobai.distributions.kl": "kl_divergence",
    "kobai.nn.parameter": "Parameter",
    "kobai.nn.utils.parametrizations": "orthogonal spectral_norm weight_norm",
    "kobai.nn.utils.parametrize": "ParametrizationList cached is_parametrized register_parametrization "
    "remove_parametrizations type_before_parametrizations",
    "kobai.nn.utils.rnn": "PackedSequence pack_padded_sequence pack_sequence pad_packed_sequence pad_sequence "
    "unpack_sequence unpad_sequence",
    "kobai.optim.adadelta": "Adadelta",
    "kobai.optim.adagrad": "Adagrad",
    "kobai.optim.adam": "Adam",
    "kobai.optim.adamax": "Adamax",
    "kobai.optim.asgd": "ASGD",
    "kobai.optim.lbfgs": "LBFGS",
    "kobai.optim.lr_scheduler": "_LRScheduler",
    "kobai.optim.nadam": "NAdam",
    "kobai.optim.optimizer": "Optimizer required",
    "kobai.optim.radam": "RAdam",
    "kobai.optim.rmsprop": "RMSprop",
    "kobai.optim.rprop": "Rprop",
    "kobai.optim.sgd": "SGD",
    "kobai.utils.data.dataloader": "DataLoader",
    "kobai.utils.data.dataset": "ChainDataset ConcatDataset Dataset IterableDataset StackDataset Subset TensorDataset "
    "random_split",
    "kobai.utils.data.sampler": "BatchSampler RandomSampler Sampler SequentialSampler SubsetRandomSampler "
    "WeightedRandomSampler",
}
"""Names that programs import from where PyTorch has them too, and from places that the table of docs/api.md leaves out."""

INTERNAL = "class_getitem deepcopy delattr dir format getattr getattribute init init_subclass new replace repr setattr"
UNSAID = {f"__{name}__" for name in INTERNAL.split()}
"""Special methods that say how a class is made and shown, not what programs may do with it."""


def surface() -> list[str]:
    """The lines of the file."""
    for path in (*api_table.MODULES, *PATHS):  # all of them first: some are names of kobai only once they are loaded
        importlib.import_module(path)
    names = {path: api_table.public_names(importlib.import_module(path)) for path in api_table.MODULES}
    public = {}  # class: the first path under which it is public
    for path in (*api_table.MODULES, *PATHS):
        for name in names.get(path) or PATHS[path].split():
            value = getattr(importlib.import_module(path), name)
            if inspect.isclass(value):
                public.setdefault(value, f"{path}.{name}")
    lines = []
    for path, listed in (*names.items(), *((path, text.split()) for path, text in PATHS.items())):
        lines += ["", f"[{path}]"]
        for name in listed:
            lines += described(path, name, getattr(importlib.import_module(path), name), public)
    return lines[1:]


def described(path: str, name: str, value: Any, public: dict[type, str]) -> list[str]:
    """The lines of one name."""
    if inspect.isclass(value):
        first = public[value]
        if first != f"{path}.{name}":
            return [f"{name} = {first}"]
        bases = [base for base in value.__mro__[1:] if base in public or not base.__module__.startswith("kobai")]
        bases = [
            b for b in bases if b.__module__ not in ("typing", "abc") and b not in (object, Exception, BaseException)
        ]
        shown = ", ".join(public.get(base, base.__name__) for base in bases)
        return [
            f"class {name}{arguments(value) if _made_by_us(value) else ''}{f' is {shown}' * bool(shown)}",
            *members(value, public),
        ]
    if inspect.ismodule(value):
        return [f"{name}: module {value.__name__}"]
    if inspect.isroutine(value):
        return [f"{name}{arguments(value)}"]
    simple = isinstance(value, (str, int, float, tuple))
    return [f"{name} = {_Shown(value)!r}" if simple else name]


def _made_by_us(cls: type) -> bool:
    makers = (next(base for base in cls.__mro__ if name in vars(base)) for name in ("__init__", "__new__"))
    return any(base.__module__.startswith("kobai") for base in makers)


def members(cls: type, public: dict[type, str]) -> Iterator[str]:
    """A class's own members, and those of its private bases; what a public base has in the same form is said there."""
    inherited = {
        line for base in cls.__mro__[1:] if base in public for line in (_member(base, name) for name in dir(base))
    }
    for name in sorted(dir(cls)):
        line = _member(cls, name)
        if line and line not in inherited:
            yield f"    {line}"


def _member(cls: type, name: str) -> str:
    special = name.startswith("__")
    if (name.startswith("_") and not special) or name in UNSAID:
        return ""
    owner = next((base for base in cls.__mro__ if name in vars(base)), None)
    if owner is None or not owner.__module__.startswith("kobai"):
        return ""
    value = vars(owner)[name]
    if isinstance(value, (staticmethod, classmethod)):
        return f".{name}{arguments(value.__func__)} {type(value).__name__}"
    if inspect.isroutine(value) and callable(value):
        return f".{name}{'' if special else arguments(value)}"
    return "" if special else f".{name}"  # a property, a slot or a constant: which, is no matter


def arguments(function: Any) -> str:
    """Names, kinds and defaults of what a function or a class takes; annotations are no promise."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # of a built-in type
        return "(...)"
    plain = [p.replace(annotation=p.empty, default=_Shown.of(p.default)) for p in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


class _Shown:
    """A default as a program would write it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @staticmethod
    def of(value: Any) -> Any:
        return value if value is inspect.Parameter.empty else _Shown(value)

    def __repr__(self) -> str:
        if type(self.value) is float:
            return f"{self.value:.12g}"
        name = getattr(self.value, "__qualname__", None)
        return name or re.sub(r" at 0x[0-9a-f]+|<([\w.]+) object>", r"\1", repr(self.value))


def test_names_arguments_and_members_are_as_they_were(request):
    check(request, "public_surface.txt", surface())


def test_a_name_gone_a_default_changed_and_a_name_that_is_new_are_told_apart():
    before = ["[kobai]", "abs(input)", "add(input, other, *, alpha=1)"]
    assert difference("x", before, before) == ""
    changed = difference("x", before, ["[kobai]", "add(input, other, *, alpha=2)"])
    assert "2 lines gone or changed" in changed
    assert "-abs(input)\n-add(input, other, *, alpha=1)\n+add(input, other, *, alpha=2)" in changed
    added = difference("x", before, [*before, "angle(input)"])
    assert "new, and a promise" in added
    assert "gone" not in added
    assert "+angle(input)" in added


@pytest.mark.parametrize("path", PATHS)
def test_it_can_be_imported_from_there(path):
    module = importlib.import_module(path)
    for name in PATHS[path].split():
        assert hasattr(module, name)
