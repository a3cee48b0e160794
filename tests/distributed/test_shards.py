"""Logical shards: one training ends in the same bits on any number of processes, and says clearly when it cannot."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import kobai
import kobai.distributed as dist
from cli_commands import kobai_command
from kobai import nn
from kobai.distributed.tree import combined
from kobai.errors import CheckpointError, DataError
from kobai.nn import functional as F
from kobai.ops._matmul import matmul, matmul_of_parts
from kobai.ops._tree_sums import tree_sum
from kobai.train import Accuracy, Callback, Metric, NonFiniteError, Trainer, checkpoint, rowwise
from kobai.train.shard_states import RANGE
from kobai.train.shards import Shards
from kobai.utils.data import DataLoader, TensorDataset

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "one_hash.py"
JOB = Path(__file__).with_name("shards_job.py")
mpi = pytest.mark.skipif(not dist.is_available(), reason="mpi4py is not installed")

RNG = np.random.default_rng(0)
X, T = kobai.from_numpy(RNG.normal(size=(44, 6)).astype(np.float32)), kobai.arange(44) % 3


def net(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.Linear(8, 3))


def trainer(model: nn.Module, shards: int, **options: object) -> Trainer:
    rule = kobai.optim.SGD(model.parameters(), lr=0.1)
    return Trainer(model, rule, shards=shards, **options)


def bits(model: nn.Module) -> list[bytes]:
    return [tensor.detach().numpy().tobytes() for tensor in model.state_dict().values()]


# --- the sum


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.complex64])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_one_pass_adds_in_the_order_of_the_tree(n: int, dtype: type) -> None:
    parts = [(RNG.normal(size=(3, 1001)) * 10.0 ** RNG.integers(-3, 3, (3, 1001))).astype(dtype) for _ in range(n)]
    out = np.empty_like(parts[0])
    tree_sum(parts, out)
    wanted = combined(np.array(parts), np.add)
    assert out.tobytes() == wanted.tobytes()
    if n == 4:
        before = parts[0] * 3
        tree_sum([before, *parts], before)
        assert before.tobytes() == (parts[0] * 3 + wanted).tobytes()


@pytest.mark.skipif(not kobai.engine.dispatch.numba_installed, reason="products are BLAS'")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 7), (13, 33), (20, 1), (200, 150)])
def test_a_product_adds_its_parts_in_the_order_of_the_tree(m: int, n: int, dtype: type, threads: int) -> None:
    before = kobai.get_num_threads()
    kobai.set_num_threads(threads)
    try:
        for parts, each in ((1, 3), (2, 1), (4, 24), (8, 48), (64, 6)):
            b = RNG.normal(size=(parts * each, n)).astype(dtype)
            for a in (
                RNG.normal(size=(m, parts * each)).astype(dtype),
                RNG.normal(size=(parts * each, m)).astype(dtype).T,
            ):
                out = np.full((m, n), np.nan, dtype)
                matmul_of_parts(a, b, parts, out)
                cuts = [slice(i * each, (i + 1) * each) for i in range(parts)]
                wanted = combined(np.array([matmul(a[:, cut], b[cut]) for cut in cuts]), np.add)
                assert out.tobytes() == wanted.tobytes(), (parts, each)
    finally:
        kobai.set_num_threads(before)


@pytest.mark.parametrize("shards", [2, 4, 8, 32])
def test_gradients_are_added_in_the_tree(shards: int) -> None:
    """Each shard's gradient by itself, then neighbours first."""
    model = net(nn.ReLU())
    whole = trainer(model, shards)
    cut = whole.shards.cut([X], T)
    outputs, loss = whole.shards.gradients(
        whole.optimizer, cut, lambda x, t: ((y := model(*x)), F.cross_entropy(y, t)), kobai.Tensor.backward, False
    )
    found = model[0].weight.grad.numpy().copy()
    assert len(outputs) == shards
    rows, losses = [], []
    for s, part, target in whole.shards.parts(*cut):
        model.zero_grad()
        share = F.cross_entropy(model(*part), target) * (len(target) / 44)
        share.backward()
        rows.append(model[0].weight.grad.numpy().copy())
        losses.append(share.detach().numpy().reshape(1))
        assert len(target) == 44 // shards + (s < 44 % shards)
    assert found.tobytes() == combined(np.array(rows), np.add).tobytes()
    assert loss.numpy().tobytes() == combined(np.array(losses), np.add).tobytes()
    model.zero_grad()
    F.cross_entropy(model(X), T).backward()
    np.testing.assert_allclose(found, model[0].weight.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_a_summed_loss_is_the_sum_of_the_shards() -> None:
    model = net()
    losses = nn.CrossEntropyLoss(reduction="sum")
    found = float(trainer(model, 4, loss_fn=losses, capture=False).train_step((X, T)))
    assert found == pytest.approx(float(losses(trained_back(model), T)), rel=1e-5)


def trained_back(model: nn.Module) -> kobai.Tensor:
    """The outputs before the step of plain descent that the model has just taken."""
    with kobai.no_grad():
        for p in model.parameters():
            p += 0.1 * p.grad
    return model(X)


# --- noise, buffers, metrics


def test_noise_is_drawn_by_each_shard_for_itself() -> None:
    """From the counter stream and from the host's; how often a shard draws moves no other, nor the next step."""
    drawn: dict[int, list[bytes]] = {}

    class Noisy(nn.Module):
        def __init__(self, extra: bool) -> None:
            super().__init__()
            self.weight, self.calls, self.extra = nn.Parameter(kobai.ones(6, 3)), 0, extra

        def forward(self, x: kobai.Tensor) -> kobai.Tensor:
            self.calls += 1
            mask, noise = F.dropout(kobai.ones(5, 7)), kobai.randn(4)
            if self.extra and self.calls == 1:  # the first shard alone
                F.dropout(kobai.ones(100)), kobai.randn(3)
            drawn.setdefault(self.extra, []).append(mask.numpy().tobytes() + noise.numpy().tobytes())
            return x @ self.weight

    states = []
    for extra in (False, True):
        kobai.manual_seed(0)
        run = trainer(Noisy(extra), 4, capture=False)
        for _ in range(2):
            run.train_step((X, T))
        states.append(kobai.get_rng_state())
    assert drawn[False] == drawn[True]
    assert len(set(drawn[False])) == 8
    assert states[0] == states[1]
    assert states[0]["counter"] == 2 * 4 * RANGE


def test_a_generator_of_a_layer_has_ranges_too() -> None:
    generator = kobai.Generator().manual_seed(3)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.source = nn.Parameter(kobai.ones(6, 3)), generator

        def forward(self, x: kobai.Tensor) -> kobai.Tensor:
            return F.dropout(x, generator=self.source) @ self.weight

    trainer(Own(), 2).train_step((X, T))
    assert generator.counter == 2 * RANGE


def test_buffers_are_those_of_shard_0() -> None:
    kobai.manual_seed(0)
    model = net(nn.BatchNorm1d(8))
    alone = net(nn.BatchNorm1d(8))
    alone.load_state_dict(model.state_dict())
    trainer(model, 4, capture=False).train_step((X, T))
    alone(X[:11])
    for name, buffer in alone.named_buffers():
        assert kobai.equal(buffer, model.get_buffer(name)), name


@pytest.mark.parametrize("capture", [False, True])
def test_metrics_count_all_samples(capture: bool) -> None:
    model = net(nn.Tanh())
    run = trainer(model, 8, metrics=["accuracy"], capture=capture)
    for rows in (44, 44, 13, 44, 13, 13):
        with kobai.no_grad():
            wanted = Accuracy()
            wanted.update(model(X[:rows]), T[:rows])
        before = run.metrics[0].total or 0.0
        run.train_step((X[:rows], T[:rows]))
        assert run.metrics[0].total - before == wanted.total
    assert run.metrics[0].count == run.loss.count == 3 * 44 + 3 * 13


# --- training


@pytest.mark.parametrize("shards", [2, 8])
def test_captured_is_eager(shards: int) -> None:
    found = []
    for capture in (False, True):
        kobai.manual_seed(0)
        model = net(nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))
        rule = kobai.optim.Adam(model.parameters(), lr=0.01)
        run = Trainer(model, rule, shards=shards, capture=capture, clip_grad_norm=0.5, verify_capture=2)
        order = kobai.Generator().manual_seed(1)
        run.fit(DataLoader(TensorDataset(X, T), batch_size=28, shuffle=True, generator=order), epochs=6)
        found.append((bits(model), [record["loss"] for record in run.history], kobai.get_rng_state()))
        assert run._captured.failure is None
        assert run._captured.programs == 2 * capture
    assert found[0] == found[1]


