"""No error of NumPy's and no bare one of Python's reaches the user: whatever is put in, Kobai's own words come out."""

from __future__ import annotations

import inspect
import itertools
import types
import warnings

import numpy as np
import pytest

import kobai
from kobai import distributions as dist, linalg, nn, optim, special
from kobai.nn import functional as F, init
from kobai.optim import lr_scheduler
from kobai.refusals import described, guarded, raised_here
from kobai.utils import data

NOT_CALLED = ("_", "load", "manual_seed", "save", "seed", "set_", "use")
"""Beginnings of names of what would change files, or what the tests after this one find."""

PYTHONS_OWN = ("positional argument", "unexpected keyword", "keyword-only", "multiple values for argument")


def drawn(*shape, dtype=kobai.float32):
    return kobai.tensor(np.random.default_rng(0).normal(size=shape), dtype=dtype)


GOOD = [
    lambda: 3, lambda: drawn(4, 3), lambda: drawn(3), lambda: drawn(2, 3, 4, 4), lambda: drawn(), lambda: drawn(3, 3),
    lambda: kobai.tensor([0, 1, 2]), lambda: 0.5, lambda: (0, 1), lambda: "mean",
    lambda: nn.Linear(3, 3), lambda: [drawn(3).requires_grad_()],
    lambda: optim.SGD([drawn(3).requires_grad_()], 0.1), lambda: data.TensorDataset(drawn(4, 3)),
    lambda: dist.Normal(drawn(3), drawn(3).exp()),
]  # fmt: skip
WRONG = {
    "no dimensions": lambda: drawn(), "five dimensions": lambda: drawn(2, 1, 2, 1, 2), "no rows": lambda: drawn(0, 3),
    "no columns": lambda: drawn(3, 0), "no pixels": lambda: drawn(2, 0, 4, 4), "bools": lambda: drawn(3, 3) > 0,
    "bytes": lambda: kobai.ones(3, 3, dtype=kobai.uint8), "halves": lambda: drawn(3, 3).half(),
    "infinite": lambda: drawn(3, 3) * float("inf"), "ragged": lambda: [[1, 2], [3]], "text": lambda: "abc",
    "None": lambda: None, "object": object, "negative": lambda: -7, "nan": lambda: float("nan"),
    "dict": dict, "fraction": lambda: 0.5, "type": lambda: int, "complex": lambda: np.ones((2, 2), complex),
    "far": lambda: (99, -99),
}  # fmt: skip


def functions():
    for place in (kobai, F, linalg, special, init, nn.utils, nn.utils.rnn, kobai.autograd, data):
        for name, value in vars(place).items():
            ours = type(value) is types.FunctionType and value.__module__.startswith("kobai")
            if ours and not name.startswith(NOT_CALLED):
                yield f"{place.__name__}.{name}", value
    for name, value in vars(kobai.Tensor).items():
        if type(value) is types.FunctionType and name[0] != "_":
            yield f"Tensor.{name}", value


def classes():
    for place in (nn, optim, lr_scheduler, data, dist):
        for name, value in vars(place).items():
            if not isinstance(value, type) or name[0] == "_" or name == "Transformer":  # which is large unless told
                continue
            if value.__module__.startswith("kobai"):
                yield f"{place.__name__}.{name}", value


def outcome(call, args, options):
    """Nothing, or what came out that should not have."""
    try:
        call(*args, **options)
    except Exception as error:
        inside = error.with_traceback(error.__traceback__.tb_next)  # without the line above
        if not raised_here(inside) and not any(words in str(error) for words in PYTHONS_OWN):
            return f"{type(error).__name__}: {error}"
    return None


def accepted(call, count):
    """Arguments that a function of ``count`` of them takes, found by trying; the first ones tried if there are none."""
    for makers in itertools.islice(itertools.product(GOOD, repeat=count), 700):
        try:
            call(*(make() for make in makers))
        except Exception:
            continue
        return makers
    return GOOD[:count]


def mistakes(name, call):
    """Each argument in turn replaced by each wrong thing."""
    parameters = list(inspect.signature(call).parameters.values())
    makers = accepted(call, sum(p.default is p.empty and p.kind in (0, 1) for p in parameters))
    for i, (what, make) in itertools.product(range(len(makers)), WRONG.items()):
        args = [make() if j == i else good() for j, good in enumerate(makers)]
        if not name.startswith("Tensor.") or isinstance(args[0], kobai.Tensor):
            yield f"argument {i + 1} {what}", args, {}
    for parameter, (what, make) in itertools.product(parameters, WRONG.items()):
        if parameter.default is not parameter.empty:
            yield f"{parameter.name} {what}", [good() for good in makers], {parameter.name: make()}


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "call"), [pytest.param(*case, id=case[0]) for case in (*functions(), *classes())])
def test_whatever_is_put_in_the_error_is_in_our_words(name, call):
    said = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", category=RuntimeWarning)  # NumPy's
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"kobai\.")
        for what, args, options in mistakes(name, call):
            raw = outcome(call, args, options)
            if raw:
                said[what] = raw
    assert not said


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::UserWarning")  # ours, of shapes and dims that are guessed
@pytest.mark.parametrize("name", [name for name, value in classes() if issubclass(value, nn.Module)])
def test_a_layer_called_with_anything_answers_in_our_words(name):
    layer = getattr(nn, name.rpartition(".")[2])
    count = sum(p.default is p.empty and p.kind in (0, 1) for p in inspect.signature(layer).parameters.values())
    try:
        made = layer(*(make() for make in accepted(layer, count)))
    except Exception:
        pytest.skip("cannot be made of a few plain arguments")
    said = {what: outcome(made, [make()], {}) for what, make in WRONG.items()}
    assert not any(said.values()), said


