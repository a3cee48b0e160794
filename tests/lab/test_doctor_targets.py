"""What the doctor says of data: padding, few pixels, weights, smoothing, leaks, pairs out of step, columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data_examples import RARE, SERIES, T, X, changed, coloured, discs, of, tagged, tensor, waves
from rule_examples import seen, sgd
from small_nets import batch, net

import kobai
from kobai import nn
from kobai.lab import diagnose
from kobai.lab.doctor.diseases import DISEASES
from kobai.lab.doctor.rules import columns, counted, leaks, pairs
from kobai.lab.doctor.rules.data import rare_class
from kobai.lab.doctor.rules.validation import prepared_otherwise
from kobai.nn import functional as F

pytestmark = pytest.mark.thorough

# --- what the loss counts


def series(counted_too: bool) -> Any:
    """A regression of series that are padded by zeros, with a mask in the loss or without."""
    kobai.manual_seed(0)
    there = (
        kobai.arange(16).reshape(1, -1) < kobai.from_numpy(np.random.default_rng(0).integers(2, 6, (80, 1)))
    ).float()
    x = kobai.randn(80, 16, 2) * there.unsqueeze(2)
    t = x.sum(2, keepdim=True)

    def loss_fn(y: Any, t: Any) -> Any:
        mask = kobai.ones_like(t) if counted_too else (t != 0).float()
        return (mask * (y - t) ** 2).sum() / mask.sum()

    return seen(nn.Linear(2, 1), (x, t), loss_fn)


def test_padding_is_what_the_gradient_says() -> None:
    found = counted.padding_counted(series(True))
    assert found is not None
    assert found.cure.name == "leave_out_zeros"
    assert counted.padding_counted(series(False)) is None
    found = counted.padding_counted(tagged(-100))
    assert found is not None
    assert found.cure.code == "loss_fn = lambda y, t: F.cross_entropy(y.reshape(-1, 5), t.reshape(-1), ignore_index=0)"
    assert "ignore_index" in found.cause


def test_padding_of_the_words_that_follow() -> None:
    """The targets' padding begins a place before that of the inputs."""
    kobai.manual_seed(0)
    length = kobai.from_numpy(np.random.default_rng(0).integers(3, 6, (90, 1)))
    words = kobai.where(kobai.arange(17).reshape(1, -1) < length, 1 + kobai.randint(9, (90, 17)), 0)
    loss_fn = lambda y, t: F.cross_entropy(y.reshape(-1, 10), t.reshape(-1))  # noqa: E731
    model = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 10))
    assert counted.padding_counted(seen(model, (words[:, :-1], words[:, 1:]), loss_fn)) is not None
    assert (
        counted.padding_counted(seen(model, ((words[:, :-1] + 1) % 10, (words[:, 1:] + 1) % 10), loss_fn)) is not None
    )
    whole = 1 + kobai.randint(8, (90, 17))
    assert counted.padding_counted(seen(model, (whole[:, :-1], whole[:, 1:]), loss_fn)) is None


def test_many_zeros_among_the_targets_are_no_padding() -> None:
    kobai.manual_seed(0)
    x = kobai.randn(80, 16, 3)
    t = (x[..., 0] > 1.2).long()  # rare, but anywhere
    loss_fn = lambda y, t: F.cross_entropy(y.reshape(-1, 2), t.reshape(-1))  # noqa: E731
    assert counted.padding_counted(seen(nn.Linear(3, 2), (x, t), loss_fn)) is None


@pytest.mark.parametrize("two", [True, False])
def test_few_pixels_and_the_cure_of_them(two: bool) -> None:
    kobai.manual_seed(0)
    x, t = discs(96, 1.3, 1.5)
    if two:
        target, loss_fn = tensor(t)[:, None], F.binary_cross_entropy_with_logits
    else:
        target, loss_fn = kobai.from_numpy(t.astype(np.int64)), F.cross_entropy
    model = nn.Conv2d(1, 1 if two else 2, 3, padding=1)
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.3)
    found = diagnose(model, (tensor(x), target), loss_fn, optimizer)
    finding = next(f for f in found.findings if f.disease == "one-answer")
    assert finding.tried is not None
    assert finding.tried.helped
    assert finding.severity == "error"


