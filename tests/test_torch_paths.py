"""PyTorch's import paths: what programs import is there; what Kobai lacks says so when it is used, however it was reached."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pickle
import pkgutil
import subprocess
import sys
import timeit
import warnings

import pytest

import kobai
from kobai.compat import absent, paths

ALIASES = sorted(paths.ALIASES)
MODULES = sorted(absent.ABSENT_MODULES)


def fresh(code: str) -> str:
    """What ``code`` prints in a process of its own, where nothing has been imported yet."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def reached(path: str):
    """``kobai.<path>`` by attributes alone."""
    found = kobai
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("path", ALIASES)
def test_a_path_gives_the_very_objects_of_its_places(path):
    module = importlib.import_module(f"kobai.{path}")
    assert (reached(path) is module) == (path not in FUNCTIONS_TOO)
    for place in paths.ALIASES[path]:
        owner = importlib.import_module(f"kobai.{place}".rstrip("."))
        for name in paths.public(owner):
            if inspect.ismodule(getattr(owner, name)):
                continue
            assert getattr(module, name) is getattr(owner, name)
            assert name in dir(module) or hasattr(module, "__file__")
            assert name in vars(module) or name.startswith("_") or hasattr(module, "__file__")


@pytest.mark.parametrize("name", paths.RENAMED)
def test_what_is_private_has_pytorchs_names(name):
    place = "optim.lr_scheduler" if name == "_LRScheduler" else "nn.modules.module"
    found = getattr(reached(place), name)
    assert isinstance(found, type) == (name != name.lower())


