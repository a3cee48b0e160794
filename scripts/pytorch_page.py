"""Write docs/pytorch.md: what a program written for PyTorch finds in Kobai.

    python scripts/pytorch_page.py

It is made of the tables that the code and the tests use: ``compat/absent.py``, ``compat/paths.py``, ``tests/oracle/known.toml``
and ``tests/oracle/share.toml`` (``python tests/oracle/known.py --share`` measures that anew). A test keeps it up to date, and
runs the examples of what differs.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import kobai
from kobai.compat import absent, paths

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "pytorch.md"
ORACLE = ROOT / "tests" / "oracle"

DIFFERENCES = {
    "Random numbers": (
        "A seed gives other numbers than in PyTorch, and the same on every device and with any number of threads.",
        "kobai.manual_seed(0); a = kobai.rand(2); kobai.manual_seed(0); assert kobai.equal(a, kobai.rand(2))",
    ),
    "Files": (
        "`save` writes safetensors and `load` reads them. Pickles, whole pickled models too, are refused, for reading one runs "
        "whatever code it holds: save a `state_dict`.",
        "import io, pickle\n"
        "try: kobai.load(io.BytesIO(pickle.dumps({'w': 1})))\n"
        "except Exception as error: assert 'pickle' in str(error)\n"
        "else: raise AssertionError",
    ),
    "Memory formats": (
        "`channels_last` and the others are taken where PyTorch takes them, checked, and change nothing: images are "
        "(N, C, H, W), row by row.",
        "x = kobai.ones(1, 2, 3, 4); assert x.to(memory_format=kobai.channels_last) is x",
    ),
    "`compile`, `jit.script`": (
        "Return what they are given, which runs as it is written, with the same numbers. `kobai.capture` records a whole "
        "training step, and makes that faster.",
        "model = kobai.nn.Linear(1, 1); assert kobai.compile(kobai.jit.script(model)) is model",
    ),
    "PyTorch's engines": (
        "The switches of cuDNN, of the kernels of attention (`sdpa_kernel`) and of products are accepted, and results do not "
        "depend on them. What an optimiser does in one launch (`foreach`, `fused`) is always done so.",
        "kobai.backends.cudnn.benchmark = True; kobai.backends.cudnn.benchmark = False",
    ),
    "Several processes": (
        "`distributed` speaks over MPI (extra `mpi`; `kobai launch -n 2 script.py` starts a script), whichever backend of the "
        "CPU is asked for; there is one group, of all processes. With `find_unused_parameters=True` gradients are averaged by "
        "`model.reduce_gradients()`, after `backward()`. Without mpi4py `is_available()` is False. `DataParallel` computes on "
        "one device.",
        "import kobai.distributed as dist; assert not dist.is_initialized() and not dist.is_backend_available('nccl')",
    ),
    "Loading data": (
        "`DataLoader(num_workers=...)` reads in threads, so data sets need not be pickled and are not copied.",
        "from kobai.utils.data import DataLoader\nassert next(iter(DataLoader([1, 2], num_workers=1))).tolist() == [1]",
    ),
    "Versions": (
        "`kobai.__version__` names the PyTorch whose API Kobai follows, which is what programs ask `torch.__version__` for, "
        "and behind a `+` Kobai's own version; `kobai.torch_version` and `kobai.version.kobai` are the two alone.",
        "assert kobai.__version__ == f'{kobai.torch_version}+kobai.{kobai.version.kobai}' and kobai.__version__ >= '2.9'",
    ),
    "Names of types": (
        "A dtype shows itself as `kobai.float32`; `x.type()` gives PyTorch's words, `torch.FloatTensor`.",
        "assert (repr(kobai.float32), kobai.ones(1).type()) == ('kobai.float32', 'torch.FloatTensor')",
    ),
    "Memory that runs out": (
        "`OutOfMemoryError` is a `RuntimeError`, and Python's `MemoryError` too, whose kind NumPy and CuPy raise; that of the "
        "host is one as well.",
        "try: kobai.zeros(2**50)\n"
        "except kobai.cuda.OutOfMemoryError as error: assert 'out of memory' in str(error)\n"
        "assert issubclass(kobai.OutOfMemoryError, RuntimeError) and issubclass(kobai.OutOfMemoryError, MemoryError)",
    ),
    "Several GPUs": (
        "`cuda` means the first; another one is named where it is meant (`cuda:1`), for there is no current device to set.",
        "assert kobai.device('cuda') == kobai.device('cuda:0')",
    ),
    "Libraries for PyTorch": (
        "einops takes Kobai's tensors, and `einops.layers.kobai` has `Rearrange` and `Reduce`. Another library that imports "
        "PyTorch itself knows `torch.Tensor` alone, and makes PyTorch's modules: "
        "its own imports have to be changed as a program's are.",
        "from types import SimpleNamespace\n"
        "try: kobai.nn.Sequential(SimpleNamespace(forward=None))\n"
        "except TypeError as error: assert 'Module' in str(error)\n"
        "else: raise AssertionError",
    ),
    "Lists as indices": (
        "`x[[a, b]]` is `x[a, b]` where the list holds more than integers, as in PyTorch, and a warning says so.",
        "import warnings; warnings.simplefilter('ignore')\nassert kobai.eye(3)[[[0, 1], [0, 1]]].tolist() == [1, 1]",
    ),
}
"""What differs -> how, and an example that holds."""


def _share() -> str:
    share = tomllib.loads((ORACLE / "share.toml").read_text(encoding="utf-8"))
    rows = [
        f"| {form} | {agreed:,} | {tried:,} | {agreed / tried:.1%} |"
        for form, (agreed, tried) in share["samples"].items()
    ]
    return "\n".join(
        [
            f"The test database of PyTorch {share['torch']} has {share['entries']} entries for operations. Kobai has "
            f"{share['there']} of them, and {share['without_difference']} show no difference in any form.",
            "",
            "| form | samples that agree | of | share |",
            "|---|---|---|---|",
            *rows,
            "",
            "A sample agrees if values, gradients, shapes, dtypes and what shares memory do, and if both refuse it or neither.",
            f"`{share['command']}` counts them again; `pytest -m oracle tests/oracle` fails if anything differs that is not",
            "among the [known differences](#known-differences-of-operations).",
        ]
    )


def _lacking() -> str:
    methods = {f"Tensor.{names.replace(' ', ' Tensor.')}": advice for names, advice in absent.METHODS.items()}
    rows = [
        f"| {_names(names)} | {advice} |"
        for names, advice in {**absent.INSTEAD, **methods, **absent.DTYPES, **absent.MODULES}.items()
    ]
    return "\n".join(["| lacking | instead |", "|---|---|", *rows])


def _names(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split())


def _paths() -> str:
    rows = []
    for place, names in paths.PLACES.items():
        rows.append(f"| {_names(names)} | `{f'kobai.{place}'.rstrip('.')}` |")
    return "\n".join(["| path | gives what is in |", "|---|---|", *rows])


def _known() -> str:
    table = tomllib.loads((ORACLE / "known.toml").read_text(encoding="utf-8"))
    return "\n".join(f"- {reason}: {', '.join(f'`{name}`' for name in entries)}." for reason, entries in table.items())


def page() -> str:
    """The whole page."""
    differences = "\n".join(f"- **{what}.** {how}" for what, (how, _) in DIFFERENCES.items())
    return f"""# Programs written for PyTorch

Made by `scripts/pytorch_page.py` from the tables that the code and the tests use; a test keeps it up to date.

A program runs with its imports changed and nothing else: `import kobai as torch`, `from kobai import nn`,
`import kobai.nn.functional as F`, `from kobai.utils.data import DataLoader`. The API is that of PyTorch {kobai.torch_version}.
[Every public name](api.md) is in a table.

## How much agrees

{_share()}

## What differs

{differences}

## What is lacking

Reading such a name, or importing it, says what to do instead. A module can be imported, for programs import more than they
need; what is in it raises when it is called, and nothing is an instance of its classes. Of `jit`, `compiler`, `distributed`,
`multiprocessing`, `profiler` and `nn.parallel` there is what makes sense in one process that compiles nothing. Every operation
of PyTorch's test database that is lacking stands here, but for those whose names begin with an underscore or `torch.ops`, which
are PyTorch's inside.

{_lacking()}

## Import paths

Each gives the very objects of the place beside it, by `import`, `from ... import` and as an attribute; so do all that are files
of Kobai's.

{_paths()}

## Known differences of operations

{_known()}
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: {len(PAGE.read_text(encoding='utf-8').splitlines())} lines")