def binary(weight: float, ones: bool = False) -> Any:
    """A yes-or-no question, a tenth of which is yes (or no)."""
    t = ((RARE == 1) ^ ones).float().reshape(-1, 1)
    loss = nn.BCEWithLogitsLoss(pos_weight=kobai.tensor(weight))
    return of(X, t, 1, loss_fn=loss)


def test_weights_the_wrong_way_round_whoever_sets_them() -> None:
    for ill in (binary(0.1), binary(9.0, ones=True)):
        found = counted.weights_inverted(ill)
        assert found is not None
        assert found.evidence[0].value == pytest.approx(9.5, rel=0.06)
        assert found.cure.name == "weigh_ones"
    for well in (binary(9.0), binary(1.0), binary(0.1, ones=True)):
        assert counted.weights_inverted(well) is None

    def probabilities(y: Any, t: Any) -> Any:
        return F.binary_cross_entropy(y, t, weight=0.2 + 0.8 * (1 - t))

    shares = nn.Sequential(nn.Linear(20, 1), nn.Sigmoid())
    t = RARE.float().reshape(-1, 1)
    assert counted.weights_inverted(seen(shares, (X, t), probabilities)) is not None
    for well in (
        F.binary_cross_entropy,
        F.binary_cross_entropy_with_logits,
        F.mse_loss,
    ):  # a sigmoid too many is no weight
        assert counted.weights_inverted(seen(shares, (X, t), well)) is None

    def by_hand(y: Any, t: Any) -> Any:
        each = F.cross_entropy(y, t, reduction="none")
        return (each * (1 + 4 * (t == 0).float())).mean()

    assert counted.weights_inverted(of(X, RARE, 2, loss_fn=by_hand)) is not None


def test_a_rare_class_is_none_where_the_loss_makes_up_for_it() -> None:
    t = (kobai.arange(300) % 20 == 0).long()
    plain, balanced = (
        rare_class(of(X, t, 2, loss_fn=lambda y, t, w=w: F.cross_entropy(y, t, weight=kobai.tensor([1.0, w]))))
        for w in (1.0, 19.0)
    )
    assert balanced is None
    assert plain is not None
    assert plain.cure.name == "weigh_classes"


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.3, 0.7, 0.9])
def test_how_much_a_loss_smooths_shows_in_its_gradient(amount: float) -> None:
    def by_hand(y: Any, t: Any) -> Any:
        soft = (1 - amount) * F.one_hot(t, 4).float() + amount / 4
        return -(soft * y.log_softmax(1)).sum(1).mean()

    found = counted.aims_low(of(X, loss_fn=by_hand))
    assert (found is not None) == (amount > 0.5)
    if found is not None:
        assert found.evidence[0].value == pytest.approx(1 - amount, abs=0.051)
        assert found.cure.name == "smooth_not"


# --- what a net should not be shown


def regression(x: Any, t: Any) -> Any:
    return seen(nn.Linear(x.shape[1], 1), (x, t.reshape(-1, 1)), F.mse_loss)


NUMBER = X[:, 0] + X[:, 1] * X[:, 2] + 0.1 * kobai.randn(300)


@pytest.mark.parametrize(
    ("column", "leaks_it"),
    [
        (3 * NUMBER + 7, True),
        (NUMBER.exp(), True),
        (NUMBER + 0.02 * kobai.randn(300), True),
        (0.5 * NUMBER - X[:, 4], True),
        (NUMBER + kobai.randn(300), False),
        (X[:, 0] ** 2, False),
    ],
)
def test_a_column_that_is_a_function_of_the_target(column: Any, leaks_it: bool) -> None:
    found = leaks.target_in_inputs(regression(kobai.cat([X[:, :8], column.reshape(-1, 1)], 1), NUMBER))
    assert (found is not None) == leaks_it
    if found is not None:
        assert "8" in found.cause
        assert "leak" in found.cause


