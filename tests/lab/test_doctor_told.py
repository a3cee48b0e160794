"""Cases of the rules of forward passes, kinds, what a net can say and what steers a loss, beside one example each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rule_examples import X, layers, seen, sgd
from rule_examples_told import Folded, Rated, drawn, halves, regressed, tensor
from small_nets import batch, net

import kobai
from kobai import nn
from kobai.lab.doctor.rules.data import rare_class
from kobai.lab.doctor.rules.forward import diagonal_alone, one_module_for_several, written_in_forward
from kobai.lab.doctor.rules.kinds import classes_alike, padding_is_a_word, words_alike
from kobai.lab.doctor.rules.numbers import non_finite
from kobai.lab.doctor.rules.outputs import bounded_scores
from kobai.lab.doctor.rules.sayable import only_a_plane
from kobai.lab.doctor.rules.scales import drowned
from kobai.lab.doctor.rules.settings import forgets
from kobai.lab.doctor.rules.steering import few_steer, target_jumps
from kobai.nn import functional as F


class Words(nn.Module):
    """The mean of words' vectors, of a table larger than what a batch has."""

    def __init__(self) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.table, self.head = nn.Embedding(90, 8), nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        return self.head(self.table(x).mean(1))


@pytest.mark.parametrize(("eps", "ill"), [(0.0, True), (1e-8, False)])
def test_a_step_of_nought_by_nought_is_found_though_the_loss_is_finite(eps: float, ill: bool) -> None:
    words = kobai.arange(64 * 3).reshape(64, 3) % 40
    view = seen(Words(), (words, kobai.arange(64) % 4), optimizer=lambda p: kobai.optim.Adam(p, lr=1e-2, eps=eps))
    assert np.isfinite(view.losses).all()
    found = non_finite(view)
    assert (found is not None) == ill
    if found is not None:
        assert found.where == ("table",)
        assert "eps=0" in found.cause
        assert "eps" in found.cure.code


def test_a_run_that_diverges_is_none_of_nought_by_nought() -> None:
    assert non_finite(seen(optimizer=sgd(1e6))) is None


