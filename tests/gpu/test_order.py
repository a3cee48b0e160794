"""The host runs ahead of the device: what it reuses, waits for, or gives away must not change what is still to be done."""

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.cuda import backend

needs_nvmath = pytest.mark.skipif("not __import__('kobai').cuda.cublaslt.is_available()", reason="needs nvmath-python")


def test_a_page_locked_batch_may_be_written_to_again():
    host = backend.pin(np.zeros(1000, np.float32))
    there = []
    for k in range(4):
        host[:] = k
        there.append(kobai.from_numpy(host).to("cuda", non_blocking=True))
    assert [x.sum().item() for x in there] == [0, 1000, 2000, 3000]


def test_pinned_memory_is_page_locked():
    import cupy

    pinned = backend.pin(np.arange(6.0).reshape(2, 3))
    assert cupy.cuda.runtime.pointerGetAttributes(pinned.ctypes.data).type == 1  # of the host, known to CUDA


@pytest.mark.parametrize("wait", [kobai.cuda.synchronize, lambda: kobai.ones(3).to("cuda")], ids=["synchronize", "to"])
def test_waiting_for_the_device(wait):
    import cupy

    x = kobai.ones(1000, device="cuda")
    _ = x * 2
    over = cupy.cuda.Event()
    over.record()
    wait()
    assert over.done


class Training:
    """A model, a step, and what both come to; nothing is read before the end."""

    def __init__(self, captured):
        kobai.manual_seed(3)
        self.model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1)).double()
        optimizer = kobai.optim.Adam(self.model.parameters(), lr=0.1)
        schedule = kobai.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

        def step(x):
            optimizer.zero_grad()
            loss = self.model(x).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            return loss

        self.step = kobai.capture(step) if captured else step

    def after(self, batches):
        kobai.manual_seed(5)
        losses = [self.step(x) for x in batches]
        return [x.tolist() for x in (*losses, *self.model.state_dict().values())]


def batches(n):
    rng = np.random.default_rng(6)
    return [kobai.tensor(rng.normal(size=(6, 5))) for _ in range(n)]


@needs_nvmath
def test_steps_that_are_queued_ahead_have_numbers_of_their_own():
    """Learning rates, bias corrections and dropout masks of later steps do not reach those that wait."""
    with kobai.using("cupy"):
        eager, captured = (Training(c).after(batches(8)) for c in (False, True))
    for ours, theirs in zip(captured, eager, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@needs_nvmath
def test_a_graph_writes_to_no_memory_but_its_own():
    """Arrays made after the capture, of all the sizes that the step uses, stay as they are while it is replayed."""
    with kobai.using("cupy"):
        training = Training(True)
        training.after(batches(3))
        others = [kobai.full((n,), k, dtype=kobai.float64) for k in range(40) for n in (1, 8, 40, 48, 64, 128)]
        training.after(batches(3))
        for k in range(40):
            for other in others[6 * k : 6 * k + 6]:
                assert (other == k).all().item()
        assert training.step.programs == 1


@needs_nvmath
def test_two_graphs_do_not_disturb_each_other():
    with kobai.using("cupy"):
        wanted = [Training(False).after(batches(6)) for _ in range(2)]
        pair = Training(True), Training(True)
        found = [[], []]
        for x in batches(6):
            for i in (0, 1):
                kobai.manual_seed(len(found[i]))
                found[i].append(pair[i].step(x))
        del wanted
        for one, other in zip(*found, strict=True):
            assert one.item() == pytest.approx(other.item(), rel=1e-9)


@needs_nvmath
def test_a_replay_on_another_stream_comes_after_what_is_queued_there():
    import cupy

    with kobai.using("cupy"):
        training = Training(True)
        training.after(batches(3))
        last = training.model[3]
        with cupy.cuda.Stream(non_blocking=True):
            for x in batches(2):
                with kobai.no_grad():
                    last.weight.zero_()
                    last.bias.zero_()
                assert training.step(x).item() == 0


@needs_nvmath
def test_memory_that_a_dropped_graph_leaves_is_used_again():
    with kobai.using("cupy"):
        used = []
        for _ in range(4):
            training = Training(True)
            training.after(batches(3))
            del training
            kobai.cuda.synchronize()
            used.append(kobai.cuda.mem_get_info()[0])
        assert used[-1] >= used[1] - (1 << 22)