def test_a_column_that_is_the_whole_task_is_no_leak() -> None:
    assert leaks.target_in_inputs(regression(X, X[:, 3])) is None
    assert leaks.target_in_inputs(regression(X, X[:, 3] - 2 * X[:, 5])) is None


def test_a_label_in_a_column_and_a_label_that_is_easy() -> None:
    noisy = (T == 1).float() + 3 * (T == 2).float() + 5 * (T == 3).float() + 0.05 * kobai.randn(300)
    assert leaks.target_in_inputs(of(kobai.cat([X, noisy.reshape(-1, 1)], 1))) is not None
    assert leaks.target_in_inputs(of(X, (X[:, 2] > 0).long(), 2)) is None  # a threshold is no gap
    easy = X.clone()
    easy[:, :3] += 20 * T.float().reshape(-1, 1)  # several columns tell it
    assert leaks.target_in_inputs(of(easy)) is None


def cut(series: Any, order: Any, own_scale: bool = False) -> Any:
    windows = np.stack([series[i : i + 21] for i in range(len(series) - 21)])
    if own_scale:
        centre = windows.mean(1, keepdims=True)
        windows = (windows - centre) / windows.std(1, keepdims=True)
    first, last = windows[order[:400]], windows[order[420:500]]
    x, t = (tensor(first[:, :20]), tensor(first[:, 20])), (tensor(last[:, :20]), tensor(last[:, 20]))
    view = [x[0], x[1].reshape(len(first), -1)], (t[0], t[1].reshape(len(last), -1))
    return seen(nn.Linear(20, x[1].ndim), tuple(view[0]), F.mse_loss, validation=[view[1]])


@pytest.mark.parametrize("kind", ["one series", "windows scaled each by itself", "three series"])
def test_windows_that_were_shuffled_before_the_split(kind: str) -> None:
    wave = np.sin(np.arange(900) / 7) + 0.2 * np.random.default_rng(0).normal(size=900)
    data = np.stack([SERIES, wave, SERIES + wave], 1)[:, : 3 if kind == "three series" else 1]
    data = data[:, :1] if kind == "one series" else data
    if kind == "three series":
        windows = np.lib.stride_tricks.sliding_window_view(data, 12, 0).transpose(0, 2, 1)

        def view(order: Any) -> Any:
            model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
            parts = [(tensor(windows[o]), tensor(windows[o][:, -1, :1])) for o in (order[:400], order[420:500])]
            return seen(model, parts[0], F.mse_loss, validation=[parts[1]])
    else:

        def view(order: Any) -> Any:
            return cut(data[:, 0], order, kind != "one series")

    found = leaks.windows_overlap(view(np.random.default_rng(1).permutation(800)))
    assert found is not None
    assert found.severity == "error"
    assert leaks.windows_overlap(view(np.arange(800))) is None
    assert leaks.windows_overlap(view(np.r_[np.arange(400), np.arange(380, 500)])) is None  # they touch


def test_a_series_that_drifts_is_not_prepared_otherwise() -> None:
    drifting = np.cumsum(np.random.default_rng(5).normal(0.3, 1, 900)) / 40
    order = np.arange(800)
    assert prepared_otherwise(cut(drifting, order)) is None
    scaled = np.where(np.arange(900) < 420, drifting, 30 * drifting)
    assert prepared_otherwise(cut(scaled, np.r_[np.arange(400), np.arange(400, 420), np.arange(430, 520)])) is not None


def test_copies_with_small_changes_on_both_sides() -> None:
    x, t = kobai.data.digits().train.tensors
    for copies, ill in ((x[:200].flip(-1), True), (x[:200] * 0.9 + 0.03, True), (x[600:800], False)):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        view = seen(model, (x[:600], t[:600]), validation=[(copies, t[:200])])
        assert (leaks.near_duplicates(view) is not None) == ill


# --- pairs


