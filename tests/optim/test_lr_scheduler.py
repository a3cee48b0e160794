"""Schedules: their values by hand, going on from a saved state, and bad input. The oracle tests compare with PyTorch."""

import math

import pytest
from optimizer_table import parameter

import kobai
from kobai import optim
from kobai.optim import lr_scheduler as s


def sgd(lr=1.0, **options):
    return optim.SGD([parameter([1.0])], lr=lr, **options)


def rates(optimizer, scheduler, n):
    """The first group's rate at each of the first ``n`` epochs."""
    found = []
    for _ in range(n):
        assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


BY_HAND = [
    (lambda o: s.StepLR(o, 2, gamma=0.5), [1, 1, 0.5, 0.5, 0.25]),
    (lambda o: s.MultiStepLR(o, [1, 3, 3], gamma=0.5), [1, 0.5, 0.5, 0.125, 0.125]),
    (lambda o: s.ConstantLR(o, factor=0.5, total_iters=2), [0.5, 0.5, 1, 1]),
    (lambda o: s.LinearLR(o, start_factor=0.25, total_iters=3), [0.25, 0.5, 0.75, 1, 1]),
    (lambda o: s.ExponentialLR(o, gamma=0.5), [1, 0.5, 0.25, 0.125]),
    (lambda o: s.PolynomialLR(o, total_iters=4, power=2), [1, 9 / 16, 4 / 16, 1 / 16, 0, 0]),
    (lambda o: s.LambdaLR(o, lambda epoch: 1 / (1 + epoch)), [1, 1 / 2, 1 / 3, 1 / 4]),
    (lambda o: s.MultiplicativeLR(o, lambda epoch: epoch), [1, 1, 2, 6, 24]),
    (
        lambda o: s.CosineAnnealingLR(o, T_max=4, eta_min=0.2),
        [0.2 + 0.4 * (1 + math.cos(math.pi * t / 4)) for t in range(12)],
    ),
    (
        lambda o: s.CosineAnnealingWarmRestarts(o, T_0=2, T_mult=2),
        [1, 0.5, 1, *((1 + math.cos(math.pi * t / 4)) / 2 for t in (1, 2, 3)), 1],
    ),
    (
        lambda o: s.OneCycleLR(
            o, 1.0, total_steps=11, pct_start=0.5, anneal_strategy="linear", cycle_momentum=False, final_div_factor=1.0
        ),
        [0.04 + 0.96 * t / 4.5 for t in range(5)] + [0.04 + 0.96 * (10 - t) / 5.5 for t in range(5, 11)],
    ),
    (lambda o: s.CyclicLR(o, 0.0, 1.0, step_size_up=2, cycle_momentum=False), [0, 0.5, 1, 0.5, 0, 0.5]),
    (
        lambda o: s.CyclicLR(o, 0.0, 1.0, 2, mode="triangular2", cycle_momentum=False),
        [0, 0.5, 1, 0.5, 0, 0.25, 0.5, 0.25, 0],
    ),
    (
        lambda o: s.SequentialLR(o, [s.ConstantLR(o, 0.5, total_iters=9), s.ExponentialLR(o, 0.5)], milestones=[2]),
        [0.5, 0.5, 1, 0.5, 0.25],
    ),
    (
        lambda o: s.ChainedScheduler([s.ConstantLR(o, 0.5, total_iters=2), s.ExponentialLR(o, 0.5)]),
        [0.5, 0.25, 0.25, 0.125],
    ),
]


@pytest.mark.parametrize(("make", "expected"), BY_HAND)
def test_values_by_hand(make, expected):
    optimizer = sgd()
    assert rates(optimizer, make(optimizer), len(expected)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("make", "expected"), BY_HAND)
def test_goes_on_from_a_file(make, expected, tmp_path):
    def pair():
        optimizer = optim.SGD([{"params": [parameter([1.0])]}, {"params": [parameter([1.0])], "lr": 0.3}], lr=1.0)
        return optimizer, make(optimizer)

    optimizer, scheduler = pair()
    rates(optimizer, scheduler, 3)
    kobai.save({"o": optimizer.state_dict(), "s": scheduler.state_dict()}, tmp_path / "both")
    saved = kobai.load(tmp_path / "both")
    other, resumed = pair()
    other.load_state_dict(saved["o"])
    resumed.load_state_dict(saved["s"])
    n = len(expected) - 3
    assert rates(other, resumed, n) == rates(optimizer, scheduler, n)
    assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in optimizer.param_groups]