def test_the_layer_where_it_goes_wrong_is_named() -> None:
    class Spoils(nn.Module):
        def forward(self, x: kobai.Tensor) -> kobai.Tensor:
            return x / (x[:, :1] < 100).float()

    wrong = X.clone()
    wrong[40, 0] = 1000  # unless dropout takes it
    for shards, norm in ((2, nn.BatchNorm1d), (4, nn.BatchNorm1d), (4, nn.SyncBatchNorm)):
        kobai.manual_seed(1)
        model = nn.Sequential(nn.Dropout(0.1), nn.Identity(), Spoils(), norm(6), nn.Linear(6, 3))
        with pytest.raises(NonFiniteError, match="output of layer '2'"):
            trainer(model, shards).fit([(X, T), (wrong, T)], epochs=30)


def test_precision_of_16_bits() -> None:
    for precision in ("bf16", "fp16"):
        run = trainer(net(nn.ReLU()), 4, precision=precision)
        losses = [float(run.train_step((X, T))) for _ in range(12)]
        assert losses[-1] < losses[0], precision


# --- statistics of all shards


@pytest.mark.parametrize("shards", [2, 8])
def test_synchronised_statistics_are_those_of_the_batch(shards: int) -> None:
    """Whatever the sizes of the shards: 43 samples are not cut in equal parts."""
    made = []
    for count in (1, shards):
        kobai.manual_seed(0)
        model = net(nn.SyncBatchNorm(8), nn.Tanh())
        trainer(model, count, metrics=["accuracy"], progress=False).fit([(X[:43], T[:43])] * 4, epochs=2)
        made.append(model)
    for (name, whole), cut in zip(made[0].state_dict().items(), made[1].state_dict().values(), strict=True):
        np.testing.assert_allclose(cut.numpy(), whole.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)
    assert not any(thread.name == "shard" for thread in threading.enumerate())


