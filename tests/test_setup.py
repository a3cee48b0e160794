"""What scripts do before and around training: printing, threads, determinism, anomalies, precision, absent things."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest
import threadpoolctl

import kobai
from kobai import amp, autograd, runtime
from kobai.cpu import threads


@pytest.fixture
def printing():
    yield
    kobai.set_printoptions(profile="default")


def test_print_options(printing):
    x = kobai.tensor([1.23456, 1e-7])
    assert repr(x) == "tensor([1.2346e+00, 1.0000e-07])"
    kobai.set_printoptions(precision=2, sci_mode=False)
    assert repr(x) == "tensor([1.23, 0.00])"
    kobai.set_printoptions(sci_mode=True)
    assert repr(kobai.tensor([2.0])) == "tensor([2.00e+00])"
    kobai.set_printoptions(profile="short", threshold=5, edgeitems=1, linewidth=40)
    assert repr(kobai.arange(20)) == "tensor([ 0,  ..., 19])"
    kobai.set_printoptions(profile="full")
    assert "..." not in repr(kobai.arange(1100))
    with pytest.raises(ValueError, match=r"'fulll'.*Did you mean 'full'"):
        kobai.set_printoptions(profile="fulll")


def test_threads_are_those_of_kobai_and_of_blas_together():
    before = kobai.get_num_threads()
    assert before >= 1
    for n in (1, 3, before):
        kobai.set_num_threads(n)
        assert kobai.get_num_threads() == n
        assert threads.num_threads() == n
        assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info()} == {n}
    with pytest.raises(RuntimeError, match="positive integer, got 0"):
        kobai.set_num_threads(0)


def test_determinism_is_kept_on_the_cpu_and_promised_elsewhere():
    assert not kobai.are_deterministic_algorithms_enabled()
    runtime.adds_in_no_order("scatter")
    try:
        kobai.use_deterministic_algorithms(True)
        assert kobai.are_deterministic_algorithms_enabled()
        x = kobai.zeros(3, requires_grad=True)
        x[kobai.tensor([0, 0, 2])].sum().backward()
        assert x.grad.tolist() == [2, 0, 1]
        with pytest.raises(RuntimeError, match="no fixed order"):
            runtime.adds_in_no_order("scatter")
        kobai.use_deterministic_algorithms(True, warn_only=True)
        with pytest.warns(UserWarning, match="no fixed order"):
            runtime.adds_in_no_order("scatter")
    finally:
        kobai.use_deterministic_algorithms(False)


def test_matmul_precision_is_a_permission():
    kobai.set_float32_matmul_precision("high")
    assert kobai.get_float32_matmul_precision() == "high"
    kobai.set_float32_matmul_precision("highest")
    with pytest.raises(ValueError, match="'hihg'"):
        kobai.set_float32_matmul_precision("hihg")


def _nan_in_backward(x):
    y = x.sqrt() * 0
    return y.sum()


def test_an_anomaly_names_operation_and_line():
    x = kobai.tensor([0.0, 1.0], requires_grad=True)
    with autograd.detect_anomaly():
        loss = _nan_in_backward(x)
        with pytest.raises(RuntimeError, match=r"SqrtBackward returned nan.*test_setup.py:\d+: y = x.sqrt"):
            loss.backward()
        kobai.ones(2, requires_grad=True).exp().sum().backward()
    loss = _nan_in_backward(x)
    with autograd.detect_anomaly(check_nan=False):
        loss.backward(retain_graph=True)
    assert np.isnan(x.grad.numpy()[0])
    with autograd.set_detect_anomaly(True), pytest.raises(RuntimeError, match="detect anomalies in forward too"):
        loss.backward()
    autograd.set_detect_anomaly(True)
    autograd.set_detect_anomaly(False)
    loss = _nan_in_backward(x)
    loss.backward()


def test_mixed_precision_that_is_switched_off_changes_nothing():
    if not kobai.cuda.is_available():
        with pytest.warns(UserWarning, match="CUDA is not available"):
            assert not kobai.cuda.amp.GradScaler().is_enabled()
        with pytest.warns(UserWarning, match="CUDA is not available"), kobai.cuda.amp.autocast():
            pass
    w = kobai.nn.Parameter(kobai.ones(1))
    optimizer = kobai.optim.SGD([w], lr=0.5)
    scaler = amp.GradScaler(enabled=False)
    with kobai.autocast("cpu", enabled=False):
        loss = (w * w).sum()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert w.item() == 0
    assert (scaler.get_scale(), scaler.is_enabled(), scaler.state_dict()) == (1.0, False, {})
    scaler.load_state_dict({})
    scaler.load_state_dict({"scale": 2.0})
    assert scaler.get_scale() == 1.0


def test_backends_answer_and_refuse_unknown_switches():
    cudnn = importlib.import_module("kobai.backends.cudnn")
    assert kobai.backends.cudnn is cudnn
    cudnn.benchmark = True
    cudnn.benchmark = False
    assert not cudnn.is_available()
    assert cudnn.version() is None
    assert not kobai.backends.mps.is_available()
    assert not kobai.backends.mps.is_built()
    assert not kobai.backends.mkl.is_available()
    kobai.backends.cuda.matmul.allow_tf32 = False
    assert kobai.backends.cuda.is_built() == (kobai.available_backends()["cupy"] == "")
    with pytest.raises(AttributeError, match=r"no switch 'benchmrak'. Did you mean 'benchmark'"):
        cudnn.benchmrak = True


def test_attentions_switches_have_no_effect_and_say_so():
    cuda = kobai.backends.cuda
    for name, is_so in {"flash": False, "mem_efficient": False, "cudnn": False, "math": True}.items():
        for wanted in (True, False):
            getattr(cuda, f"enable_{name}_sdp")(wanted)
            assert getattr(cuda, f"{name}_sdp_enabled")() is is_so


def test_what_kobai_is_made_with():
    mkldnn = importlib.import_module("kobai.backends.mkldnn")
    mkldnn.enabled = False
    assert not mkldnn.is_available()
    assert not kobai.backends.openmp.is_available()
    assert kobai.version.kobai in kobai.__config__.show()
    assert "numpy" in kobai.__config__.show()
    assert kobai.__config__.parallel_info() in kobai.__config__.show()
    assert isinstance(1.5, importlib.import_module("kobai.types").Number)


def test_default_device_by_name_and_by_block():
    before = kobai.get_default_device()
    kobai.set_default_device("cpu")
    with kobai.device("cpu") as here:
        assert kobai.zeros(1).device == here
        with kobai.device("cpu"):
            assert kobai.get_default_device() == "cpu"
    kobai.set_default_device(before)


def test_random_numbers_of_a_fork_leave_no_trace():
    kobai.manual_seed(3)
    with kobai.random.fork_rng(devices=[0], device_type="cuda"):
        kobai.rand(5)
    a = kobai.rand(2)
    kobai.manual_seed(3)
    with kobai.random.fork_rng(enabled=False):
        b = kobai.rand(2)
    assert kobai.equal(a, b)


def test_the_text_of_a_dtype_is_its_name_after_the_module() -> None:
    """Programs take the name from behind the dot, and print a dtype by all of Python's ways."""
    for dtype in (kobai.float32, kobai.zeros(1, dtype=kobai.bfloat16).dtype, kobai.bool):
        module, name = str(dtype).split(".")
        assert module == "kobai"
        assert getattr(kobai, name) is dtype
        assert str(dtype) == repr(dtype) == f"{dtype}" == "%s" % dtype  # noqa: UP031


def test_types_in_annotations():
    assert isinstance(kobai.float32, kobai.dtype)
    assert kobai.tensor([1]).type(kobai.FloatTensor).dtype == kobai.float32
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kobai.LongTensor([1]).dtype == kobai.int64