X = drawn(3, 4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: X.sum(dtype="abc"), TypeError, "sum: expected dtype as a dtype such as kobai.float32, got 'abc'"),
        (
            lambda: kobai.linspace("a", 1, 3),
            RuntimeError,
            "linspace: expected other arguments, got start 'a', end 1, steps 3",
        ),
        (lambda: X + drawn(7), RuntimeError, r"add: expected shapes that broadcast together, got \(3, 4\) and \(7,\)"),
        (lambda: kobai.relu(), TypeError, r"relu\(\) missing 1 required positional argument: 'input'"),
        (lambda: kobai.relu("a"), TypeError, "relu: expected a Tensor, got str"),
        (lambda: nn.LSTM(3, object()), TypeError, "LSTM: expected hidden_size"),
        (lambda: nn.Flatten()("a"), TypeError, "Flatten: expected .* got 'a'|expected a Tensor, got str"),
    ],
)
def test_messages(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_an_error_of_the_users_own_function_comes_back_as_it_is():
    def wrong(x):
        return np.zeros(3) + np.zeros(4)

    with pytest.raises(ValueError, match="operands could not be broadcast"):
        guarded(lambda f: f(1))(wrong)


def test_a_guard_is_put_up_once_and_shows_the_functions_own_signature():
    assert kobai.relu is F.relu is guarded(kobai.relu)
    assert inspect.signature(kobai.relu) == inspect.signature(kobai.relu.__wrapped__)


def test_descriptions_are_short():
    assert described(X) == "Tensor of shape (3, 4) and kobai.float32"
    assert described(object()) == "a value of type object"
    assert described([0] * 100) == "a value of type list"


def test_a_warning_points_at_the_users_line():
    calls = {
        "dim was not given": lambda: F.softmax(X),
        "degrees of freedom": lambda: drawn(1).std(),
        "are broadcast": lambda: F.mse_loss(drawn(2, 1), drawn(2)),
    }
    for words, call in calls.items():
        with pytest.warns(UserWarning, match=words) as warned:
            call()
        assert warned[0].filename == __file__


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("return unknown", NameError),
        ("return x; x = 1", UnboundLocalError),
        ("assert value is None", AssertionError),
        ("return f(value)", RecursionError),
        ("import kobai.nothing_of_this_name", ImportError),
        ("open('no/such/file')", FileNotFoundError),
        ("import warnings; warnings.warn('look out')", UserWarning),
    ],
)
def test_a_fault_of_ours_and_a_warning_made_an_error_stay_what_they_are(line, error):
    """Other arguments would not mend it, so nothing may say that others were expected."""
    inside = {"__name__": "kobai.somewhere"}
    exec(f"def f(value):\n    {line}", inside)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error) as raised:
            guarded(inside["f"])(X)
    assert "expected other arguments" not in str(raised.value)
    assert raised.value.__cause__ is None


HUGE = kobai.zeros(1).expand(2**50)


@pytest.mark.parametrize(
    ("call", "who"),
    [
        (lambda: kobai.zeros(2**50), "zeros"),
        (lambda: HUGE + 1, "add"),
        (lambda: HUGE.exp(), "exp"),
        (lambda: nn.ReLU()(HUGE), "relu"),
        (lambda: HUGE.clone(), "clone"),
        (lambda: nn.Linear(2**25, 2**25), "Linear"),
        (lambda: kobai.ones(1, requires_grad=True).expand(2**50)[:1].sum().backward(), "backward"),
    ],
)
def test_memory_that_runs_out_is_what_pytorchs_programs_look_for(call, who):
    """They catch a RuntimeError and look for "out of memory" in it, or catch ``OutOfMemoryError``."""
    with pytest.raises(RuntimeError, match=rf"^{who}: out of memory \(Unable to allocate") as raised:
        call()
    assert type(raised.value) is kobai.OutOfMemoryError is kobai.cuda.OutOfMemoryError
    assert isinstance(raised.value.__cause__, MemoryError)