def turned(x: Any, t: Any, how: Any) -> Any:
    t = np.stack([how(i, mask) for i, mask in enumerate(t)])
    return seen(
        nn.Conv2d(x.shape[1], 2, 3, padding=1), (tensor(x), kobai.from_numpy(t.astype(np.int64))), F.cross_entropy
    )


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda i, mask: mask, None),
        (lambda i, mask: np.rot90(mask, i % 4), "a draw of its own"),
        (lambda i, mask: mask.T, "they are all turned by 90° and flipped"),
        (lambda i, mask: mask[::-1], "they are all turned by 180° and flipped"),
    ],
)
def test_masks_and_images_that_were_turned_apart(how: Any, says: str | None) -> None:
    x, t = discs(80, 3.0)
    found = pairs.masks_turned(turned(x, t, how))
    assert (None if found is None else says in found.cause) == (None if says is None else True)
    brightness = np.abs(x) * np.random.default_rng(0).uniform(0.5, 2, (80, 1, 1, 1))
    noise = np.random.default_rng(0).normal(size=x.shape)
    assert pairs.masks_turned(turned(noise, t, how)) is None  # where images say nothing, nothing can be told
    assert says is not None or pairs.masks_turned(turned(brightness, t, how)) is None


@pytest.mark.parametrize(("step", "reverse"), [(1, False), (-2, False), (0, True)])
def test_lists_out_of_step(step: int, reverse: bool) -> None:
    for x, t, classes in ((X, T, 4), (X[:, :8], NUMBER.reshape(-1, 1), 1)):
        moved = t.flip(0) if reverse else t[kobai.arange(300).add(step).remainder(300)]
        loss_fn = F.cross_entropy if classes > 1 else F.mse_loss
        found = pairs.out_of_step(of(x, moved, classes, loss_fn=loss_fn))
        assert found is not None
        names = {"x": x, "t": moved}
        exec(found.cure.code, names)
        assert len(names["x"]) == len(names["t"])
        kept = 0 if step <= 0 else step  # the rows of x that are left
        rows = slice(kept, kept + len(names["x"])) if not reverse else slice(None)
        assert kobai.equal(names["t"], t[rows])
        assert pairs.out_of_step(of(x, t, classes, loss_fn=loss_fn)) is None


# --- columns


@pytest.mark.parametrize(
    ("x", "disease"),
    [
        (lambda: changed(slice(None, None, 11), 2, -999.0), "missing-as-number"),
        (lambda: changed(slice(None, None, 7), 5, lambda part: 0 * part + 9.99), "missing-as-number"),
        (lambda: changed(slice(None, None, 20), 2, lambda part: 254 + 25.4 * part), "other-units"),
        (lambda: X * kobai.where(kobai.arange(300) % 3 == 0, 255.0, 1.0).reshape(-1, 1), "samples-of-two-scales"),
        (lambda: X.exp(), None),
        (lambda: (X > 1.5).float(), None),
        (lambda: (X > 1.5).float() * X.exp(), None),
        (lambda: X.clamp(-1.5, 1.5), None),
    ],
)
def test_columns_and_rows_that_stand_apart(x: Any, disease: str | None) -> None:
    view = of(x())
    rules = (columns.missing_as_number, columns.other_units, columns.two_scales)
    found = [finding for rule in rules if (finding := rule(view)) is not None]
    assert [finding.disease for finding in found] == ([] if disease is None else [disease])


