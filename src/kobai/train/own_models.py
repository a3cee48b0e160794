"""Nets of the reader's own, by file and name: ``net.py:MyNet``.

Such a name means running the file, so it counts only where a person or a program gives it: as :class:`OwnModel`. Read from a
checkpoint, a plan or a file of settings it is text, which nothing runs.
"""

from __future__ import annotations

import inspect
import math
import shlex
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from kobai import nn
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.core.untrusted import real
from kobai.errors import CheckpointError
from kobai.ops.create import zeros
from kobai.random import fork_rng
from kobai.train import programs
from kobai.xp import default_device

__all__ = ["OwnModel", "is_own", "make", "named", "short"]

ENDING = ".py:"


def is_own(name: str) -> bool:
    """Whether a model's name is that of a file and a net in it.

    >>> is_own("net.py:MyNet"), is_own("mlp")
    (True, False)
    """
    return ENDING in name


def short(name: str) -> str:
    """The name without the folders of its file.

    >>> short("/home/me/net.py:MyNet"), short("mlp")
    ('net.py:MyNet', 'mlp')
    """
    return name.replace("\\", "/").rpartition("/")[2] if is_own(name) else name


class OwnModel(str):
    """``net.py:MyNet`` from the command line or a program, with the file's whole path: the word to run that file.

    >>> short(OwnModel("net.py::MyNet"))
    'net.py:MyNet'
    """

    __slots__ = ()

    def __new__(cls, text: str) -> OwnModel:
        file, _, name = text.rpartition(":")
        return super().__new__(cls, f"{real(Path(file.rstrip(':')).expanduser())}:{name}")

    def maker(self) -> Callable[..., Any]:
        """The class or function; ValueError if there is none, DataError if the file cannot be run."""
        file, _, name = self.rpartition(":")
        module = _module(file)
        if not name:
            raise ValueError(f"expected {Path(file).name}:NAME, with the name of a net. {_has(module)}")
        if not hasattr(module, name):
            raise ValueError(f"{file} has no {name!r}. {_has(module)}")
        value = getattr(module, name)
        if told := programs.foreign(value):
            raise ValueError(f"{name!r} in {file} {told}")
        if isinstance(value, nn.Module):
            raise ValueError(
                f"{short(self)} is a net already made, and each run makes a new one: name its class, or a function"
            )
        if not callable(value) or (isinstance(value, type) and not issubclass(value, nn.Module)):
            raise ValueError(
                f"expected {short(self)} to be a class of nets, or a function, got {value!r}. {_has(module)}"
            )
        made: Callable[..., Any] = value
        return made


def named(text: str) -> str:
    """A model's name from a person or a program: of a net in a file an :class:`OwnModel`."""
    return OwnModel(text) if is_own(text) else text


def held(name: str, given: str | None, where: Any) -> str:
    """The model that a checkpoint calls ``name``; if that is the net of a file, what is ``given``, or else CheckpointError."""
    if is_own(name):
        if given is None:
            raise CheckpointError(
                f"{where}: its net is of your own file, {name}, and a checkpoint may not run code; "
                f"name it: --model {shlex.quote(short(name))}"
            )
        if not is_own(given):
            raise CheckpointError(f"{where}: its net is of your own file: expected --model {short(name)}, got {given}")
        return OwnModel(given)
    if given is not None:
        raise CheckpointError(f"{where}: its net is {short(name)}, which needs no --model")
    return name


def make(model: OwnModel, input_shape: Sequence[int], outputs: int) -> nn.Module:
    """The net, made with what its class or function asks for by name, and tried on two samples of zeros.

    ``input_shape`` is the shape of a sample, ``in_features`` (or ``inputs``) the number of its values, ``in_channels`` that
    of an image; ``num_classes`` (or ``classes``, ``out_features``, ``outputs``) the number of classes, 1 for a regression.

    Raises ValueError for other parameters without a default, for what is no net, and for an output that is not
    (N, ``outputs``).
    """
    known: dict[str, Any] = {"input_shape": tuple(input_shape), "in_features": math.prod(input_shape)}
    known["inputs"] = known["in_features"]
    if len(input_shape) == 3:
        known["in_channels"] = input_shape[0]
    known |= dict.fromkeys(("num_classes", "classes", "out_features", "outputs"), outputs)
    maker = model.maker()
    asked = inspect.signature(maker).parameters.values()
    taken = {p.name: known[p.name] for p in asked if p.name in known and p.kind is not p.POSITIONAL_ONLY}
    variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    missing = [p.name for p in asked if p.default is p.empty and p.kind not in variable and p.name not in taken]
    if missing:
        raise ValueError(
            f"{short(model)} needs {', '.join(missing)}; give it a default, or call it one of what is known: {', '.join(known)}"
        )
    net = _watched(model, "when it is made", lambda: maker(**taken))
    if not isinstance(net, nn.Module):
        raise ValueError(f"expected {short(model)} to make a kobai.nn.Module, got {type(net).__name__}")
    return _tried(net.to(default_device()), model, input_shape, outputs)


def _tried(net: nn.Module, model: OwnModel, input_shape: Sequence[int], outputs: int) -> nn.Module:
    """The net, if it answers two samples as training needs it."""
    samples, training = zeros(2, *input_shape, device=default_device()), net.training
    with no_grad():
        answer = _watched(model, f"given inputs of shape {tuple(samples.shape)}", lambda: net.eval()(samples))
    if not isinstance(answer, Tensor) or tuple(answer.shape) != (2, outputs):
        got = f"a tensor of shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
        what = f"a score for each of {outputs} classes" if outputs > 1 else "one value"
        raise ValueError(f"expected {short(model)} to give (2, {outputs}), {what}, for 2 samples, got {got}")
    return net.train(training)


def _watched(model: OwnModel, when: str, do: Callable[[], Any]) -> Any:
    try:
        return do()
    except Exception as error:
        file = Path(model.rpartition(":")[0])
        raise ValueError(
            f"{short(model)} fails {when}: {file.name}, line {programs.line_of(error, file)}: {type(error).__name__}: {error}"
        ) from error


def _module(file: str) -> ModuleType:
    path = Path(file)
    return _run(file, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=8)
def _run(file: str, changed: int) -> ModuleType:
    """Once in a process, and again when the file has ``changed``; random numbers go on as if it had not been run."""
    with fork_rng():
        return programs.run(file)


def _has(module: ModuleType) -> str:
    """The nets that a module defines."""
    own = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    ]
    return f"It defines {', '.join(own)}" if own else "It defines no class of kobai.nn.Module"
