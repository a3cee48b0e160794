"""The places in which PyTorch keeps things: whatever ordinary programs import from them, Kobai has under these names too.

``from kobai.nn.modules.conv import Conv2d`` gives ``kobai.nn.Conv2d`` itself. A path offers all of the place that it names,
for in which file of ``nn`` a layer lies is nobody's business. Modules made here are found last, so a file of the same name
wins, and nothing is imported before it is asked for.
"""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from kobai.compat.absent import (
    ABSENT_MODULES,
    ABSENT_NAMED,
    NAMED_DTYPES,
    MissingName,
    module_above,
    sentence,
    stand_in,
    within,
)
from kobai.dtypes import NAMED_LAYOUTS

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

PLACES = {
    "": "functional _tensor",
    "amp": "amp.autocast_mode amp.grad_scaler",
    "autograd.samples": "_vmap_internals",
    "core.grad_mode": "utils._contextlib",
    "_host": "cpu",
    "compat.versions": "torch_version",
    "core.printing": "_tensor_str",
    "optim.helpers": "optim.optimizer",
    "autograd": "autograd.variable autograd.grad_mode autograd.anomaly_mode",
    "cuda": "cuda.random cuda.memory",
    "ops.typed_cuda": "cuda",
    "cuda.amp": "cuda.amp.autocast_mode cuda.amp.grad_scaler cuda.amp.common",
    "distributions": (
        "distributions.bernoulli distributions.beta distributions.binomial distributions.categorical "
        "distributions.cauchy distributions.chi2 "
        "distributions.continuous_bernoulli distributions.dirichlet distributions.distribution "
        "distributions.exp_family distributions.exponential distributions.fishersnedecor "
        "distributions.geometric distributions.gumbel distributions.half_cauchy distributions.half_normal "
        "distributions.independent distributions.inverse_gamma distributions.kumaraswamy distributions.laplace "
        "distributions.log_normal distributions.logistic_normal distributions.lowrank_multivariate_normal "
        "distributions.mixture_same_family distributions.multinomial distributions.multivariate_normal "
        "distributions.negative_binomial distributions.normal distributions.one_hot_categorical "
        "distributions.pareto distributions.poisson distributions.relaxed_bernoulli "
        "distributions.relaxed_categorical distributions.studentT distributions.transformed_distribution "
        "distributions.uniform distributions.von_mises "
        "distributions.weibull distributions.wishart distributions.lkj_cholesky"
    ),
    "func": "nn.utils.stateless",
    "nn": (
        "nn.modules nn.modules.activation nn.modules.adaptive nn.modules.batchnorm nn.modules.channelshuffle "
        "nn.modules.container nn.modules.conv nn.modules.distance nn.modules.dropout nn.modules.flatten "
        "nn.modules.fold nn.modules.instancenorm nn.modules.lazy nn.modules.linear nn.modules.loss "
        "nn.modules.module nn.modules.normalization nn.modules.padding nn.modules.pixelshuffle nn.modules.pooling "
        "nn.modules.rnn nn.modules.sparse nn.modules.transformer nn.modules.upsampling nn.modules.utils nn.parameter"
    ),
    "nn.parallel": "nn.parallel.distributed nn.parallel.replicate nn.parallel.scatter_gather nn.parallel.parallel_apply",
    "core.tape": "utils.hooks",
    "accelerator": "accelerator.memory",
    "nn.utils.making": "nn.utils nn.utils.init nn.utils.memory_format",
    "nn.utils": "nn.utils.clip_grad nn.utils.convert_parameters",
    "nn.utils.weight": "nn.utils.spectral_norm nn.utils.weight_norm",
    "gradcheck": "autograd.gradcheck",
    "autograd.check": "autograd.gradcheck",
    "profiler": "autograd.profiler",
    "nn.tuples": "nn.modules.utils nn.common_types",
    "optim": "optim.lr_scheduler optim.adamw optim._adafactor optim._muon",
    "utils.data.collate": "utils.data._utils.collate",
    "utils.data": (
        "utils.data.dataset utils.data.dataloader utils.data._utils utils.data._utils.collate utils.data._utils.worker"
    ),
}
"""Module of Kobai -> the paths of PyTorch's that name what is in it."""