IMPORTS = """
import kobai.nn.modules.conv as m; assert m.Conv2d is kobai.nn.Conv2d
from kobai.nn.modules.conv import Conv2d, _ConvNd; assert issubclass(Conv2d, _ConvNd)
from kobai.nn.modules.pooling import _MaxPoolNd; assert isinstance(kobai.nn.MaxPool2d(2), _MaxPoolNd)
from kobai.nn.modules.linear import NonDynamicallyQuantizableLinear as L; assert issubclass(L, kobai.nn.Linear)
from kobai.nn.modules.batchnorm import _BatchNorm; assert isinstance(kobai.nn.BatchNorm2d(2), _BatchNorm)
from kobai.nn.modules.batchnorm import _BatchNorm; assert not isinstance(kobai.nn.InstanceNorm2d(2), _BatchNorm)
from kobai.nn.modules.loss import _Loss, _WeightedLoss; assert isinstance(kobai.nn.CrossEntropyLoss(), _WeightedLoss)
from kobai.nn.modules import *; assert Linear is kobai.nn.Linear and MSELoss is kobai.nn.MSELoss
from kobai.optim.lr_scheduler import _LRScheduler, LRScheduler; assert _LRScheduler is LRScheduler
from kobai.optim.adamw import AdamW; assert AdamW is kobai.optim.AdamW
from kobai.utils.data.dataloader import DataLoader, default_collate, get_worker_info
from kobai.utils.data._utils.collate import default_collate; assert default_collate([1, 2]).tolist() == [1, 2]
from kobai.distributions.categorical import Categorical; assert Categorical is kobai.distributions.Categorical
from kobai.nn.utils.clip_grad import clip_grad_norm_; assert clip_grad_norm_ is kobai.nn.utils.clip_grad_norm_
from kobai.nn.parameter import Parameter, UninitializedParameter
from kobai.autograd.variable import Variable; assert Variable is kobai.autograd.Variable
from kobai.utils.hooks import RemovableHandle
from kobai.functional import einsum; assert einsum is kobai.einsum
from kobai.cuda.amp.grad_scaler import GradScaler; assert GradScaler is kobai.cuda.amp.GradScaler
import kobai.distributed as dist; assert not dist.is_nccl_available() and not dist.is_initialized()
from kobai.distributed import init_process_group, destroy_process_group
from kobai.nn.parallel import DistributedDataParallel as DDP; assert not isinstance(kobai.nn.Linear(1, 1), DDP)
from kobai.nn.parallel.distributed import DistributedDataParallel
from kobai.distributed.fsdp import FullyShardedDataParallel
def all_reduce(x, op=kobai.distributed.ReduceOp.SUM): return x
def f(group: kobai.distributed.ProcessGroup | None = None): return group
import kobai.onnx; assert not kobai.onnx.is_in_onnx_export() and kobai.onnx.utils
import kobai._C; assert kobai._C._log_api_usage_once('models') is None; assert not kobai._C._are_functorch_transforms_active()
from kobai._C import Value; assert not isinstance(1, Value)
import kobai.fft, kobai.sparse, kobai.fx, kobai.hub, kobai._dynamo, kobai.nested, kobai.ao.quantization
from kobai.hub import load_state_dict_from_url
kobai.fx.wrap("len")
import kobai.multiprocessing as mp; mp.set_sharing_strategy("file_system"); assert mp.cpu_count() > 0
import kobai.jit; assert not kobai.jit.is_scripting() and not kobai.jit.is_tracing()
import kobai.version; assert kobai.version.hip is None and kobai.version.__version__ == kobai.__version__
assert not hasattr(kobai, "xpu") or not kobai.xpu.is_available()
assert not (hasattr(kobai, "mps") and kobai.mps.is_available())
assert tuple(map(int, kobai.torch_version.split("."))) >= (2, 0)
assert kobai.__version__ >= "2.9" and kobai.__version__ >= (2, 13) and not kobai.__version__ < "1.8"
assert tuple(int(part) for part in kobai.__version__.split(".")[:2]) >= (2, 0)
assert kobai.__version__ >= kobai.torch_version.TorchVersion("2.10.0") and kobai.__version__ > "2.13.0rc1"
assert kobai.__version__ == f"{kobai.torch_version}+kobai.{kobai.version.kobai}" and kobai.__version__ != "2.12"
assert kobai.torch is kobai and kobai.torch.Tensor is kobai.Tensor
assert not isinstance(3, (kobai.SymInt, kobai.Future, kobai.ScriptModule)) and kobai.sym_max(2, kobai.sym_int(3.0)) == 3
kobai._check(True); kobai._assert_async(kobai.tensor(True)); assert kobai._shape_as_tensor(kobai.ones(2, 3)).tolist() == [2, 3]
assert kobai.ones(1).layout not in (kobai.sparse_coo, kobai.sparse_csr) and repr(kobai.jagged) == "kobai.jagged"
assert not isinstance(kobai.ones(1), kobai.UntypedStorage)
assert kobai.Stream is kobai.cuda.Stream and kobai.OutOfMemoryError is kobai.cuda.OutOfMemoryError
from kobai.nn import RNNBase; assert isinstance(kobai.nn.GRU(2, 3), RNNBase) and kobai.nn.modules.rnn.RNNBase is RNNBase
from kobai.nn.modules.loss import _Loss; from kobai.nn import _reduction; assert _reduction.get_enum("sum") == 2
assert kobai.nn._reduction.legacy_get_string(None, False, emit_warning=False) == "none"
from kobai.nn.parameter import is_lazy; assert is_lazy(kobai.nn.LazyLinear(2).weight) and not is_lazy(kobai.ones(1))
from kobai.nn.utils import clip_grad_norm; from kobai.nn.utils.fusion import fuse_conv_bn_eval
from kobai.nn.utils.spectral_norm import SpectralNorm; from kobai.autograd.gradcheck import gradcheck
from kobai.utils.dlpack import from_dlpack, to_dlpack; assert kobai.to_dlpack is to_dlpack
from kobai.serialization import DEFAULT_PROTOCOL, add_safe_globals, safe_globals
from kobai.distributions.transforms import _InverseTransform
from kobai.serialization import FILE_LIKE, MAP_LOCATION, FileLike; from kobai.types import _device, FileLike as F; assert F
from kobai.utils.data.dataloader import _collate_fn_t, _worker_init_fn_t
from kobai.nn.common_types import _ratio_any_t, _size_4_t
from kobai.utils.data._utils.collate import np_str_obj_array_pattern as p; assert p.search("U") and not p.search("f")
with kobai.backends.cuda.sdp_kernel(enable_flash=False): pass
from kobai.optim.optimizer import Optimizer, ParamsT, _default_to_fused_or_foreach, _get_value, _params_t, required
from kobai._vmap_internals import _vmap; assert _vmap is kobai.vmap
from kobai.utils._contextlib import _DecoratorContextManager; assert isinstance(kobai.no_grad(), _DecoratorContextManager)
from kobai.torch_version import TorchVersion; assert isinstance(kobai.torch_version, TorchVersion)
from kobai.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter as M
from kobai.utils.data.dataloader import _SingleProcessDataLoaderIter as S, DataLoader as D; assert isinstance(iter(D([1])), S)
from kobai.nn.parameter import UninitializedBuffer as B, UninitializedTensorMixin; assert kobai.nn.parameter.is_lazy(B())
from kobai.nn.modules.lazy import LazyModuleMixin; from kobai.nn.utils import skip_init, prune
from kobai.nn.utils.memory_format import convert_conv2d_weight_memory_format; from kobai.nn.utils.init import skip_init
from kobai.utils.data._utils.collate import collate, default_collate_fn_map
from kobai._higher_order_ops.associative_scan import associative_scan
import kobai.backends.xnnpack; assert not kobai.backends.xnnpack.enabled and not kobai.backends.opt_einsum.enabled
from kobai._tensor_str import PRINT_OPTS, _tensor_str; assert PRINT_OPTS.edgeitems and _tensor_str(kobai.ones(1), 0) == "[1.]"
from kobai.quasirandom import SobolEngine; from kobai._jit_internal import _copy_to_script_wrapper as w; assert w(len) is len
from packaging import version; assert version.parse(kobai.__version__) >= version.parse("2.13.0")
""".strip().splitlines()


