"""A loss that leaves the finite numbers stops training, and the layer where it began is named."""

import pytest
from small_problem import Problem

import kobai
from kobai import nn
from kobai.train import NonFiniteError, TerminateOnNonFinite, Trainer
from kobai.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own words about overflow


class Poison(nn.Module):
    """x, but NaN from the n-th training batch on: in its output, or in its gradient."""

    def __init__(self, n, what):
        super().__init__()
        self.register_buffer("seen", kobai.zeros(1))
        self.n, self.what = n, what

    def forward(self, x):
        if self.training:
            self.seen += 1
        if not self.training or self.seen.item() < self.n:
            return x
        if self.what == "output":
            return x * float("nan")
        return kobai.sqrt(x * 0.0) + x  # the derivative of sqrt at 0 is infinite, and 0 times that is NaN


def poisoned(problem, n, what, every):
    problem.model[2] = Poison(n, what)
    problem.optimizer = kobai.optim.Adam(problem.model.parameters(), lr=0.01)
    return problem.trainer(TerminateOnNonFinite(every=every))


@pytest.mark.parametrize("every", [1, 4, 100])
@pytest.mark.parametrize(
    ("what", "words"),
    [("output", "the output of layer '2' (Poison) holds NaN"), ("gradient", "'1' (BatchNorm1d) holds NaN")],
)
def test_layer_and_batch_are_named(problem, every, what, words):
    with pytest.raises(NonFiniteError) as stop:
        poisoned(problem, 9, what, every).fit(problem.train, problem.held, epochs=5)
    assert str(stop.value).startswith("epoch 2, batch 3: ")
    assert words in str(stop.value)
    assert "Lower the learning rate (now 0.01)" in str(stop.value)
    assert stop.value.layer == ("2" if what == "output" else "1")


def test_the_epochs_before_remain_in_the_history(problem):
    trainer = poisoned(problem, 9, "output", 1)
    with pytest.raises(NonFiniteError, match="epoch 2, batch 3"):
        trainer.fit(problem.train, problem.held, epochs=5)
    assert [record["epoch"] for record in trainer.history] == [1]


def test_the_trainer_stops_without_being_asked(problem):
    problem.model[2] = Poison(1, "output")
    with pytest.raises(NonFiniteError, match="epoch 1, batch 1"):
        problem.trainer().fit(problem.train, epochs=1)
    other = Problem()
    other.model[2] = Poison(1, "output")
    history = other.trainer(terminate_on_non_finite=False).fit(other.train, epochs=1)
    assert history[0]["loss"] != history[0]["loss"]


def test_too_large_a_learning_rate(problem):
    problem.optimizer = kobai.optim.SGD(problem.model.parameters(), lr=1e38)
    with pytest.raises(NonFiniteError, match=r"epoch \d, batch \d: .*(layer|parameter) '.*Lower the learning rate"):
        problem.trainer().fit(problem.train, epochs=5)


@pytest.mark.parametrize(("value", "word"), [(float("inf"), "infinity"), (float("nan"), "NaN")])
def test_bad_data_are_named_as_such(value, word):
    x = kobai.zeros(8, 2)
    x[5, 1] = value
    model = nn.Linear(2, 2)
    trainer = Trainer(model, kobai.optim.SGD(model.parameters()))
    with pytest.raises(NonFiniteError, match=f"epoch 1, batch 2: the data hold {word}"):
        trainer.fit(DataLoader(TensorDataset(x, kobai.zeros(8).long()), batch_size=4), epochs=1)


def test_bad_loss_function(problem):
    trainer = Trainer(problem.model, problem.optimizer, lambda y, t: y.sum() * float("inf"))
    with pytest.raises(NonFiniteError, match="the loss function returns"):
        trainer.fit(problem.train, epochs=1)


def test_batches_that_never_come_again(problem):
    class Fickle:
        opened = 0

        def __iter__(self):
            self.opened += 1
            value = float("nan") if self.opened == 1 else 1.0
            return iter([(kobai.full((4, 2), value), kobai.zeros(4).long())])

    with pytest.raises(NonFiniteError, match="not reproducible"):
        problem.trainer().fit(Fickle(), epochs=1)


def test_every_must_be_positive():
    with pytest.raises(ValueError, match="every as an integer >= 1"):
        TerminateOnNonFinite(every=0)


@pytest.mark.filterwarnings("ignore:std")
def test_a_last_batch_of_one_sample_is_pointed_out():
    """A deviation over one sample is no number; of the batches before there is nothing to say."""
    x, t = kobai.randn(65, 4), kobai.randn(65, 1)
    model = nn.Linear(4, 1)

    def standardised(y, t):
        return ((y - (t - t.mean()) / t.std()) ** 2).mean()

    trainer = Trainer(
        model, kobai.optim.SGD(model.parameters(), lr=0.01), standardised, callbacks=[TerminateOnNonFinite()]
    )
    with pytest.raises(NonFiniteError, match=r"epoch 1, batch 3: .*The batch holds one sample.*drop_last=True"):
        trainer.fit(DataLoader(TensorDataset(x, t), batch_size=32), epochs=1)