def test_lambdas_of_groups_and_callable_objects():
    class Scale:
        def __init__(self, factor):
            self.factor = factor

        def __call__(self, epoch):
            return self.factor

    optimizer = optim.SGD([{"params": [parameter([1.0])]}, {"params": [parameter([1.0])]}], lr=1.0)
    scheduler = s.LambdaLR(optimizer, [Scale(0.5), lambda epoch: 0.25])
    assert scheduler.get_last_lr() == [0.5, 0.25]
    saved = scheduler.state_dict()
    assert saved["lr_lambdas"] == [{"factor": 0.5}, None]
    other = s.LambdaLR(optimizer, [Scale(9.0), lambda epoch: 0.25])
    other.load_state_dict(saved)
    assert other.lr_lambdas[0].factor == 0.5
    with pytest.raises(ValueError, match="one lr_lambda for each of 2"):
        s.LambdaLR(optimizer, [Scale(1.0)])


def test_a_scale_function_of_ones_own():
    optimizer = sgd()
    scheduler = s.CyclicLR(
        optimizer, 0.0, 1.0, 2, scale_fn=lambda step: 2.0, scale_mode="iterations", cycle_momentum=False
    )
    assert rates(optimizer, scheduler, 4) == [0, 1, 2, 1]
    assert scheduler.state_dict()["_scale_fn_custom"] is None
    scheduler.load_state_dict(scheduler.state_dict())
    assert scheduler.scale_fn(1) == 2.0


@pytest.mark.parametrize(("name", "key"), [("SGD", "momentum"), ("Adam", "betas")])
def test_momentum_moves_against_the_rate(name, key):
    optimizer = getattr(optim, name)([parameter([1.0])], lr=1.0, **({"momentum": 0.9} if name == "SGD" else {}))
    scheduler = s.OneCycleLR(optimizer, 1.0, total_steps=10, pct_start=0.5)
    momenta = []
    for _ in range(9):
        value = optimizer.param_groups[0][key]
        momenta.append(value[0] if key == "betas" else value)
        optimizer.step()
        scheduler.step()
    assert momenta[0] == 0.95
    assert momenta[4] == pytest.approx(0.85)
    assert momenta == sorted(momenta[:5], reverse=True) + sorted(momenta[5:])


def test_plateau():
    optimizer = sgd()
    scheduler = s.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=2, min_lr=0.2)
    seen = []
    for loss in [3, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1]:
        scheduler.step(kobai.tensor(float(loss)))
        seen.append(scheduler.get_last_lr()[0])
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.2]
    assert scheduler.best == 1
    rising = s.ReduceLROnPlateau(optimizer, mode="max", threshold_mode="abs", threshold=0.5, patience=0, factor=0.1)
    rising.step(1.0)
    rising.step(1.4)  # not enough of an improvement
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)


def test_plateau_with_a_group_added_later():
    optimizer = sgd()
    one_bound = s.ReduceLROnPlateau(optimizer, patience=0)
    listed = s.ReduceLROnPlateau(optimizer, patience=0, min_lr=[0.1])
    optimizer.add_param_group({"params": [parameter([1.0])]})
    one_bound.step(1.0)
    one_bound.step(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]
    listed.step(1.0)
    with pytest.raises(RuntimeError, match="for 2 parameter groups, got 1"):
        listed.step(1.0)


def test_stepping_before_the_optimizer_warns():
    scheduler = s.StepLR(sgd(), 1)
    with pytest.warns(UserWarning, match=r"StepLR: step\(\) was called before optimizer.step\(\)"):
        scheduler.step()