@pytest.mark.thorough
def test_programs_import_what_they_import():
    """Each line in an interpreter's own state: an earlier import must not help a later one."""
    code = """
import os
for line in {!r}:
    if os.fork() == 0:
        import kobai
        exec(line)
        os._exit(0)
    assert os.wait()[1] == 0, line
print("all")
"""
    assert fresh(code.format(IMPORTS)) == "all"


def test_attributes_lead_to_every_path_that_was_not_imported():
    """Longer paths first, for an import of one imports those above it."""
    code = """
import kobai
from functools import reduce
from kobai.compat.paths import PATHS
for path in sorted(PATHS, key=lambda path: -path.count(".")):
    if path.rpartition(".")[0] not in ("distributed", "nn.parallel") and path not in {FUNCTIONS_TOO!r}:
        found = reduce(getattr, path.split("."), kobai)
        assert found.__name__ == f"kobai.{path}", (path, found)
print("all")
"""
    assert fresh(code.replace("{FUNCTIONS_TOO!r}", repr(FUNCTIONS_TOO))) == "all"


def test_nothing_is_imported_before_it_is_asked_for():
    seen = fresh(
        "import sys, kobai; print([m for m in sys.modules if m.startswith(('kobai.nn.modules', 'kobai.dist'))])"
    )
    assert seen == "[]"
    assert fresh("import kobai; print(kobai.nn.modules.linear.Linear is kobai.nn.Linear)") == "True"


FUNCTIONS_TOO = ["autograd.gradcheck", "nn.utils.spectral_norm", "nn.utils.weight_norm", "torch_version"]
"""Paths that are the names of functions in them, or of text, as well, which stay where they are, as in PyTorch."""

OURS = {
    "jit": "save",
    "library": "opcheck",
    "compiler": "set_stance",
    "profiler": "emit_nvtx",
    "multiprocessing": "start_processes",
    "onnx": "ONNXProgram",
    "overrides": "TorchFunctionMode",
    "utils.benchmark": "Compare",
} | {
    "distributed": "isend",
    "nn.parallel": "scatter_kwargs",
}
"""Files of ours among the modules that are lacking, with a name that is."""


