"""Moving between devices, what must not be mixed, page-locked memory, and what ``kobai.cuda`` says."""

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.cuda import backend
from kobai.errors import BackendError
from kobai.utils.data import DataLoader, TensorDataset


def test_kobai_cuda():
    cuda = kobai.cuda
    assert cuda.is_available()
    assert cuda.device_count() >= 1
    assert 0 <= cuda.current_device() < cuda.device_count()
    assert cuda.get_device_name()
    assert cuda.get_device_name(0) == cuda.get_device_name("cuda:0")
    cuda.synchronize()
    cuda.manual_seed_all(5)
    assert kobai.initial_seed() == 5


def test_memory_is_counted_and_given_back():
    kobai.cuda.empty_cache()
    before = kobai.cuda.memory_allocated()
    x = kobai.zeros(1 << 20, device="cuda")
    assert kobai.cuda.memory_allocated() - before >= x.nbytes
    assert kobai.cuda.max_memory_allocated() >= kobai.cuda.memory_allocated()
    del x
    assert kobai.cuda.memory_allocated() == before


DTYPES = [kobai.bool, kobai.uint8, kobai.int8, kobai.int16, kobai.int32, kobai.int64]
DTYPES += [kobai.float16, kobai.float32, kobai.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)], ids=str)
def test_there_and_back(shape, dtype):
    x = (kobai.arange(int(np.prod(shape))).reshape(shape) % 5).to(dtype)
    y = x.to("cuda")
    assert y.is_cuda
    assert y.device == "cuda:0"
    assert y.dtype == dtype
    assert y.cuda() is y
    np.testing.assert_array_equal(y.cpu().numpy(), x.numpy())


def test_layouts_survive_the_way():
    x = kobai.arange(24.0).reshape(2, 3, 4)
    for view in (x.permute(2, 0, 1), x[:, ::2], x[0, 0].expand(3, 4), x.flip(0).transpose(0, 2)):
        assert view.cuda().tolist() == view.tolist()
        assert view.cuda().cpu().tolist() == view.tolist()


def test_gradients_travel():
    x = kobai.arange(3.0, requires_grad=True)
    y = (x.cuda() * kobai.tensor([1.0, 2.0, 3.0], device="cuda")).sum()
    y.backward()
    assert not x.grad.is_cuda
    assert x.grad.tolist() == [1, 2, 3]


def test_a_model_moves_in_place():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = list(model.parameters())
    model.to("cuda")
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.is_cuda for p in (*model.parameters(), *model.buffers()))
    y = model(kobai.randn(4, 3, device="cuda"))
    assert y.is_cuda
    assert not next(model.cpu().parameters()).is_cuda


def test_an_optimizer_made_before_the_move_goes_on():
    model = nn.Linear(3, 2)
    optimizer = kobai.optim.Adam(model.parameters())
    model.cuda()
    model(kobai.ones(1, 3, device="cuda")).sum().backward()
    optimizer.step()
    assert all(t.is_cuda for state in optimizer.state.values() for t in state.values() if kobai.is_tensor(t) and t.ndim)


def test_arrays_of_both_do_not_mix():
    a, b = kobai.ones(3), kobai.ones(3, device="cuda")
    for mix in (lambda: a + b, lambda: b @ a, lambda: kobai.cat([a, b]), lambda: nn.Linear(3, 2)(b)):
        with pytest.raises(BackendError, match=r"is on .* move one of them"):
            mix()
    assert (b + kobai.tensor(2.0)).tolist() == [3, 3, 3]  # numbers without dimensions travel by themselves
    with pytest.raises(TypeError, match=r"use tensor\.cpu"):
        b.numpy()
    with pytest.raises(TypeError, match=r"use tensor\.cpu"):
        np.asarray(b)
    assert b.numpy(force=True).tolist() == [1, 1, 1]
    with pytest.raises(BackendError, match="expected a gradient on cuda"):
        (b.requires_grad_() * 1).backward(a)