def test_a_given_epoch_takes_the_closed_form_and_warns():
    optimizer = sgd()
    for make, expected in [
        (lambda o: s.StepLR(o, 2, gamma=0.5), 0.125),
        (lambda o: s.MultiStepLR(o, [1, 3], gamma=0.5), 0.25),
        (lambda o: s.ConstantLR(o, 0.5, 9), 0.5),
        (lambda o: s.LinearLR(o, 0.2, total_iters=8), 0.8),
        (lambda o: s.ExponentialLR(o, 0.5), 0.5**6),
        (lambda o: s.PolynomialLR(o, 8), 0.25),
        (lambda o: s.CosineAnnealingLR(o, 6), 0.0),
    ]:
        optimizer = sgd()
        scheduler = make(optimizer)
        optimizer.step()
        with pytest.warns(UserWarning, match="epoch is deprecated"):
            scheduler.step(6)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)
    optimizer = sgd()
    plateau = s.ReduceLROnPlateau(optimizer)
    with pytest.warns(UserWarning, match="epoch is deprecated"):
        plateau.step(1.0, epoch=5)
    assert plateau.last_epoch == 5
    warm = s.CosineAnnealingWarmRestarts(sgd(), T_0=4)
    warm.step(1.0)  # here an epoch is no relic: fractions of it anneal within an epoch
    warm.step(2.0)
    assert warm.get_last_lr() == [0.5]


def test_saved_callable_scale_function():
    class Scale:
        height = 1.0

        def __call__(self, cycle):
            return self.height

    def make(height):
        scale = Scale()
        scale.height = height
        return s.CyclicLR(sgd(), 0.0, 1.0, 2, scale_fn=scale, cycle_momentum=False)

    saved, other = make(0.5), make(1.0)
    other.load_state_dict(saved.state_dict())
    assert other.scale_fn(1) == 0.5


def test_restarts_go_to_a_given_epoch():
    scheduler = s.CosineAnnealingWarmRestarts(sgd(), T_0=2, T_mult=2)
    for epoch, expected in [(1, 0.5), (2, 1.0), (4, 0.5), (6, 1.0), (10, 0.5)]:
        scheduler.step(epoch)
        assert scheduler.get_last_lr()[0] == pytest.approx(expected)


def test_three_phases():
    optimizer = sgd(momentum=0.9)
    scheduler = s.OneCycleLR(optimizer, 1.0, total_steps=11, pct_start=0.3, three_phase=True, anneal_strategy="linear")
    seen = rates(optimizer, scheduler, 11)
    assert max(seen) == pytest.approx(1, abs=0.2)
    assert seen[5] == pytest.approx(0.04, abs=0.02)
    assert seen[10] == pytest.approx(0.04 / 1e4)


def test_exponential_range():
    optimizer = sgd()
    scheduler = s.CyclicLR(optimizer, 0.0, 1.0, 1, mode="exp_range", gamma=0.5, cycle_momentum=False)
    assert rates(optimizer, scheduler, 4) == [0, 0.5, 0, 0.125]


def test_resuming_by_last_epoch():
    optimizer = sgd()
    scheduler = s.ExponentialLR(optimizer, 0.5)
    rates(optimizer, scheduler, 3)
    again = s.ExponentialLR(optimizer, 0.5, last_epoch=scheduler.last_epoch - 1)
    assert again.last_epoch == scheduler.last_epoch
    assert rates(optimizer, again, 2) == [0.125, 0.0625]
    with pytest.raises(KeyError, match="group 0 has no 'initial_lr'"):
        s.StepLR(sgd(), 1, last_epoch=3)