def test_no_path_takes_the_place_of_what_its_package_has():
    """Python sets a module that is imported as an attribute of the package it is in."""
    code = """
import sys, kobai, kobai.distributions, kobai.func, kobai.special
from kobai.compat.paths import PATHS
for parent, _, name in (f"kobai.{path}".rpartition(".") for path in PATHS):
    if name in vars(sys.modules.get(parent, object)) and f"{parent}.{name}" not in sys.modules:
        print(f"{parent}.{name}".removeprefix("kobai."))
"""
    assert sorted(fresh(code).split()) == sorted(FUNCTIONS_TOO)


@pytest.mark.parametrize("path", FUNCTIONS_TOO)
def test_a_path_that_is_a_functions_name_leaves_the_function_there(path):
    name = path.rpartition(".")[2]
    code = f"""
import sys, kobai
function = kobai.{path}
import kobai.{path}
from kobai.{path} import {name}
print({name} is function, kobai.{path} is function, type(sys.modules["kobai.{path}"]).__name__)
"""
    assert fresh(code) == "True True module"


@pytest.mark.parametrize("path", MODULES)
def test_a_module_that_is_lacking_can_be_imported_and_raises_when_used(path):
    module = importlib.import_module(f"kobai.{path}")
    assert reached(path) is module
    assert hasattr(module, "__file__") == (path in OURS)
    name = OURS.get(path, "Anything")
    told = f"kobai has no '{path}.{name}', unlike torch: {absent.ABSENT_MODULES[path]}"
    scope = {}
    exec(f"from kobai.{path} import {name} as imported", scope)
    for thing in (getattr(module, name), scope["imported"]):
        with pytest.raises(NotImplementedError) as caught:
            thing(1, key=2)
        assert str(caught.value) == told
    assert not isinstance(kobai.ones(1), thing)

    class Mine(thing):
        pass

    with pytest.raises(NotImplementedError, match=r"unlike torch"):
        Mine()
    with pytest.raises(NotImplementedError, match=rf"{name}\.more"):
        thing.more()


@pytest.mark.parametrize("path", OURS)
def test_a_file_of_ours_has_no_other_names_than_pytorchs(path):
    told = f"kobai has no '{path}.pytest_plugins', unlike torch: {absent.ABSENT_MODULES[path]}"
    with pytest.raises(AttributeError) as read:
        _ = importlib.import_module(f"kobai.{path}").pytest_plugins
    assert str(read.value) == told


@pytest.mark.parametrize("name", sorted(absent.ABSENT))
def test_a_name_that_is_lacking_says_the_same_however_it_is_reached(name):
    told = f"kobai has no '{name}', unlike torch: {absent.ABSENT[name]}"
    place, _, last = f"kobai.{name}".rpartition(".")
    module = importlib.import_module(place)
    assert not hasattr(module, last)
    with pytest.raises(AttributeError) as read:
        getattr(module, last)
    assert str(read.value) == told
    for statement in (f"from {place} import {last}", f"import kobai.{name}"):
        with pytest.raises(ImportError) as imported:
            exec(statement)
        assert str(imported.value) == told


@pytest.mark.parametrize("name", sorted(absent.ABSENT_NAMED))
def test_what_programs_name_without_need_raises_when_it_is_called(name):
    place, _, last = f"kobai.{name}".rpartition(".")
    scope = {}
    exec(f"from {place} import {last}", scope)
    assert scope[last] is reached(name)
    with pytest.raises(NotImplementedError) as called:
        scope[last](1)
    assert str(called.value) == f"kobai has no '{name}', unlike torch: {absent.ABSENT_NAMED[name]}"


@pytest.mark.parametrize("name", sorted({*absent.ABSENT_METHODS, *(n for n in absent.ABSENT if "." not in n)}))
def test_tensors_say_it_of_methods(name):
    advice = absent.ABSENT_METHODS.get(name) or absent.ABSENT[name]
    with pytest.raises(AttributeError) as read:
        getattr(kobai.ones(2), name)
    assert str(read.value) == f"'Tensor' object has no attribute '{name}'. {advice[0].upper()}{advice[1:]}."