def test_what_goes_wrong_in_one_shard_ends_all() -> None:
    class Fails(nn.Module):
        calls = 0

        def forward(self, x: kobai.Tensor) -> kobai.Tensor:
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return x

    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.out, self.turn = nn.SyncBatchNorm(6), nn.Linear(6, 3), 0

        def forward(self, x: kobai.Tensor) -> kobai.Tensor:
            self.turn += 1
            return self.out(x if self.turn == 3 else self.norm(x))

    model = net(nn.SyncBatchNorm(8), Fails())
    statistics = model[1].running_mean
    with pytest.raises(KeyboardInterrupt):
        trainer(model, 4, capture=False).train_step((X, T))
    assert model[1].running_mean is statistics
    with pytest.raises(RuntimeError, match=r"the same layers in all shards.*float32 \(7,\), nothing"):
        trainer(Routed(), 4, capture=False).train_step((X, T))
    assert not any(thread.name == "shard" for thread in threading.enumerate())


def test_a_step_within_modes_has_them_in_all_shards() -> None:
    """Autocast of the program, and the precision of products, which a forward pass sets while others wait."""
    seen = []

    class Looks(nn.Module):
        def forward(self, x: kobai.Tensor) -> kobai.Tensor:
            seen.append((x.dtype, kobai.get_float32_matmul_precision()))
            return x

    model = net(Looks(), nn.SyncBatchNorm(8), Looks())
    with kobai.autocast("cpu"):
        trainer(model, 2, capture=False).train_step((X, T))
    assert {dtype for dtype, _ in seen} == {kobai.bfloat16}
    seen.clear()
    trainer(model, 2, capture=False, precision="tf32").train_step((X, T))
    assert {precision for _, precision in seen} == {"high"}
    assert kobai.get_float32_matmul_precision() == "highest"


# --- errors


def test_what_cannot_be_sharded() -> None:
    for wrong in (0, 3, 12, 2.0):
        with pytest.raises((ValueError, TypeError), match=r"shards"):
            trainer(net(), wrong)
    with pytest.raises(DataError, match=r"a batch of 7 samples cannot be cut in 8 shards.*drop_last=True"):
        trainer(net(), 8).train_step((X[:7], T[:7]))
    with pytest.raises(TypeError, match=r"its 44 samples.*shape \(43, 6\)"):
        trainer(net(), 2).train_step((X[:43], T))

    class Median(Metric):
        name = "median"

        def update(self, output: kobai.Tensor, target: kobai.Tensor) -> None:
            self.last = output

    with pytest.raises(TypeError, match=r"Median has its own update\(\)"):
        trainer(net(), 2, metrics=[Median()])

    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts, self.turn = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 3)]), 0

        def forward(self, x: kobai.Tensor) -> kobai.Tensor:
            self.turn += 1
            return self.experts[self.turn % 2](x)

    with pytest.raises(RuntimeError, match=r"'experts.0.bias' has one in shard 1 only|experts"):
        trainer(Routed(), 2, capture=False).train_step((X, T))