class Penalised(nn.Module):
    """Scores, and a penalty on the size of the hidden activations."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.body, self.head, self.weight = nn.Sequential(nn.Linear(20, 30), nn.Tanh()), nn.Linear(30, 4), weight

    def forward(self, x: Any) -> Any:
        h = self.body(x)
        return self.head(h), self.weight * ((h**2).sum() + (self.head.weight**2).sum())


@pytest.mark.parametrize(("weight", "ill"), [(0.1, True), (1e-5, False)])
def test_a_penalty_that_leaves_scores_nothing_to_say_drowns_them(weight: float, ill: bool) -> None:
    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y[0], t) + y[1]

    view = seen(Penalised(weight), batch(256), loss_fn, lambda p: kobai.optim.Adam(p, lr=1e-2), trials=True)
    found = drowned(view)
    assert (found is not None) == ill


def test_a_matrix_that_is_diagonal_by_itself_misses_nothing() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix, self.net = nn.Parameter(kobai.eye(20)), net(depth=2)

        def forward(self, x: Any) -> Any:
            return self.net(x @ (self.matrix * kobai.eye(20)))

    assert diagonal_alone(seen(Scaled(), optimizer=sgd(0.1))) is None


def test_a_last_layer_of_zeros_says_nothing_of_words() -> None:
    model = Folded(1)
    nn.init.zeros_(next(m for m in model.head.modules() if isinstance(m, nn.Linear) and m.out_features == 4).weight)
    words = kobai.from_numpy(drawn().integers(0, 40, (64, 5)))
    assert words_alike(seen(model, (words, words[:, 0] % 4))) is None


@pytest.mark.parametrize("end", [0, -1])
def test_padding_at_either_end_is_padding(end: int) -> None:
    words = drawn().integers(1, 9, (64, 7))
    words[::2, end] = 0
    assert padding_is_a_word(seen(Rated(), (kobai.from_numpy(words), kobai.arange(64) % 4))) is None


def test_a_net_with_a_hidden_layer_is_no_plane() -> None:
    view = halves(True)
    kobai.manual_seed(0)
    bent = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    assert only_a_plane(seen(bent, (view.inputs[0], view.target))) is None


def test_a_loss_without_slope_for_most_samples_has_no_few_that_steer() -> None:
    t = tensor(drawn().normal(size=(64, 1)))
    loss = lambda y, t: F.relu((y - t).abs() - 0.5).mean()  # noqa: E731
    assert few_steer(seen(nn.Linear(20, 1), (X, t), loss)) is None


def test_an_angle_with_a_loss_that_goes_round_does_not_jump() -> None:
    rng = drawn()
    turn = rng.uniform(-np.pi, np.pi, 400)
    x = np.stack([np.cos(turn), np.sin(turn)], 1) + 0.02 * rng.normal(size=(400, 2))
    assert target_jumps(regressed(x, turn)) is not None
    assert target_jumps(regressed(x, turn, loss_fn=lambda y, t: (1 - (y - t).cos()).mean())) is None


def test_noise_that_grows_is_no_circle() -> None:
    rng = drawn()
    x = rng.normal(size=(400, 2))
    assert target_jumps(regressed(x, x[:, 0] ** 2 * rng.normal(size=400))) is None


@pytest.mark.parametrize(
    "made",
    [
        sgd(0.01, momentum=0.9, nesterov=True),
        sgd(0.01, momentum=0.9, dampening=0.5),
        sgd(0.01),
        lambda p: kobai.optim.RMSprop(p, lr=1e-3, momentum=0.5),
        lambda p: kobai.optim.Rprop(p, lr=1e-3),
    ],
)
def test_optimizers_that_keep_what_they_have_seen_forget_nothing(made: Any) -> None:
    assert forgets(seen(optimizer=made)) is None


def masked(share: float, weight: float = 1.0) -> Any:
    """Images of which a share of the pixels, which are bright, is to be told."""
    rng = drawn()
    t = rng.random((16, 8, 8)) < share
    model = nn.Conv2d(1, 2, 3, padding=1)
    data = tensor(t[:, None] + 0.3 * rng.normal(size=(16, 1, 8, 8))), kobai.from_numpy(t.astype(np.int64))
    return seen(model, data, lambda y, t: F.cross_entropy(y, t, weight=kobai.tensor([1.0, weight])))


@pytest.mark.parametrize(("share", "weight", "ill"), [(0.02, 1.0, True), (0.2, 1.0, False), (0.02, 30.0, False)])
def test_few_places_of_an_image_are_a_rare_class_unless_they_weigh_more(share: float, weight: float, ill: bool) -> None:
    found = rare_class(masked(share, weight))
    assert (found is not None) == ill
    if found is not None:
        assert "places" in found.cause


def test_classes_that_are_hard_but_not_the_same_are_none_that_look_the_same() -> None:
    rng = drawn()
    kind = rng.integers(0, 3, 600)
    centres = np.array([[4.0, 0.0], [-4.0, 0.4], [-4.0, -0.4]])
    data = tensor(centres[kind] + 0.5 * rng.normal(size=(600, 2))), kobai.from_numpy(kind)
    assert classes_alike(seen(layers(2, 24, 3), data)) is None


class Tied(nn.Module):
    """A body whose weights are trained, and a copy which is to be their moving average; or the other way round."""

    def __init__(self, share: float, leads: bool) -> None:
        super().__init__()
        self.body, self.mean, self.head = nn.Linear(20, 24), nn.Linear(20, 24), nn.Linear(24, 4)
        self.mean.load_state_dict(self.body.state_dict())
        self.mean.requires_grad_(False)
        self.share, self.leads = share, leads

    def forward(self, x: Any) -> Any:
        if self.training:
            pair = (self.mean, self.body) if self.leads else (self.body, self.mean)
            with kobai.no_grad():
                for source, follower in zip(*(layer.parameters() for layer in pair), strict=True):
                    follower.lerp_(source, self.share)
        return self.head(F.relu(self.body(x)))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_weights_that_follow_an_average_lose_their_steps(share: float) -> None:
    found = written_in_forward(seen(Tied(share, leads=True)))
    assert found is not None
    assert found.where == ("body",)
    assert "pull back" in found.cause
    assert written_in_forward(seen(Tied(share, leads=False))) is None


def test_rows_of_length_one_keep_their_steps() -> None:
    """What a projection takes back is one direction of many."""

    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(20, 24), nn.Linear(24, 4)

        def forward(self, x: Any) -> Any:
            with kobai.no_grad():
                self.body.weight /= self.body.weight.norm(dim=1, keepdim=True)
            return self.head(F.relu(self.body(x)))

    assert written_in_forward(seen(Projected())) is None


def test_a_layer_that_is_used_again_on_what_it_gave_is_no_copy() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.head = nn.Linear(20, 24), nn.Linear(24, 4)
            self.steps = nn.ModuleList([nn.Linear(24, 24)] * 3)

        def forward(self, x: Any) -> Any:
            h = self.enter(x)
            for step in self.steps:
                h = h + F.relu(step(h))
            return self.head(h)

    assert one_module_for_several(seen(Deep())) is None


def test_an_end_beside_which_there_is_another_output_bounds_nothing() -> None:
    """Two views of a sample side by side, of which the last layer gives one: the other is an average that does not learn."""

    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kobai.manual_seed(0)
            self.slow, self.body = nn.Linear(20, 24), nn.Linear(20, 24)
            self.slow.requires_grad_(False)

        def forward(self, x: Any) -> Any:
            return F.normalize(kobai.stack([self.body(x), self.slow(x)], 1), dim=-1)

    def contrast(y: Any, t: Any) -> Any:
        return F.cross_entropy(y[:, 0] @ y[:, 1].T / 0.5, kobai.arange(len(y)))

    assert bounded_scores(seen(Views(), batch(96), contrast)) is None


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "NAdam"])
def test_squares_of_the_last_gradient_alone_are_no_mean(kind: str) -> None:
    made = getattr(kobai.optim, kind)
    found = forgets(seen(optimizer=lambda p: made(p, lr=1e-3, betas=(0.1, 0.001))))
    assert found is not None
    assert "1 − β" in found.cause
    assert forgets(seen(optimizer=lambda p: made(p, lr=1e-3, betas=(0.0, 0.9)))) is None
