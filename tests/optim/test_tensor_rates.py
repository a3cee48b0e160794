"""A learning rate that is a tensor: as the number that it holds, looked at in every step, replays too."""

import copy

import numpy as np
import pytest
from optimizer_table import CASES, IDS, host, make, parameter
from test_lr_scheduler import BY_HAND

import kobai
from kobai import optim
from kobai.capture.graph import CudaRecorder
from kobai.capture.rules import Uncaptured
from kobai.capture.session import Session
from kobai.engine import dispatch
from kobai.errors import CaptureError
from kobai.optim import lr_scheduler as s
from kobai.optim.groups import learning_rate

RARER = [("Rprop", {}), ("ASGD", {"t0": 3, "lambd": 0.01, "alpha": 0.5})]
LBFGS = ("LBFGS", {"max_iter": 2})
FLAGS = [(name, flags) for name, flags, _ in CASES] + RARER
NAMES = [*IDS, *(name for name, _ in RARER)]
TENSORS = {
    "no dimension": lambda lr: kobai.tensor(lr, dtype=kobai.float64),
    "one dimension": lambda lr: kobai.tensor([lr], dtype=kobai.float64),
    "with gradient": lambda lr: kobai.tensor(lr, dtype=kobai.float64, requires_grad=True),
}


@pytest.fixture(params=[False, True], ids=["numpy", "numba"])
def engines(request, monkeypatch):
    if request.param:
        pytest.importorskip("numba")
    monkeypatch.setattr(dispatch, "numba_installed", request.param)


def training(name, flags, lr, schedule=None, captured=False, within=None):
    """Parameters, their optimiser, its schedule and a step; ``within(optimizer)`` is what else the step does."""
    rng = np.random.default_rng(0)
    parameters = [parameter(rng.normal(size=shape)) for shape in [(3, 4), (5,), ()]]
    optimizer = make(optim, name, parameters, lr=lr, **flags)
    scheduler = None if schedule is None else schedule(optimizer)

    def closure():
        optimizer.zero_grad()
        loss = sum(((p - 0.5) ** 4).sum() for p in parameters)
        loss.backward()
        return loss

    def step(x):
        loss = optimizer.step(closure) * x
        if scheduler is not None:
            scheduler.step()
        if within is not None:
            within(optimizer)
        return loss

    return parameters, optimizer, scheduler, kobai.capture(step) if captured else step


def course(parts, change=lambda i, optimizer: None, steps=8):
    """The bytes of the parameters after every step; ``change(i, optimizer)`` comes before step i."""
    parameters, optimizer, _, step = parts
    seen = []
    for i in range(steps):
        change(i, optimizer)
        step(kobai.ones((), dtype=kobai.float64))
        seen.append([host(p).tobytes() for p in parameters])
    return seen


@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize(("name", "flags"), [*FLAGS, LBFGS], ids=[*NAMES, "LBFGS"])
def test_every_optimizer_takes_the_number_in_a_tensor(name, flags, kind):
    def set_number(i, optimizer):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 + i % 3)

    def write(i, optimizer):
        with kobai.no_grad():
            lr.copy_(kobai.full(lr.shape, 0.01 * (1 + i % 3), dtype=kobai.float64))

    lr = TENSORS[kind](0.01)
    parts = training(name, flags, lr)
    assert course(parts, write) == course(training(name, flags, 0.01), set_number)
    assert parts[1].param_groups[0]["lr"] is lr
    assert parts[1].state_dict()["param_groups"][0]["lr"] is lr


def test_decoupled_weight_decay_shrinks_by_the_number_in_a_tensor():
    lr = kobai.tensor(0.25, dtype=kobai.float64)
    flags = {"weight_decay": 0.5}
    assert course(training("AdamW", flags, lr)) == course(training("AdamW", flags, 0.25))


@pytest.mark.parametrize(("name", "flags"), FLAGS, ids=NAMES)
def test_a_replay_sees_what_was_written_into_it(name, flags, engines):
    def write(i, optimizer):
        if i == 5:
            optimizer.param_groups[0]["lr"] = kobai.tensor([0.04], dtype=kobai.float64)  # another tensor
        lr = optimizer.param_groups[0]["lr"]
        lr.fill_(0.01 * (1 + i % 3))

    lrs = [kobai.tensor(0.01, dtype=kobai.float64) for _ in range(2)]
    eager = course(training(name, flags, lrs[0]), write)
    captured = training(name, flags, lrs[1], captured=True)
    assert course(captured, write) == eager
    assert captured[3].programs == 1


@pytest.mark.parametrize("captured", [False, True])
def test_a_step_may_write_into_it_itself(captured, engines):
    def shrink(optimizer):
        optimizer.param_groups[0]["lr"].mul_(0.5)

    def halve(i, optimizer):
        optimizer.param_groups[0]["lr"] *= 0.5 if i else 1

    lr = kobai.tensor(0.25, dtype=kobai.float64)
    parts = training("SGD", {"momentum": 0.5}, lr, captured=captured, within=shrink)
    assert course(parts) == course(training("SGD", {"momentum": 0.5}, 0.25), halve)
    assert lr.item() == 0.25 * 0.5**8
    assert not captured or parts[3].programs == 1