SELDOM = {
    "": "torch",
    "_C": "PyTorchFileReader PyTorchFileWriter",
    "_host": "get_device_module",
    "cuda": "OutOfMemoryError Stream Event",
    "futures": "Future",
    "jit": "ScriptModule ScriptFunction",
    "ops.linear": "spmm",
    "ops.symbolic": (
        "cond sym_float sym_int sym_ite sym_max sym_min sym_not sym_sqrt sym_sum SymBool SymFloat SymInt "
        "_assert_async _check _check_index _check_is_size _check_type _check_value _shape_as_tensor"
    ),
    "storage": "TypedStorage UntypedStorage",
    "utils.dlpack": "to_dlpack",
}
"""Names of ``torch`` itself that few programs use, and where they are; also what begins with ``_foreach_``."""

RENAMED = {
    "SpectralNorm": "nn.utils.weight._SpectralNorm",
    "WeightNorm": "nn.utils.weight._WeightNorm",
    "is_lazy": "nn.lazy.is_lazy",
    "LazyModuleMixin": "nn.lazy.LazyModuleMixin",
    "UninitializedTensorMixin": "nn.lazy.UninitializedTensorMixin",
    "_ConvNd": "nn.conv._Conv",
    "_ConvTransposeNd": "nn.conv._ConvTranspose",
    "_BatchNorm": "nn.batchnorm._BatchNorm",
    "_NormBase": "nn.batchnorm._NormBase",
    "_InstanceNorm": "nn.batchnorm._InstanceNorm",
    "_DropoutNd": "nn.dropout._Dropout",
    "_MaxPoolNd": "nn.pooling._MaxPool",
    "_AdaptiveMaxPoolNd": "nn.pooling._AdaptiveMax",
    "_LPPoolNd": "nn.pooling._LPPool",
    "NonDynamicallyQuantizableLinear": "nn.linear.NonDynamicallyQuantizableLinear",
    "_Loss": "nn.loss._Loss",
    "_WeightedLoss": "nn.loss._Weighted",
    "register_module_forward_pre_hook": "nn.hooks.register_module_forward_pre_hook",
    "register_module_forward_hook": "nn.hooks.register_module_forward_hook",
    "register_module_full_backward_pre_hook": "nn.hooks.register_module_full_backward_pre_hook",
    "register_module_full_backward_hook": "nn.hooks.register_module_full_backward_hook",
    "register_module_backward_hook": "nn.hooks.register_module_full_backward_hook",
    "_IncompatibleKeys": "nn._state.IncompatibleKeys",
    "Tensor": "core.tensor.Tensor",
    "_vmap": "autograd.samples.vmap",
    "_DecoratorContextManager": "core.grad_mode._Switch",
    "_MultiProcessingDataLoaderIter": "utils.data.workers.ThreadedIterator",
    "_SingleProcessDataLoaderIter": "utils.data.dataloader.BatchIterator",
    "_BaseDataLoaderIter": "utils.data.workers.LoaderIterator",
    "_LRScheduler": "optim.lr_scheduler.LRScheduler",
}
"""What is private here, or in PyTorch, and what is in all of its files -> what it is here."""

_SELDOM = {name: place for place, names in SELDOM.items() for name in names.split()}

_OTHERWISE = {"spmm": "mm"}
_NAMED = {**NAMED_DTYPES, **NAMED_LAYOUTS}
"""What can be named and compared, and no tensor has."""

ALIASES: dict[str, list[str]] = {}
for _place, _paths in PLACES.items():
    for _path in _paths.split():
        ALIASES.setdefault(_path, []).append(_place)

PATHS = {*ALIASES, *ABSENT_MODULES}
"""Every path that leads somewhere and where no file lies."""


def _module(path: str) -> ModuleType:
    name = f"kobai.{path}".rstrip(".")
    __import__(name)
    return sys.modules[name]


def public(module: ModuleType) -> list[str]:
    """What ``from module import *`` gives."""
    names: list[str] = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    return names


def _elsewhere(path: str, name: str) -> Any:
    """What ``name`` is in the places that ``path`` names; AttributeError if there is nothing of the kind."""
    places = [] if name.startswith("__") else ALIASES.get(path, [])
    if name in RENAMED:
        place, _, name = RENAMED[name].rpartition(".")
        places = [place]
    for place in places:
        module = _module(place)
        if name in vars(module) or (place and place != path and hasattr(module, name)):
            return getattr(module, name)
    raise MissingName(f"kobai.{path}".rstrip("."), name)