@pytest.mark.parametrize(
    "question", sorted(q for q in absent.PRESENT if ("isable" not in q or "dynamo" in q) and q != "_C._nn")
)
def test_what_programs_ask_before_they_use_it_is_answered(question):
    function = reached(question)
    if not callable(function):
        assert function is False
    elif question in absent.UNCHANGED.split():
        assert function(len) is len
        assert function()(len) is len
    elif question == "autograd.forward_ad.unpack_dual":
        assert function(3) == (3, None) == (function(3).primal, function(3).tangent)
    else:
        assert function() in (None, False, 0, "DEFAULT")


def test_a_slip_is_named_when_attribute_or_import_is_shown():
    for statement in ("kobai.matmull", "from kobai import matmull"):
        with pytest.raises((AttributeError, ImportError), match=r"'matmull'. Did you mean 'matmul'\?"):
            exec(statement)
    for statement in ("kobai.nn.Linaer", "from kobai.nn import Linaer", "from kobai.nn.modules.linear import Linaer"):
        with pytest.raises((AttributeError, ImportError), match=r"Did you mean 'Linear'\?"):
            exec(statement)
    with pytest.raises(AttributeError, match=r"Did you mean 'max_pool2d'\?"):
        _ = kobai.nn.functional.maxpool2d


@pytest.mark.parametrize("name", ["verse", "nest", "fxx", "fi", "xyz"])
def test_a_name_that_merely_resembles_another_is_not_offered(name):
    with pytest.raises(AttributeError, match=rf"^module 'kobai' has no attribute '{name}'$"):
        getattr(kobai, name)
    with pytest.raises(ImportError, match=f"cannot import name '{name}'"):
        exec(f"from kobai import {name}")
    assert importlib.util.find_spec(f"kobai.{name}") is None


def test_asking_for_a_name_costs_next_to_nothing(monkeypatch):
    """No hint is looked for; and no more than ten times what Python takes to raise such an error itself."""
    monkeypatch.setattr(absent, "likely", lambda *args: pytest.fail("a hint was computed"))
    assert not hasattr(kobai, "x")
    assert getattr(kobai, "stft_of_nothing", None) is None

    def bare():
        try:
            raise AttributeError("x")
        except AttributeError:
            pass

    ours, floor = (min(timeit.repeat(f, number=1000, repeat=20)) for f in (lambda: hasattr(kobai, "x"), bare))
    assert ours < 10 * floor


def test_objects_are_pickled_by_where_they_really_are():
    for thing in (reached("nn.modules.conv.Conv2d"), reached("optim.adamw.AdamW")):
        assert pickle.loads(pickle.dumps(thing)) is thing


def test_compile_and_script_leave_things_as_they_are():
    model = kobai.nn.Linear(2, 3)
    assert kobai.compile(model) is model
    assert kobai.compile(model, backend="eager", fullgraph=True, mode="max-autotune") is model
    assert kobai.jit.script(model) is model

    @kobai.compile(dynamic=True)
    def doubled(x):
        return 2 * x

    @kobai.compiler.disable
    def halved(x):
        return x / 2

    @kobai.jit.script
    @kobai.jit.ignore(drop=True)
    def same(x):
        return halved(doubled(x))

    assert same(kobai.ones(1)).item() == 1
    assert not kobai.compiler.is_compiling()
    with pytest.raises(TypeError, match="expected a module or a function, got int"):
        kobai.compile(3)
    traced = kobai.jit.trace(model, kobai.ones(1, 2))
    assert kobai.jit.optimize_for_inference(kobai.jit.freeze(traced)) is model
    assert kobai.jit.trace_module(model, {"forward": kobai.ones(1, 2)}) is model
    future = kobai.jit.fork(model, kobai.ones(1, 2))
    assert future.done()
    assert kobai.jit.wait(future).shape == future.value().shape
    assert not isinstance(model, kobai.jit.ScriptModule)
    with pytest.raises(NotImplementedError, match=r"no 'jit.save'.*state_dict"):
        kobai.jit.save(model, "file")