def test_what_stands_for_a_missing_value_is_filled_in_and_helps() -> None:
    kobai.manual_seed(0)
    x = changed(slice(None, None, 11), 0, -999.0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    found = diagnose(model, (x, T), optimizer=kobai.optim.SGD(model.parameters(), lr=0.1))
    finding = found.findings[0]
    assert finding.disease == "missing-as-number"
    assert finding.tried is not None
    assert finding.tried.helped
    names = {"x": x, "kobai": kobai}
    exec(finding.cure.code, names)
    assert float(names["x"].min().item()) > -10


@pytest.mark.parametrize("ill", [True, False])
def test_a_loader_in_order_of_class_whose_first_batch_looks_well(ill: bool) -> None:
    order = T.argsort() if ill else kobai.arange(300)
    x, t = X[order], T[order]
    parts = [(x[i : i + 30], t[i : i + 30]) for i in range(0, 300, 30)]
    found = diagnose(nn.Linear(20, 4), (X[:32], T[:32]), data=parts, quick=True)
    assert ("unshuffled" in [finding.disease for finding in found.findings]) == ill


def test_labels_from_one_where_outputs_are_left_over() -> None:
    assert columns.labels_from_one(of(X, T + 1, 5)) is not None
    assert columns.labels_from_one(of(X, T, 5)) is None
    assert columns.labels_from_one(of(X, (T + 1) % 4 + (T == 2).long(), 6)) is None  # others are missing too


def test_images_whose_axes_were_exchanged() -> None:
    colours = waves()
    found = columns.axes_in_another_order(coloured(colours.reshape(64, 3, 16, 16)))
    assert found is not None
    assert found.cure.name == "channels_first"
    kobai.manual_seed(0)
    last = nn.Sequential(nn.Conv2d(16, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(56, 4))
    assert columns.axes_in_another_order(seen(last, (tensor(colours), T[:64]))) is not None
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    assert columns.axes_in_another_order(seen(flat, (tensor(colours), T[:64]))) is None  # no axes to it


def test_what_is_idle_is_a_note() -> None:
    x = X.clone()
    x[:, 4], x[:, 9] = x[:, 7], 3.0
    found = diagnose(nn.Linear(20, 4), (x, T), quick=True)
    (note,) = (finding for finding in found.findings if finding.disease == "idle-columns")
    assert note.severity == "note"
    assert "idle = [9, 7]" in note.cure.code


def test_findings_name_what_they_follow_from() -> None:
    model = nn.Linear(20, 4)
    x = changed(slice(None, None, 11), 0, -9999.0)
    found = diagnose(model, (x, T), optimizer=sgd(0.01)(model.parameters()), quick=True)
    follows = {finding.disease: finding.follows for finding in found.findings}
    assert follows["input-scale"] == "missing-as-number"
    assert "rare-class" in DISEASES["labels-unrelated"].follows


def told(model: Any, x: Any, t: Any, loss_fn: Any) -> Any:
    return next(
        (f for f in diagnose(model, (x, t), loss_fn, quick=True).findings if f.disease == "class-left-out"), None
    )


def test_a_hinge_that_is_given_0_and_1_has_no_slope_at_the_zeros() -> None:
    x, t = batch(200)
    two = (t > 1).float()[:, None]

    def hinge(y: Any, t: Any) -> Any:
        return F.relu(1 - t * y).mean()

    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 1))
    found = told(model, x, two, hinge)
    assert found.severity == "error"
    assert "2 * t" in found.cure.code
    assert told(model, x, 2 * two - 1, hinge) is None
    assert told(model, x, two, F.binary_cross_entropy_with_logits) is None


def test_a_class_of_weight_0_is_left_out_and_a_light_one_is_not() -> None:
    x, t = batch(200)
    weight = kobai.tensor([1.0, 1.0, 0.0, 1.0])
    assert "of 50" in str(told(net(depth=2), x, kobai.arange(200) % 4, nn.CrossEntropyLoss(weight)))
    weight[2] = 0.01
    assert told(net(depth=2), x, t, nn.CrossEntropyLoss(weight)) is None


@pytest.mark.parametrize("left", ["padding", "unmasked", "a class"])
def test_positions_that_are_left_out_are_none(left: str) -> None:
    """Padding at the ends, and words that are not asked for, have a label that is ignored; a class among others is missed."""
    kobai.manual_seed(0)
    words, place = kobai.randint(1, 10, (40, 12)), kobai.arange(12)
    lengths = kobai.randint(4, 13, (40, 1))
    t = {
        "padding": kobai.where(place < lengths, words, 0),
        "unmasked": kobai.where(kobai.rand(40, 12) < 0.15, words, 0),
        "a class": words % 5,
    }[left]
    model = nn.Sequential(nn.Embedding(10, 16), nn.Linear(16, 10))

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y.transpose(1, 2), t, ignore_index=0)

    found = told(model, words, t, loss_fn)
    assert (found is None) == (left != "a class")
    assert found is None or found.severity == "warning"
