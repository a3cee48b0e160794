"""kobai.utils.data: DataLoader with worker threads."""

import gc
import threading
import time
import traceback

import numpy as np
import pytest

import kobai
from kobai.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info


class Slow(Dataset):
    """Samples that take differently long, so that threads finish out of order."""

    def __init__(self, n=24, seconds=0.002):
        self.n, self.seconds = n, seconds

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        time.sleep(self.seconds * (index % 3))
        return index


def flat(loader):
    return [i for batch in loader for i in batch.tolist()]


def loader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("kobai-loader")]


def assert_threads_end(seconds=2.0):
    end = time.monotonic() + seconds
    while loader_threads() and time.monotonic() < end:
        time.sleep(0.005)
    assert not loader_threads()


@pytest.fixture(autouse=True)
def no_thread_outlives_its_test():
    yield
    gc.collect()
    assert_threads_end()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_order_is_that_of_no_workers(workers):
    kobai.manual_seed(0)
    expected = [flat(DataLoader(Slow(), 5, shuffle=True)), flat(DataLoader(Slow(), 5, shuffle=True))]
    state = kobai.get_rng_state()
    kobai.manual_seed(0)
    assert [flat(DataLoader(Slow(), 5, shuffle=True, num_workers=workers)) for _ in range(2)] == expected
    assert kobai.get_rng_state() == state


