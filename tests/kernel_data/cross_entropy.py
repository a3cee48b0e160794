"""The losses of classes, their gradients and sums."""

import numpy as np


def _problem(rng, m, columns, weighted):
    """Scores, targets of which some are ignored (-1), weights and the weight of each row's target (0 where ignored)."""
    x = rng.normal(size=(m, columns)) * 3
    targets = rng.integers(-1, columns, m)
    weight = rng.uniform(0.5, 2, columns) if weighted else None
    all_weights = np.ones(columns) if weight is None else weight
    share = np.where(targets < 0, 0, all_weights[targets])
    return x, targets, weight, all_weights, share


def _stats(x):
    m = x.max(axis=1)
    return np.stack([m, 1 / np.exp(x - m[:, None]).sum(axis=1)], axis=1)


_FOUND_NOTHING, _FOUND = np.zeros(2, np.uint64), np.array([9, 1000], np.uint64)


def _check_losses(columns, weighted, smoothing, wrong=False):
    def check(rng):
        x, targets, weight, weights, share = _problem(rng, 7, columns, weighted)
        stats = _stats(x)
        each = -np.log(stats[:, 1:]) - (x - stats[:, :1])
        valid = targets >= 0
        loss = (1 - smoothing) * share * each[np.arange(7), targets]
        loss += valid * smoothing / columns * (each @ weights)
        if wrong:
            targets[3], loss[3] = 1000, np.nan
        options = -1, smoothing, columns, _FOUND_NOTHING.copy(), 9
        expected = {"stats": stats, "loss": loss, "fault": _FOUND if wrong else _FOUND_NOTHING}
        return 7, (x, targets, weight, np.zeros((7, 2)), np.zeros(7), *options), expected

    return check


def _check_gradients(columns, weighted, smoothing, each):
    def check(rng):
        x, targets, weight, weights, share = _problem(rng, 7, columns, weighted)
        stats, valid = _stats(x), targets >= 0
        p = np.exp(x - stats[:, :1]) * stats[:, 1:]
        dy = rng.normal(size=7 if each else 1)
        g = dy if each else np.full(7, dy[0] * 0.25)
        onehot = np.eye(columns)[targets] * valid[:, None]
        q = (1 - smoothing) * share[:, None] * onehot + valid[:, None] * smoothing / columns * weights
        dx = g[:, None] * (q.sum(axis=1, keepdims=True) * p - q)
        args = x, targets, weight, stats, dy, np.array([9, 0.25]), np.ones_like(x), int(each), -1, smoothing, columns
        return 7, args, {"dx": dx}

    return check


def _check_sum(mean, weighted, ignored):
    def check(rng):
        _, targets, weight, _, share = _problem(rng, 1000, 10, weighted)
        if ignored:
            targets, share = np.full(1000, -1), np.zeros(1000)
        loss = rng.normal(size=1000)
        total = share.sum()
        wanted = [loss.sum(), 1]
        if mean:
            wanted = [loss.sum() / total, 1 / total] if total else [np.nan, 0]
        args = loss, targets, weight, np.zeros(2), -1, int(mean), 1000, 10
        return 1, args, {"reduced": np.array(wanted)}

    return check


def _check_nll(weighted, wrong=False):
    def check(rng):
        x, targets, weight, _, share = _problem(rng, 300, 10, weighted)
        loss = -share * x[np.arange(300), targets]
        if wrong:
            targets[250], loss[250] = 1000, np.nan
        args = x, targets, weight, np.zeros(300), -1, 300, 10, _FOUND_NOTHING.copy(), 9
        return 2, args, {"loss": loss, "fault": _FOUND if wrong else _FOUND_NOTHING}

    return check


def _check_nll_gradients(weighted, each):
    def check(rng):
        x, targets, weight, _, share = _problem(rng, 30, 10, weighted)
        dy = rng.normal(size=30 if each else 1)
        g = dy if each else np.full(30, dy[0] * 0.25)
        dx = np.zeros_like(x)
        dx[np.arange(30), targets] = -g * share
        args = targets, weight, dy, np.array([9, 0.25]), np.ones_like(x), int(each), -1, 30, 10
        return 2, args, {"dx": dx}

    return check


CHECKS = {
    "cross_entropy": [
        _check_losses(300, False, 0.0),
        _check_losses(40, True, 0.0),
        _check_losses(300, True, 0.1),
        _check_losses(40, True, 0.1, True),
    ],
    "cross_entropy_backward": [
        _check_gradients(300, False, 0.0, False),
        _check_gradients(40, True, 0.0, True),
        _check_gradients(300, True, 0.1, False),
    ],
    "cross_entropy_reduce": [
        _check_sum(True, False, False),
        _check_sum(True, True, False),
        _check_sum(True, False, True),
        _check_sum(False, True, False),
    ],
    "nll_loss": [_check_nll(False), _check_nll(True), _check_nll(True, wrong=True)],
    "nll_loss_backward": [_check_nll_gradients(False, False), _check_nll_gradients(True, True)],
}
