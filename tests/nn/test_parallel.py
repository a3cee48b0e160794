"""DataParallel on one device, SyncBatchNorm in one process, DistributedSampler, the choice of a kernel for attention."""

from __future__ import annotations

import pytest

import kobai
from kobai import nn
from kobai.nn.attention import SDPBackend, sdpa_kernel
from kobai.nn.parallel import data_parallel
from kobai.utils.data import DataLoader, TensorDataset
from kobai.utils.data.distributed import DistributedSampler


def test_data_parallel_is_its_module_with_keys_of_its_own():
    net = nn.Linear(2, 3)
    model = nn.DataParallel(net, device_ids=None)
    x = kobai.ones(4, 2)
    assert model.module is net
    assert list(model.state_dict()) == ["module.weight", "module.bias"]
    assert kobai.equal(model(x), net(x))
    assert kobai.equal(model(input=x), net(x))
    assert [id(p) for p in model.parameters()] == [id(p) for p in net.parameters()]
    assert kobai.equal(data_parallel(net, x), net(x))
    assert kobai.equal(data_parallel(net, (x,), module_kwargs={}), net(x))
    assert not model.eval().module.training
    model(x).sum().backward()
    assert net.weight.grad is not None
    state = model.state_dict()
    kobai.nn.modules.utils.consume_prefix_in_state_dict_if_present(state, "module.")
    nn.Linear(2, 3).load_state_dict(state)


def test_several_devices_are_refused_where_there_are_any(monkeypatch):
    net = nn.Linear(2, 3)
    assert nn.DataParallel(net, device_ids=[0, 1]).device_ids == []  # as in PyTorch without a GPU
    monkeypatch.setattr("kobai.cuda.is_available", lambda: True)
    with pytest.raises(NotImplementedError, match=r"one device, got device_ids \[0, 1\]"):
        nn.DataParallel(net, device_ids=[0, 1])


@pytest.mark.gpu
def test_arguments_go_to_the_device_of_the_module():
    model = nn.DataParallel(nn.Bilinear(2, 2, 3).cuda(), device_ids=[0])
    y = model(kobai.ones(4, 2), input2=kobai.ones(4, 2))
    assert y.is_cuda
    assert model.device_ids == [0]


def test_batch_norm_of_one_process_is_that_of_all():
    kobai.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, momentum=0.3), nn.Sequential(nn.InstanceNorm2d(2)))
    model[1].weight.requires_grad_(False)
    x = kobai.randn(4, 1, 5, 5)
    before, tensors = model(x), {key: id(value) for key, value in [*model.named_parameters(), *model.named_buffers()]}
    model[1].reset_running_stats()
    plain = model[1]
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert converted is model
    assert type(model[1]) is nn.SyncBatchNorm
    assert type(model[2][0]) is nn.InstanceNorm2d
    assert {key: id(value) for key, value in [*model.named_parameters(), *model.named_buffers()]} == tensors
    assert kobai.equal(model(x), before)
    assert (model[1].momentum, model[1].eps, model[1].affine) == (0.3, plain.eps, True)
    assert model[1].extra_repr() == plain.extra_repr()
    assert type(nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm1d(3).eval())) is nn.SyncBatchNorm
    assert not nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm1d(3).eval()).training
    for shape in ((4, 3), (4, 3, 2), (4, 3, 2, 2), (4, 3, 2, 2, 2)):
        assert nn.SyncBatchNorm(3)(kobai.randn(*shape)).shape == shape
    with pytest.raises(NotImplementedError, match="there is one group"):
        nn.SyncBatchNorm(3, process_group="all")


@pytest.mark.parametrize(("n", "replicas"), [(10, 2), (11, 3), (2, 5), (7, 1)])
def test_processes_share_an_epoch(n, replicas):
    for shuffle in (False, True):
        parts = [list(DistributedSampler(range(n), replicas, rank, shuffle)) for rank in range(replicas)]
        assert {len(part) for part in parts} == {-(-n // replicas)}
        assert {i for part in parts for i in part} == set(range(n))
        cut = [list(DistributedSampler(range(n), replicas, rank, shuffle, drop_last=True)) for rank in range(replicas)]
        assert {len(part) for part in cut} == {n // replicas}
        assert len({i for part in cut for i in part}) == n // replicas * replicas


def test_an_epoch_has_its_own_order():
    sampler = DistributedSampler(range(50), 1, 0)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    batches = list(DataLoader(TensorDataset(kobai.arange(50)), batch_size=10, sampler=sampler))
    assert kobai.cat([batch[0] for batch in batches]).tolist() == list(sampler)
    with pytest.raises(RuntimeError, match="num_replicas and rank"):
        DistributedSampler(range(5))
    with pytest.raises(ValueError, match=r"rank in \[0, 1\], got 2"):
        DistributedSampler(range(5), 2, 2)


def test_attention_is_the_same_by_whichever_kernel():
    q = kobai.randn(1, 2, 3, 4)
    expected = nn.functional.scaled_dot_product_attention(q, q, q)
    for kernel in (SDPBackend.MATH, [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        with sdpa_kernel(kernel):
            assert kobai.equal(nn.functional.scaled_dot_product_attention(q, q, q), expected)
    with pytest.raises(TypeError, match="one SDPBackend or several, got 'math'"), sdpa_kernel("math"):
        pass


@pytest.mark.oracle
def test_shares_are_pytorchs():
    from torch.utils.data.distributed import DistributedSampler as Theirs

    for n, replicas, drop in ((11, 3, False), (11, 3, True), (2, 5, False), (2, 5, True), (9, 3, True)):
        for rank in range(replicas):
            ours, theirs = (S(range(n), replicas, rank, False, drop_last=drop) for S in (DistributedSampler, Theirs))
            assert list(ours) == list(theirs)
            assert (len(ours), ours.num_samples, ours.total_size) == (
                len(theirs),
                theirs.num_samples,
                theirs.total_size,
            )