BAD = [
    (lambda: s.StepLR("sgd", 1), TypeError, "StepLR: expected an Optimizer, got str"),
    (lambda: s.StepLR(sgd(), 0), ValueError, "step_size >= 1, got 0"),
    (lambda: s.ConstantLR(sgd(), 2.0), ValueError, r"factor in \[0, 1\], got 2.0"),
    (lambda: s.LinearLR(sgd(), 0.0), ValueError, r"start_factor in \(0, 1\], got 0.0"),
    (lambda: s.LinearLR(sgd(), 1.0, 2.0), ValueError, r"end_factor in \[0, 1\], got 2.0"),
    (lambda: s.PolynomialLR(sgd(), 0), ValueError, "total_iters >= 1, got 0"),
    (lambda: s.CosineAnnealingLR(sgd(), 0), ValueError, "T_max > 0, got 0"),
    (lambda: s.CosineAnnealingWarmRestarts(sgd(), 0), ValueError, "T_0 as an int >= 1, got 0"),
    (lambda: s.CosineAnnealingWarmRestarts(sgd(), 1, 1.5), ValueError, "T_mult as an int >= 1, got 1.5"),
    (lambda: s.CosineAnnealingWarmRestarts(sgd(), 1).step(-1), ValueError, "epoch >= 0, got -1"),
    (lambda: s.LambdaLR(sgd(), 0.5), TypeError, "LambdaLR: expected a function, got float"),
    (lambda: s.OneCycleLR(sgd(), 1.0), ValueError, "expected total_steps, or epochs and steps_per_epoch"),
    (lambda: s.OneCycleLR(sgd(), 1.0, epochs=0, steps_per_epoch=1), ValueError, "epochs as an int >= 1, got 0"),
    (lambda: s.OneCycleLR(sgd(), 1.0, total_steps=0), ValueError, "total_steps as an int >= 1, got 0"),
    (lambda: s.OneCycleLR(sgd(), 1.0, total_steps=9, pct_start=2.0), ValueError, r"pct_start in \[0, 1\]"),
    (lambda: s.OneCycleLR(sgd(), 1.0, total_steps=9, anneal_strategy="cosine"), ValueError, "Did you mean 'cos'"),
    (lambda: s.OneCycleLR(sgd(), [1.0, 2.0], total_steps=9), ValueError, "one max_lr for each of 1 groups, got 2"),
    (
        lambda: s.OneCycleLR(optim.Adagrad([parameter([1.0])]), 1.0, total_steps=9),
        ValueError,
        "needs an optimizer with momentum or betas, got Adagrad",
    ),
    (lambda: s.CyclicLR(sgd(), 0.0, 1.0, mode="triangle"), ValueError, "Did you mean 'triangular'"),
    (lambda: s.CyclicLR(sgd(), 0.0, 1.0, scale_mode="cycles"), ValueError, "Did you mean 'cycle'"),
    (lambda: s.SequentialLR(sgd(), [], []), ValueError, "at least one scheduler"),
    (lambda: s.ChainedScheduler([]), ValueError, "at least one scheduler"),
    (lambda: s.ChainedScheduler([s.StepLR(sgd(), 1), s.StepLR(sgd(), 1)]), ValueError, "another one's at index 1"),
    (lambda: s.ChainedScheduler([s.ReduceLROnPlateau(sgd())]), ValueError, "needs a metric at each step"),
    (lambda: s.ChainedScheduler([1], sgd()), TypeError, "expected schedulers, got int at index 0"),
    (lambda: s.ChainedScheduler([s.StepLR(sgd(), 1)]).step(1), TypeError, "takes no epoch"),
    (lambda: s.ReduceLROnPlateau(sgd(), factor=1.0), ValueError, "factor < 1, got 1.0"),
    (lambda: s.ReduceLROnPlateau(sgd(), mode="mini"), ValueError, "Did you mean 'min'"),
    (lambda: s.ReduceLROnPlateau(sgd(), threshold_mode="relative"), ValueError, "unknown threshold_mode 'relative'"),
    (lambda: s.ReduceLROnPlateau(3), TypeError, "expected an Optimizer, got int"),
    (lambda: s.LRScheduler(sgd()), NotImplementedError, "define get_lr"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_sequential_of_the_wrong_make():
    optimizer = sgd()
    with pytest.raises(ValueError, match="expected 0 milestones for 1 schedulers, got 1"):
        s.SequentialLR(optimizer, [s.StepLR(optimizer, 1)], [3])
    with pytest.raises(TypeError, match="takes no epoch"):
        s.SequentialLR(optimizer, [s.StepLR(optimizer, 1)], []).step(3)


def test_onecycle_ends():
    optimizer = sgd(momentum=0.9)
    scheduler = s.OneCycleLR(optimizer, 1.0, epochs=1, steps_per_epoch=3)
    rates(optimizer, scheduler, 3)
    with pytest.raises(ValueError, match="at most total_steps=3 steps, got step 4"):
        scheduler.step()