def test_a_checkpoint_says_how_many_shards(tmp_path: Path) -> None:
    keep = kobai.train.Checkpoint(tmp_path)
    trainer(net(), 4, callbacks=[keep]).fit([(X, T)], epochs=1)
    with pytest.raises(CheckpointError, match="the saved run has shards=4, this one 2"):
        trainer(net(), 2).resume(tmp_path)
    assert trainer(net(), 4).resume(tmp_path).name == checkpoint.LAST


def test_one_shard_is_the_whole_batch() -> None:
    """Nothing of all this is there in a run of one shard."""
    run = trainer(net(), 1)
    assert run.shards is None
    assert "shards" not in run.state_dict()
    assert Shards(1, run.model).own == range(1)
    assert not Callback.once


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-n", 3], "expected a power of two, got 3"),
        (["-n", 4, "--shards", 2], "expected a number that 4 processes divide, got 2"),
        (["--shards", 6], "expected a power of two, got 6"),
    ],
)
def test_wrong_settings_need_no_processes(
    capsys: pytest.CaptureFixture[str], options: list[object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    code, _, err = kobai_command(capsys, "train", *options)
    assert code == 2
    assert f"--shards: {said}" in " ".join(err.replace("│", "").split())


@pytest.mark.thorough
def test_shards_of_a_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What a run was begun with holds when it is resumed, and may not change."""
    begin = ["train", "--hidden", 8, "--shards", 2, "--epochs", 1, "--out", tmp_path / "run"]
    assert kobai_command(capsys, *begin)[0] == 0
    code, out, _ = kobai_command(capsys, "train", "--resume", tmp_path / "run", "--epochs", 2)
    assert code == 0
    assert "in 2 shards" in out
    code, _, err = kobai_command(capsys, "train", "--resume", tmp_path / "run", "--shards", 4)
    assert code == 2
    assert "the run was begun with 2, not 4" in " ".join(err.replace("│", "").split())


# --- processes


def launched(n: int, *arguments: str) -> tuple[int, str, float]:
    """Exit code, output, seconds of a job."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "kobai", "launch", "-n", str(n), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr, time.perf_counter() - began


@pytest.mark.few(3)
@mpi
@pytest.mark.parametrize(
    ("n", "name"), [(2, "trains"), (2, "meets"), pytest.param(4, "meets", marks=pytest.mark.thorough)]
)
def test_several_processes_end_in_the_bits_of_one(n: int, name: str) -> None:
    from shards_job import digest, run

    code, said, _ = launched(n, str(JOB), name)
    assert code == 0, said
    found = {digest(run(met=name == "meets", capture=capture)) for capture in (False, True)}
    assert set(re.findall(r"digest (\w+)", said)) == found
    assert said.count("digest") == 1  # one process prints


@mpi
@pytest.mark.thorough
def test_one_hash() -> None:
    """Processes × threads × eager or captured × killed and resumed with another number of processes, for three models."""
    done = subprocess.run([sys.executable, str(SCRIPT), "--small"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("one hash") == 3


@mpi
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("n", "name", "said"),
    [
        (
            2,
            "other_model",
            r"the same model and versions in all processes; rank 0 has .*8, 6.* rank 1 .*9, 6",
        ),
        (2, "other_shards", r"rank 0 has 2 shards, rank 1 4 shards"),
        (2, "other_batch", r"rank 0: all_reduce.*a batch of 44.*rank 1: .*a batch of 43"),
        (
            2,
            "other_rule",
            r"different things.*batch 1.1, target (\w+), state (\w+); rank 1.*target \1, state (?!\2)",
        ),
        (2, "other_noise", r"different things.*batch 1.1, target (\w+), state (\w+); rank 1.*target \1, state (?!\2)"),
        (2, "other_order", r"the processes want different things.*batch 1.1, target"),
        (2, "runs_out", r"rank 0: broadcast.*rank 1: nothing more"),
        (3, "trains", r"a number of processes that divides the 4 shards, got 3"),
    ],
)
def test_what_the_processes_do_not_agree_on(n: int, name: str, said: str) -> None:
    code, output, _ = launched(n, str(JOB), name)
    assert code != 0
    assert re.search(said, output), output


@mpi
@pytest.mark.thorough
def test_a_killed_run_goes_on_with_other_processes(tmp_path: Path) -> None:
    """``kobai train -n 2``, rank 1 killed: who it was is said in time, and 1 and 4 processes come to the uninterrupted bits."""
    settings = "--batch-norm --dropout 0.1 --shards 4 --hidden 16 --save-every 5".split()
    folders = {name: tmp_path / name for name in ("killed", "whole", "other")}

    def train(n: int, *options: str) -> list[str]:
        return [sys.executable, "-m", "kobai", "train", "-n", str(n), *options]

    begun = train(2, *settings, "--epochs", "100000", "--out", str(folders["killed"]))
    running = subprocess.Popen(begun, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (folders["killed"] / checkpoint.PREVIOUS).exists():
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.05)
    pid = _pid_of(1, running.pid)
    began = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    said = running.communicate(timeout=60)[0]
    assert time.perf_counter() - began < 5
    assert f"rank 1 (PID {pid}) was ended from outside" in said
    assert running.returncode not in (0, 1, 2)
    epochs = checkpoint.read(folders["killed"] / checkpoint.LAST)["epoch"] + 1
    shutil.copytree(folders["killed"], folders["other"])
    for command in (
        train(1, *settings, "--epochs", str(epochs), "--out", str(folders["whole"])),
        train(1, "--resume", str(folders["killed"]), "--epochs", str(epochs)),
        train(4, "--resume", str(folders["other"]), "--epochs", str(epochs)),
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    found = [_result(folder) for folder in folders.values()]
    assert found[0] == found[1] == found[2]


def _result(folder: Path) -> tuple[list[bytes], list[dict[str, float]], object]:
    """What a run has come to: parameters and statistics, the history but for the seconds, and the random streams."""
    state = checkpoint.read(folder / checkpoint.LAST)
    history = [{key: value for key, value in record.items() if key != "time"} for record in state["history"]]
    return [tensor.numpy().tobytes() for tensor in state["model"].values()], history, state["random"]


def _pid_of(rank: int, launcher: int) -> int:
    """The process of a rank, among the launcher's descendants."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    for pid in parents:
        above = pid
        while above in parents and above != launcher:
            above = parents[above]
        if above == launcher and f"PMI_RANK={rank}\0" in Path(f"/proc/{pid}/environ").read_text():
            return pid
    raise AssertionError(f"no process of rank {rank}")


# --- all shards in one pass


ROWWISE = {
    "one layer": lambda: nn.Sequential(nn.Linear(6, 3)),
    "layers": lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 200, bias=False), nn.ReLU(), nn.Linear(200, 3)),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.GELU(), nn.Linear(8, 3)),
}


@pytest.mark.skipif(not kobai.engine.dispatch.numba_installed, reason="products are BLAS'")
@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize(("count", "shards"), [(44, 4), (44, 8), (43, 2), (32, 32)])
@pytest.mark.parametrize("make", ROWWISE.values(), ids=ROWWISE)
def test_all_shards_in_one_pass_have_the_bits_of_each_by_itself(monkeypatch, make, count, shards, capture):
    inputs, targets = X.repeat(20, 1)[: 20 * count], T.repeat(20)[: 20 * count]  # more than one product takes

    def trained(one_pass: bool) -> tuple[list[bytes], list[float]]:
        kobai.manual_seed(0)
        model = make()
        taken = []
        real = rowwise.takes
        with monkeypatch.context() as patch:
            patch.setattr(rowwise, "takes", lambda *given: taken.append(real(*given)) or (taken[-1] and one_pass))
            run = trainer(model, shards, capture=capture, metrics=["accuracy"], progress=False)
            run.fit([(X[:count], T[:count]), (inputs, targets)] * 3, epochs=2)
        assert all(taken)
        return bits(model), [record["loss"] for record in run.history]

    assert trained(True) == trained(False)


def shared() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, layer, nn.Linear(6, 3))


def hooked() -> nn.Module:
    model = net()
    model[0].weight.register_hook(lambda gradient: gradient)
    return model


@pytest.mark.parametrize(
    "make", [lambda: net(nn.BatchNorm1d(8)), lambda: net(nn.Dropout()), lambda: net(nn.LayerNorm(8)), shared, hooked]
)
def test_other_models_take_each_shard_by_itself(make):
    model = make()
    assert not rowwise.takes(model, dict(model.named_parameters()), [X])