def test_tensors_and_subsets():
    data = TensorDataset(kobai.arange(10))
    assert [b[0].tolist() for b in DataLoader(data, 4, num_workers=2)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    kobai.manual_seed(1)
    a = [b[0].tolist() for b in DataLoader(data, 4, shuffle=True)]
    kobai.manual_seed(1)
    assert [b[0].tolist() for b in DataLoader(data, 4, shuffle=True, num_workers=3)] == a


def test_threads_read_at_the_same_time():
    both = threading.Barrier(2, timeout=5)

    class Meets(Slow):
        def __getitem__(self, index):
            both.wait()  # passes only if two samples are being read at once
            return index

    assert flat(DataLoader(Meets(4), num_workers=2)) == [0, 1, 2, 3]


def test_batches_are_read_ahead_but_not_further_than_asked():
    read = []

    class Noting(Slow):
        def __getitem__(self, index):
            read.append(index)
            return index

    it = iter(DataLoader(Noting(50), num_workers=2, prefetch_factor=3))
    end = time.monotonic() + 2
    while len(read) < 6 and time.monotonic() < end:
        time.sleep(0.002)
    time.sleep(0.02)
    assert sorted(read) == [0, 1, 2, 3, 4, 5]
    next(it)
    del it


def test_error_is_raised_in_its_place_with_its_own_traceback():
    class Broken(Slow):
        def __getitem__(self, index):
            return {}["absent"] if index == 5 else index

    it = iter(DataLoader(Broken(8), batch_size=2, num_workers=2))
    assert next(it).tolist() == [0, 1]
    assert next(it).tolist() == [2, 3]
    with pytest.raises(KeyError, match="absent") as caught:
        next(it)
    assert any("worker 0 by batch 2" in note for note in caught.value.__notes__)
    assert "__getitem__" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert next(it).tolist() == [6, 7]  # the loop may go on
    assert list(it) == []


def test_collate_runs_in_the_worker_and_its_error_is_raised():
    names = []

    def collate(samples):
        names.append(threading.current_thread().name)
        if 2 in samples:
            raise ValueError("no batch of 2")
        return samples

    it = iter(DataLoader(Slow(4), num_workers=1, collate_fn=collate))
    assert next(it) == [0]
    assert next(it) == [1]
    with pytest.raises(ValueError, match="no batch of 2"):
        next(it)
    assert set(names) == {"kobai-loader-0"}
    del it


def test_stop_iteration_of_a_data_set_is_an_error_and_no_end():
    class Stops(Slow):
        def __getitem__(self, index):
            raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(DataLoader(Stops(2), num_workers=1))


def test_timeout():
    release = threading.Event()

    class Stuck(Slow):
        def __getitem__(self, index):
            release.wait(10)
            return index

    it = iter(DataLoader(Stuck(2), num_workers=1, timeout=0.05))
    with pytest.raises(RuntimeError, match=r"timed out.*0\.05 seconds"):
        next(it)
    release.set()
    assert [b.item() for b in it] == [0, 1]  # late, but not lost


def test_dropped_iterator_ends_its_threads_and_reads_no_more():
    read = []

    class Noting(Slow):
        def __getitem__(self, index):
            read.append(index)
            time.sleep(0.002)
            return index

    it = iter(DataLoader(Noting(1000), num_workers=2, prefetch_factor=50))
    next(it)
    assert len(loader_threads()) == 2
    del it
    gc.collect()
    assert_threads_end()
    assert len(read) < 100


def test_breaking_out_of_the_loop_ends_the_threads():
    for batch in DataLoader(Slow(100), num_workers=2):
        if batch.item() == 3:
            break
    gc.collect()
    assert_threads_end()


def test_exhausted_iterator_stays_exhausted_and_ends_its_threads():
    it = iter(DataLoader(Slow(3), num_workers=2))
    assert len(list(it)) == 3
    assert_threads_end()
    assert next(it, None) is None


def test_persistent_workers_keep_their_threads():
    started = []
    loader = DataLoader(Slow(6), 2, num_workers=2, persistent_workers=True, worker_init_fn=started.append)
    assert flat(loader) == list(range(6))
    threads = set(loader_threads())
    assert len(threads) == 2
    assert flat(loader) == list(range(6))
    assert set(loader_threads()) == threads
    assert sorted(started) == [0, 1]
    next(iter(loader))  # an epoch broken off does not leak into the next
    assert flat(loader) == list(range(6))
    del loader
    gc.collect()
    assert_threads_end()


def test_init_function_runs_in_every_worker():
    seen = []
    loader = DataLoader(
        Slow(4), num_workers=2, worker_init_fn=lambda i: seen.append((i, threading.current_thread().name))
    )
    assert flat(loader) == [0, 1, 2, 3]
    assert sorted(seen) == [(0, "kobai-loader-0"), (1, "kobai-loader-1")]


def test_error_of_the_init_function():
    def init(worker):
        raise OSError("no such disk")

    it = iter(DataLoader(Slow(4), num_workers=1, worker_init_fn=init))
    for _ in range(2):
        with pytest.raises(OSError, match="no such disk"):
            next(it)
    del it


def test_worker_info():
    class Infos(Slow):
        def __getitem__(self, index):
            return get_worker_info()

    data = Infos(4)
    kobai.manual_seed(0)
    infos = [b[0] for b in DataLoader(data, num_workers=2, collate_fn=list)]
    assert [i.id for i in infos] == [0, 1, 0, 1]
    assert all(i.num_workers == 2 and i.dataset is data for i in infos)
    assert infos[0].seed + 1 == infos[1].seed
    kobai.manual_seed(0)
    assert next(iter(DataLoader(data, num_workers=2, collate_fn=list)))[0].seed == infos[0].seed
    kobai.manual_seed(1)
    assert next(iter(DataLoader(data, num_workers=2, collate_fn=list)))[0].seed != infos[0].seed
    assert get_worker_info() is None


class Shared(IterableDataset):
    """A stream of which every worker reads its share."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        info = get_worker_info()
        return iter(range(self.n)) if info is None else iter(range(info.id, self.n, info.num_workers))


def test_streams_are_shared_out_by_worker_info():
    assert flat(DataLoader(Shared(7), batch_size=2)) == list(range(7))
    two = [b.tolist() for b in DataLoader(Shared(7), batch_size=2, num_workers=2)]
    assert two == [[0, 2], [1, 3], [4, 6], [5]]
    uneven = [b.tolist() for b in DataLoader(Shared(7), batch_size=1, num_workers=3)]
    assert sorted(i for b in uneven for i in b) == list(range(7))
    kept = [b.tolist() for b in DataLoader(Shared(7), batch_size=2, num_workers=2, drop_last=True)]
    assert kept == [[0, 2], [1, 3], [4, 6]]
    assert list(DataLoader(Shared(0), batch_size=2, num_workers=2)) == []


def test_persistent_workers_restart_a_stream():
    loader = DataLoader(Shared(5), batch_size=2, num_workers=2, persistent_workers=True)
    first = flat(loader)
    assert sorted(first) == list(range(5))
    assert flat(loader) == first


def test_error_of_a_stream_at_its_beginning():
    class NoStream(IterableDataset):
        def __iter__(self):
            raise OSError("cannot connect")

    it = iter(DataLoader(NoStream(), num_workers=1))
    with pytest.raises(OSError, match="cannot connect"):
        next(it)
    del it


def test_arrays_become_tensors_in_the_thread_that_trains(monkeypatch):
    """Work for a device belongs to the training thread: a worker must not copy anything there."""
    from kobai.utils.data import collate

    names = set()
    real = collate.asarray

    def noting(*args, **kwargs):
        names.add(threading.current_thread().name)
        return real(*args, **kwargs)

    monkeypatch.setattr(collate, "asarray", noting)

    class Arrays(Slow):
        def __getitem__(self, index):
            return np.zeros(2), index

    for x, _ in DataLoader(Arrays(4), batch_size=2, num_workers=2):
        assert x.shape == (2, 2)
    assert names == {"MainThread"}