def test_without_a_group_there_is_no_rank():
    dist = kobai.distributed
    for ask in (dist.get_rank, dist.get_world_size):
        with pytest.raises(ValueError, match="no process group"):
            ask()
    for lacking in (dist.isend, dist.new_group, kobai.nn.parallel.scatter_kwargs):
        with pytest.raises(NotImplementedError, match="one group of processes"):
            lacking("nccl")


SPAWNED = """
import os, sys
import kobai.multiprocessing as mp

def work(i, folder):
    open(os.path.join(folder, str(i)), "w").close()
    if folder.endswith("bad") and i == 1:
        raise OverflowError("too much")

if __name__ == "__main__":
    mp.spawn(work, args=(sys.argv[1],), nprocs=2)
"""


def test_spawn_runs_processes_and_tells_what_one_of_them_raised(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SPAWNED)
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
        done = subprocess.run([sys.executable, script, tmp_path / name], capture_output=True, text=True)
        assert (done.returncode == 0) == (name == "good"), done.stderr
        assert "1" in {path.name for path in (tmp_path / name).iterdir()}
    assert "ProcessRaisedException: spawn: process 1 ended with code 1" in done.stderr
    assert "OverflowError: too much" in done.stderr
    with pytest.raises(ValueError, match="nprocs as an integer >= 1, got 0"):
        kobai.multiprocessing.spawn(print, nprocs=0)
    with pytest.raises(ValueError, match="'file_descriptor', 'file_system'"):
        kobai.multiprocessing.set_sharing_strategy("files")


@pytest.mark.oracle
def test_every_name_that_pytorch_keeps_at_a_path_is_there_if_kobai_has_it():
    """All public functions and classes that a module of PyTorch's defines, and that Kobai has under their usual names."""
    import torch

    usual = {}
    rooms = (
        "nn nn.functional nn.init nn.utils nn.utils.rnn optim optim.lr_scheduler autograd utils.data distributions amp"
    )
    for room in ["", *rooms.split()]:
        theirs, ours = (importlib.import_module(f"{lib}.{room}".rstrip(".")) for lib in ("torch", "kobai"))
        for name, thing in vars(theirs).items():
            if (inspect.isclass(thing) or inspect.isfunction(thing)) and hasattr(ours, name):
                usual[id(thing)] = getattr(ours, name)
    missing = []
    for folder in ("nn", "optim", "autograd", "utils.data", "distributions", "amp"):
        package = importlib.import_module(f"torch.{folder}")
        for info in pkgutil.walk_packages(package.__path__, f"torch.{folder}."):
            path = info.name.removeprefix("torch.")
            if absent.module_above(path):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    module = importlib.import_module(info.name)
                except ImportError:
                    continue
                parent, _, last = info.name.rpartition(".")
                if inspect.isfunction(getattr(sys.modules[parent], last, None)):  # as here
                    continue
            for name, thing in vars(module).items():
                if id(thing) in usual and thing.__module__ == info.name and not name.startswith("_"):
                    try:
                        ours = getattr(importlib.import_module(f"kobai.{path}"), name)
                        same = inspect.unwrap(ours) is inspect.unwrap(
                            usual[id(thing)]
                        )  # packages guard what they offer
                    except (ImportError, AttributeError):
                        same = False
                    if not same:
                        missing.append(f"{path}.{name}")
    assert torch.__version__.startswith(kobai.torch_version)
    assert missing == []


def test_what_stands_for_a_class_can_be_subscripted_in_annotations():
    def wait(future: kobai.futures.Future[kobai.Tensor]) -> None: ...

    assert kobai.futures.Future[kobai.Tensor] is kobai.futures.Future
    with pytest.raises(NotImplementedError, match="one process"):
        kobai.futures.Future[kobai.Tensor]()
    with pytest.raises(AttributeError, match="use mm"):
        _ = kobai.hspmm


def test_packages_can_be_imported_under_pytorchs_name_too():
    """As where sys.modules["torch"] is Kobai, for libraries whose imports nobody changes."""
    code = """
import sys, kobai
sys.modules["torch"] = kobai
import torch.optim, torch.utils.data, torch.nn.functional, torch.optim.lr_scheduler
print(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))]).defaults["lr"] > 0)
"""
    assert fresh(code) == "True"