def test_reading_values():
    x = kobai.tensor([[1.5, -2.0]], device="cuda")
    assert x.tolist() == [[1.5, -2.0]]
    assert float(x[0, 0]) == 1.5
    assert bool((x < 0).any())
    assert f"{x.sum():.1f}" == "-0.5"
    assert repr(x) == "tensor([[ 1.5000, -2.0000]], device='cuda:0')"


def test_setting_from_the_host():
    x = kobai.zeros(2, 3, device="cuda")
    x[0] = kobai.tensor([1.0, 2.0, 3.0])
    x[1, [0, 2]] = 5
    x[x > 4] = 7.0
    x.copy_(x + kobai.tensor(1.0))
    assert x.tolist() == [[2, 3, 4], [8, 1, 8]]
    with pytest.raises(IndexError):
        x[5]


def test_page_locked_memory():
    host = np.arange(6.0).reshape(2, 3)
    pinned = backend.pin(host)
    assert isinstance(pinned, np.ndarray)
    np.testing.assert_array_equal(pinned, host)
    np.testing.assert_array_equal(kobai.from_numpy(pinned).cuda().cpu().numpy(), host)


def test_data_loader_with_page_locked_batches():
    data = TensorDataset(kobai.arange(20.0), kobai.arange(20))
    loader = DataLoader(data, batch_size=8, pin_memory=True, num_workers=0)
    seen = []
    for x, y in loader:
        assert not x.is_cuda
        seen += x.to("cuda", non_blocking=True).tolist()
        assert y.cuda().dtype == kobai.int64
    assert seen == list(range(20))


def test_data_loader_over_data_on_the_device():
    data = TensorDataset(kobai.arange(20.0, device="cuda"), kobai.arange(20, device="cuda"))
    for options in ({}, {"shuffle": True}, {"batch_sampler": [[1, -1], [3]]}):
        batches = list(DataLoader(data, **({"batch_size": 8} if "batch_sampler" not in options else {}), **options))
        assert all(x.is_cuda and y.is_cuda and x.tolist() == y.tolist() for x, y in batches)
    x, _ = next(iter(DataLoader(data, batch_size=4)))
    x += 1  # a batch is a copy
    assert data.tensors[0][0].item() == 0


def test_dlpack_shares_memory():
    import cupy

    x = kobai.arange(4.0, device="cuda")
    theirs = cupy.from_dlpack(x)
    theirs += 1
    assert x.tolist() == [1, 2, 3, 4]
    ours = kobai.from_dlpack(cupy.arange(3))
    assert ours.is_cuda
    assert ours.tolist() == [0, 1, 2]


def test_arrays_of_cupy_are_taken_as_they_are():
    import cupy

    array = cupy.ones((2, 2), dtype=cupy.float32)
    assert kobai.as_tensor(array).array is array
    assert kobai.tensor(array).array is not array
    assert (kobai.ones(2, 2, device="cuda") + kobai.as_tensor(array)).tolist() == [[2, 2], [2, 2]]


def test_blocks_and_defaults():
    with kobai.device("cuda"):
        assert kobai.zeros(1).is_cuda
    assert not kobai.zeros(1).is_cuda
    with kobai.using("auto"):
        assert kobai.backend() == "cupy"


@pytest.mark.skipif("kobai.cuda.device_count() < 2", reason="needs two devices")
def test_a_second_device():
    x = kobai.arange(3.0, device="cuda:1")
    assert x.device == "cuda:1"
    assert (x * 2 + 1).device == "cuda:1"
    assert x.to("cuda:0").device == "cuda:0"
    assert x.to("cuda:0").tolist() == [0, 1, 2]
    for _ in range(3):  # a move waits for what is still being computed, on either device
        x = x * 2 + 1
        y = x.to("cuda:0") + 1
        assert y.to("cuda:1").tolist() == y.tolist() == (x + 1).tolist()


def test_determinism_is_refused_where_there_is_none():
    kobai.use_deterministic_algorithms(True)
    try:
        table = nn.Embedding(5, 3, device="cuda")
        with pytest.raises(RuntimeError, match="no fixed order"):
            table(kobai.tensor([1, 1], device="cuda")).sum().backward()
    finally:
        kobai.use_deterministic_algorithms(False)
