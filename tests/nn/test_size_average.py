"""``size_average`` and ``reduce``, by name and by position, in every loss whose PyTorch counterpart has them."""

import inspect
import warnings

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn import functional as F

MEANING = {
    (None, None): "mean", (True, None): "mean", (False, None): "sum", (None, True): "mean", (None, False): "none",
    (True, True): "mean", (False, True): "sum", (True, False): "none", (False, False): "none",
}  # fmt: skip
WITHOUT = {"gaussian_nll_loss", "huber_loss", "triplet_margin_with_distance_loss", "ctc_loss"}
WITHOUT_CLASSES = {
    "HuberLoss",
    "GaussianNLLLoss",
    "TripletMarginWithDistanceLoss",
    "CTCLoss",
    "AdaptiveLogSoftmaxWithLoss",
}
LOSSES = [
    name for name, f in vars(F).items()
    if callable(f) and "reduction" in inspect.signature(f).parameters and name not in WITHOUT
]  # fmt: skip
CLASSES = [name for name in vars(nn) if name.endswith("Loss") and name not in WITHOUT_CLASSES]


def arguments(name):
    rng = np.random.default_rng(0)
    x = kobai.tensor(rng.uniform(0.1, 0.9, (4, 3)))
    match name:
        case "cross_entropy" | "nll_loss" | "multi_margin_loss":
            return x, kobai.tensor([0, 2, 1, 1])
        case "multilabel_margin_loss":
            return x, kobai.tensor([[0, -1, 1], [2, 1, -1], [0, 1, 2], [-1, 0, 0]])
        case "cosine_embedding_loss":
            return x, x + 0.1, kobai.tensor([1, -1, 1, -1])
        case "margin_ranking_loss":
            return x, x - 0.1, kobai.ones(4, 3)
        case "triplet_margin_loss":
            return x, x + 0.1, x - 0.3
        case "hinge_embedding_loss" | "soft_margin_loss":
            return x, kobai.ones(4, 3)
    return x, kobai.tensor(rng.uniform(0.1, 0.9, (4, 3)))


@pytest.mark.parametrize("meant", MEANING, ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_a_function_takes_them_by_name(name, meant):
    f, given = getattr(F, name), arguments(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if meant == (None, None) else "ignore")
        older = f(*given, size_average=meant[0], reduce=meant[1])
    assert older.tolist() == f(*given, reduction=MEANING[meant]).tolist()


@pytest.mark.parametrize("meant", MEANING, ids=str)
@pytest.mark.parametrize("name", CLASSES)
def test_a_module_takes_them_by_name(name, meant):
    with warnings.catch_warnings():
        warnings.simplefilter("error" if meant == (None, None) else "ignore")
        assert getattr(nn, name)(size_average=meant[0], reduce=meant[1]).reduction == MEANING[meant]


def test_they_are_taken_by_position_as_in_pytorch():
    x, t = kobai.randn(4, 3), kobai.tensor([0, 1, 2, 0])
    with pytest.warns(UserWarning, match="write reduction='sum'"):
        assert F.mse_loss(x, x + 1, False).item() == pytest.approx(12)
    assert F.mse_loss(x, x + 1, "sum").item() == pytest.approx(12)
    assert F.mse_loss(x, x + 1, None, None, "sum").item() == pytest.approx(12)
    assert F.cross_entropy(x, t, None, None, 2).item() == F.cross_entropy(x, t, ignore_index=2).item()
    with pytest.warns(UserWarning, match="write reduction='sum'"):
        assert nn.MSELoss(False).reduction == "sum"
    assert nn.CrossEntropyLoss(None, None, 2).ignore_index == 2
    assert nn.KLDivLoss(None, None, "batchmean").reduction == "batchmean"
    assert nn.TripletMarginLoss(1.0, 2, 1e-6, False, None, None, "sum").reduction == "sum"
    with pytest.raises(TypeError, match="mse_loss: expected at most 5 arguments, got 6"):
        F.mse_loss(x, x, None, None, "sum", None)


@pytest.mark.oracle
@pytest.mark.parametrize("name", LOSSES)
def test_positions_are_pytorchs(name):
    import torch

    theirs = list(inspect.signature(getattr(torch.nn.functional, name)).parameters)
    where = theirs.index("size_average")
    x = tuple(torch.tensor(a.numpy()) for a in arguments(name))
    defaults = [p.default for p in list(inspect.signature(getattr(torch.nn.functional, name)).parameters.values())]
    between = defaults[len(x) : where]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = getattr(torch.nn.functional, name)(*x, *between, False)
        found = getattr(F, name)(*arguments(name), *between, False)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)