def _alias(path: str) -> dict[str, Any]:
    """What a module that is another name for its places has in it."""

    def __getattr__(name: str) -> Any:
        if f"{path}.{name}" in PATHS:
            return _module(f"{path}.{name}")
        return __dir__() if name == "__all__" else _elsewhere(path, name)

    def __dir__() -> list[str]:
        return sorted({name for place in ALIASES[path] for name in public(_module(place))})

    owners = [vars(_module(place)) for place in ALIASES[path]]
    held = {  # for programs that look through vars(module) for classes
        name: value
        for owner in reversed(owners)
        for name, value in owner.items()
        if not (name.startswith("_") or isinstance(value, ModuleType))
    }
    return {**held, "__getattr__": __getattr__, "__dir__": __dir__}


def connect(package: str, lazy: tuple[str, ...] = ()) -> None:
    """Let a module of ours import ``lazy`` ones and PyTorch's paths beneath it on demand, find in its places what PyTorch's
    module has and ours has not, and say of other names what is wrong.

    Not by a ``__getattr__`` in its file: type checkers would then believe that it has every name.
    """
    path = package.removeprefix("kobai").lstrip(".")
    prefix = path and f"{path}."

    elsewhere, layers, operations = path in ALIASES, path.startswith("nn"), path == "ops"

    def __getattr__(name: str) -> Any:
        full = prefix + name
        if name in lazy or full in PATHS:
            return _module(full)
        if full in ABSENT_NAMED:
            return stand_in(full)
        if elsewhere or (layers and name in RENAMED):
            return _elsewhere(path, name)
        if operations and not name.startswith("_") and (operators := _module("library").namespace(name)) is not None:
            return operators
        if not path and name in _NAMED:
            return _NAMED[name]
        if (
            not path
            and (place := _SELDOM.get(name, "ops.foreach" if name.startswith("_foreach_") else None)) is not None
        ):
            return getattr(_module(place), _OTHERWISE.get(name, name)) if place else _module(place)
        raise MissingName(package, name)

    here = vars(sys.modules[package])
    here["__getattr__"] = __getattr__
    here.setdefault("__path__", [])  # of a single file too: paths of PyTorch's lie beneath it


class _Keeping(ModuleType):
    """A module whose functions, and text, stay when a path beneath it of that name is imported, as ``autograd.gradcheck``.

    In PyTorch ``autograd.gradcheck`` is the function, too, and ``import torch.autograd.gradcheck`` works.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and isinstance(vars(self).get(name), (FunctionType, str))):
            super().__setattr__(name, value)


class Finder:
    """Finds the modules of ``PATHS``, and says of what else is imported from Kobai and not found what is wrong with it."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """As importlib wants it; last of all finders."""
        package, _, last = name.rpartition(".")
        if package.partition(".")[0] != "kobai":
            return None
        from importlib.machinery import ModuleSpec

        inner = name.removeprefix("kobai.")
        if inner in PATHS or module_above(inner):
            return ModuleSpec(name, Finder, is_package=True)  # type: ignore[arg-type]
        problem = MissingName(package, last)
        if problem.advice():
            # Without a name: importlib would take "no module ``name``" for a reason to say nothing of all this.
            raise ModuleNotFoundError(str(problem))
        return None

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """As importlib wants it: an ordinary module."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Fill a module: with the names of its places, or with stand-ins for what Kobai lacks."""
        path = module.__name__.removeprefix("kobai.")
        if path in ALIASES:
            places = ", ".join(f"``kobai.{place}``".replace(".``", "``") for place in ALIASES[path])
            module.__doc__ = f"PyTorch's path for what is in {places}."
            vars(module).update(_alias(path))
            above, _, name = module.__name__.rpartition(".")
            if isinstance(getattr(sys.modules[above], name, None), (FunctionType, str)):
                sys.modules[above].__class__ = _Keeping
        else:
            module.__doc__ = sentence(path)
            vars(module)["__getattr__"] = within(module.__name__)


sys.meta_path.append(Finder)