def test_a_step_may_not_put_another_tensor_in_its_place():
    def rebind(optimizer):
        group = optimizer.param_groups[0]
        group["lr"] = group["lr"] * 0.5

    with pytest.raises(CaptureError, match="lr"):
        course(training("SGD", {}, kobai.tensor(0.25, dtype=kobai.float64), captured=True, within=rebind))


def test_one_on_a_strict_device_cannot_be_read_while_its_step_is_captured():
    with kobai.using("strict"):
        group = {"lr": kobai.tensor(0.5)}
    assert learning_rate(group) == 0.5
    recorder = CudaRecorder(lenient=True)
    with pytest.raises(CaptureError, match="keep it on the CPU"):
        Session(recorder).within(lambda: learning_rate(group))
    assert Session(Uncaptured(recorder.done)).within(lambda: learning_rate(group)) == 0.5  # the step as it is


# --- schedules --------------------------------------------------------------------------------------------------------

SCHEDULES = [
    *(build for build, _ in BY_HAND),
    lambda o: s.OneCycleLR(o, 0.5, total_steps=60),
    lambda o: s.CyclicLR(o, 0.01, 0.5, step_size_up=3),
    lambda o: optim.swa_utils.SWALR(o, 0.05, anneal_epochs=4),
]


@pytest.mark.parametrize("build", SCHEDULES)
@pytest.mark.parametrize("captured", [False, True])
def test_every_schedule_writes_into_it(build, captured):
    flags, n = {"momentum": 0.9}, 9
    lr = kobai.tensor(0.25, dtype=kobai.float64)
    number, tensor = training("SGD", flags, 0.25, build), training("SGD", flags, lr, build, captured)
    assert tensor[2].get_last_lr() == number[2].get_last_lr()
    for _ in range(n):
        assert course(tensor, steps=1) == course(number, steps=1)
        rate = number[1].param_groups[0]["lr"]
        assert tensor[1].param_groups[0]["lr"] is lr
        assert lr.item() == rate
        assert tensor[2].get_last_lr() == [rate]
        assert type(tensor[2].get_last_lr()[0]) is float


def test_a_plateau_and_a_cosine_of_float32():
    lr = kobai.tensor(0.1)
    optimizer = optim.SGD([parameter([1.0])], lr=lr)
    plateau = s.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    for _ in range(3):
        plateau.step(1.0)
    assert lr.item() == float(np.float32(0.1)) / 4
    assert optimizer.param_groups[0]["lr"] is lr


def test_a_schedule_that_fails_leaves_it_as_it_was():
    class Fails(s.LRScheduler):
        def get_lr(self):
            return [0.5, "nothing"] if self.last_epoch else [0.25, 0.25]

    lr = kobai.tensor(0.25, dtype=kobai.float64)
    optimizer = optim.SGD([{"params": parameter([1.0])}, {"params": parameter([1.0])}], lr=lr)
    optimizer.param_groups[1]["lr"] = other = kobai.tensor(0.25, dtype=kobai.float64)
    scheduler = Fails(optimizer)
    optimizer.step()
    with pytest.raises(ValueError, match="could not convert"):
        scheduler.step()
    assert (lr.item(), other.item(), scheduler.last_epoch) == (0.25, 0.25, 0)


def test_a_schedule_of_ones_own_may_compute_with_tensors():
    class Half(s.LRScheduler):
        def get_lr(self):
            return [group["lr"] * 0.5 for group in self.optimizer.param_groups]

    lr = kobai.tensor(1.0)
    optimizer = optim.SGD([parameter([1.0])], lr=lr)
    Half(optimizer)
    assert lr.item() == 0.5
    assert optimizer.param_groups[0]["lr"] is lr


# --- copies and files -------------------------------------------------------------------------------------------------


def test_copies_and_files_hold_a_tensor_of_their_own(tmp_path):
    lr = kobai.tensor(0.25)
    w = parameter([1.0])
    optimizer = optim.SGD([w], lr=lr)
    twin = copy.deepcopy(optimizer)
    kobai.save(optimizer.state_dict(), tmp_path / "file")
    other = optim.SGD([parameter([1.0])], lr=0.5)
    other.load_state_dict(kobai.load(tmp_path / "file"))
    lr.fill_(0.125)
    assert [o.param_groups[0]["lr"].item() for o in (optimizer, twin, other)] == [0.125, 0.25, 0.25]
    assert "lr: 0.125\n" in repr(optimizer)


def test_a_trainer_notes_the_number():
    kobai.manual_seed(0)
    model = kobai.nn.Linear(2, 2)
    lr = kobai.tensor(0.5)
    optimizer = optim.SGD(model.parameters(), lr=lr)
    trainer = kobai.train.Trainer(
        model, optimizer, kobai.nn.CrossEntropyLoss(), scheduler=s.ExponentialLR(optimizer, 0.5)
    )
    x, y = kobai.randn(8, 2), kobai.tensor([0, 1] * 4)
    history = trainer.fit([(x, y)], epochs=3)
    assert [record["lr"] for record in history] == [0.5, 0.25, 0.125]
    assert all(type(record["lr"]) is float for record in history)
