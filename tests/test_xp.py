"""The backend flag, devices, and what a machine without a GPU says."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import types

import numpy as np
import pytest

import kobai
from kobai import device, xp
from kobai.cuda import backend
from kobai.errors import BackendError, nearest

HAS_CUPY = kobai.available_backends()["cupy"] == ""
no_gpu = pytest.mark.skipif(HAS_CUPY, reason="tests what is said where CuPy is missing")
INSTALL = r"Install it: pip install 'kobai\[cuda12\]'"


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    return done


def test_use_and_using():
    assert kobai.backend() == "numpy"
    with kobai.using("strict"):
        assert kobai.backend() == "strict"
        assert kobai.zeros(2).device == "strict"
        with kobai.using("numpy"):
            assert kobai.zeros(2).device == "cpu"
        assert kobai.backend() == "strict"
    assert kobai.backend() == "numpy"
    kobai.use("strict")
    assert kobai.backend() == "strict"


def test_the_former_backend_comes_back_after_an_exception():
    with pytest.raises(KeyError), kobai.using("strict"):
        raise KeyError
    assert kobai.backend() == "numpy"
    with pytest.raises(BackendError), kobai.using("nonsense"):
        pass
    assert kobai.backend() == "numpy"


@pytest.mark.parametrize(("name", "meant"), [("nunpy", "numpy"), ("cuppy", "cupy"), ("Auto", "auto")])
def test_unknown_names_offer_the_nearest(name, meant):
    with pytest.raises(
        BackendError, match=rf"backend: expected auto, numpy, cupy.*got '{name}'.*Did you mean '{meant}'"
    ):
        kobai.use(name)


def test_every_new_tensor_lands_on_the_default_device():
    with kobai.using("strict"):
        made = [
            kobai.tensor([1.0]), kobai.tensor(1), kobai.zeros(2), kobai.ones(2), kobai.empty(2), kobai.full((2,), 1),
            kobai.arange(3), kobai.linspace(0, 1, 3), kobai.eye(2), kobai.rand(2), kobai.randn(2), kobai.randperm(3),
            kobai.randint(3, (2,)), kobai.Tensor([1.0]), kobai.Tensor(2), kobai.normal(0.0, 1.0, (2,)),
            kobai.as_tensor([1.0]),
        ]  # fmt: skip
        assert {t.device.type for t in made} == {"strict"}
        assert kobai.zeros(2, device="cpu").device.type == "cpu"
        assert kobai.from_numpy(np.ones(2)).device.type == "cpu"
    assert kobai.zeros_like(made[0]).device.type == "strict", "like its model, whatever the default"
    assert made[0].new_zeros(2).device.type == "strict"


@no_gpu
def test_explicit_cupy_names_cause_and_install_line():
    for ask in (
        lambda: kobai.use("cupy"),
        lambda: kobai.use("cuda:1"),
        lambda: kobai.ones(2).to("cuda"),
        lambda: kobai.ones(2).cuda(),
        lambda: kobai.ones(2, device="cuda"),
        lambda: kobai.tensor([1.0], device="cuda:0"),
        lambda: kobai.nn.Linear(2, 2).to("cuda"),
    ):
        with pytest.raises(BackendError, match=f"backend 'cupy': .*{INSTALL}"):
            ask()
    assert kobai.backend() == "numpy"


@no_gpu
def test_auto_falls_back_with_one_line_that_says_why(caplog):
    with caplog.at_level(logging.INFO, "kobai"):
        kobai.use("auto")
    assert kobai.backend() == "numpy"
    (record,) = caplog.records
    assert record.getMessage().startswith("backend auto: numpy, because backend 'cupy': CuPy cannot be imported")
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ({"getDeviceCount": lambda: 0}, "the CUDA driver reports no device"),
        ({"getDeviceCount": lambda: 1 / 0}, r"no usable CUDA device \(division by zero\)"),
    ],
)
def test_cupy_without_a_device_says_so(monkeypatch, runtime, message):
    fake = types.ModuleType("cupy")
    fake.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(**runtime))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    with pytest.raises(BackendError, match=f"backend 'cupy': .*{message}"):
        backend._load()


def test_available_backends_gives_reasons():
    report = kobai.available_backends()
    assert report["numpy"] == ""
    assert "cupy" in report
    if not HAS_CUPY:
        assert "cannot be imported" in report["cupy"]


def test_environment_variable():
    show = "import kobai; print(kobai.backend(), kobai.zeros(1).device)"
    assert python(show, KOBAI_BACKEND="numpy").stdout == "numpy cpu\n"
    assert python(show, KOBAI_BACKEND="").stdout == "numpy cpu\n"
    wrong = python(show, KOBAI_BACKEND="nunpy")
    assert wrong.returncode == 1
    assert "KOBAI_BACKEND=nunpy: " in wrong.stderr
    assert "got 'nunpy'. Did you mean 'numpy'?" in wrong.stderr
    chosen = python(f"import kobai\nwith kobai.using('numpy'): {show[14:]}", KOBAI_BACKEND="nunpy")
    assert chosen.stdout == "numpy cpu\n", "what is chosen in the program needs no variable"


@no_gpu
def test_environment_variable_without_a_gpu():
    auto = python("import kobai; print(kobai.backend())", KOBAI_BACKEND="auto")
    assert auto.stdout == "numpy\n"
    assert auto.stderr.count("\n") == 1
    assert "backend auto: numpy, because" in auto.stderr
    explicit = python("import kobai; kobai.zeros(1)", KOBAI_BACKEND="cupy")
    assert explicit.returncode == 1
    assert "pip install 'kobai[cuda12]'" in explicit.stderr
    assert python("import kobai", KOBAI_BACKEND="cupy").returncode == 0, "importing decides nothing"


# --- device -----------------------------------------------------------------------------------------------------------


def test_device():
    assert (device("cuda:1").type, device("cuda:1").index) == ("cuda", 1)
    assert device("cuda", 2) == device("cuda:2")
    assert device("cuda") == device("cuda:0")
    assert device("cuda") != device("cuda:1")
    assert device("cpu") == "cpu"
    assert device("cpu") == device("cpu:0")
    assert device("cpu") != "gpu"
    assert device("cpu") != 0
    assert device(device("cuda:1")) == "cuda:1"
    assert len({device("cpu"), device("cpu", 0), device("cuda"), device("cuda", 0)}) == 2
    assert (str(device("cuda:1")), repr(device("cuda:1"))) == ("cuda:1", "device(type='cuda', index=1)")
    assert repr(device("cpu")) == "device(type='cpu')"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("gpu",), ValueError, "expected 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        (("cuda:x",), ValueError, "got 'cuda:x'"),
        (("cuda:-1",), ValueError, "got 'cuda:-1'"),
        (("cpu:1",), ValueError, "there is one CPU device, got index 1"),
        ((1.5,), TypeError, "device: expected a string"),
    ],
)
def test_wrong_devices(arguments, error, message):
    with pytest.raises(error, match=message):
        device(*arguments)


# --- moving -----------------------------------------------------------------------------------------------------------


def test_moving_is_recorded_and_gradients_come_back():
    x = kobai.ones(2, requires_grad=True)
    y = x.to("strict")
    assert y.device.type == "strict"
    (y * 3).sum().backward()
    assert (x.grad.device.type, x.grad.tolist()) == ("cpu", [3, 3])
    assert x.to("cpu") is x
    assert x.to("cpu", copy=True) is not x
    assert x.to("strict", kobai.float64).dtype == kobai.float64
    assert y.to(x).device.type == "cpu"
    assert y.cpu().device == "cpu"


def test_arrays_move_only_where_asked():
    host = np.arange(3.0)
    assert xp.asarray(host) is host
    assert xp.move(host, None) is host
    assert xp.move(host, "cpu") is host
    there = xp.move(host, "strict")
    assert xp.xp_of(there).__name__ == "strict"
    assert xp.to_host(there).tolist() == host.tolist()
    assert xp.asarray(there) is there
    xp.synchronize("strict")
    xp.synchronize()


def test_xp_of_what_is_no_array():
    assert xp.xp_of(np.float32(1)) is xp.xp_of(np.ones(1))
    with pytest.raises(TypeError, match="xp_of: expected an array of a loaded backend, got list"):
        xp.xp_of([1])


@no_gpu
def test_pinned_memory_needs_cupy():
    with pytest.raises(BackendError, match=INSTALL):
        backend.pin(np.zeros(2))


def test_nearest():
    assert nearest("rleu", ["relu", "tanh"]) == " Did you mean 'relu'?"
    assert nearest("zzz", ["relu", "tanh"]) == " Known: relu, tanh."
    assert nearest("zzz", []) == ""
    assert nearest("zzz", [f"name{i}" for i in range(40)]) == ""


@pytest.mark.parametrize("name", ["mps", "meta", "xpu:1"])
def test_devices_of_pytorchs_can_be_named_and_not_used(name):
    where = device(name)
    assert where == name
    assert where != kobai.ones(1).device
    assert device(str(where)) == where
    kind = name.partition(":")[0]
    for use in (
        lambda: kobai.ones(2, device=where),
        lambda: kobai.ones(2).to(name),
        lambda: kobai.nn.Linear(2, 2, device=name),
        lambda: kobai.use(name),
        lambda: where.__enter__(),
    ):
        with pytest.raises(BackendError, match=rf"on CUDA, and has no '{kind}', unlike torch"):
            use()
    with pytest.raises(ValueError, match="expected 'cpu', 'cuda' or 'cuda:N', got 'mpss'"):
        device("mpss")
