"""Images looked up at any places: ``affine_grid`` and ``grid_sample``."""

from __future__ import annotations

import importlib
from itertools import product

import numpy as np
import pytest

import kobai
from kobai.gradcheck import gradcheck
from kobai.nn import functional as F

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((2, 3, 5, 4))
THETA = np.array([[[0.9, 0.3, 0.1], [-0.3, 1.2, -0.2]], [[1.7, 0.1, 0.4], [0.2, -0.8, 0.9]]])
THETA += 0.01 * RNG.standard_normal(THETA.shape)  # away from whole pixels, where the slope jumps
OPTIONS = list(product(("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (True, False)))


def sampled(module, functional, mode, padding, corners):
    x = module.tensor(IMAGES, requires_grad=True)
    theta = module.tensor(THETA, requires_grad=True)
    grid = functional.affine_grid(theta, [2, 3, 6, 7], align_corners=corners)
    y = functional.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=corners)
    (y * y).sum().backward()
    return [t.detach().numpy() for t in (grid, y, x.grad, theta.grad if mode != "nearest" else y)]


@pytest.mark.oracle
@pytest.mark.parametrize(("mode", "padding", "corners"), OPTIONS)
def test_as_pytorch(mode, padding, corners):
    torch = importlib.import_module("torch")
    expected = sampled(torch, torch.nn.functional, mode, padding, corners)
    result = sampled(kobai, F, mode, padding, corners)
    for ours, theirs in zip(result, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


VOLUMES = RNG.standard_normal((2, 3, 4, 5, 3))
THETA_3D = np.eye(3, 4) + 0.3 * RNG.standard_normal((2, 3, 4))


@pytest.mark.oracle
@pytest.mark.parametrize(("mode", "padding", "corners"), [option for option in OPTIONS if option[0] != "bicubic"])
def test_volumes_as_pytorch(mode, padding, corners):
    torch, results = importlib.import_module("torch"), []
    for module, functional in ((kobai, F), (torch, torch.nn.functional)):
        x, theta = module.tensor(VOLUMES, requires_grad=True), module.tensor(THETA_3D, requires_grad=True)
        grid = functional.affine_grid(theta, [2, 3, 3, 4, 5], align_corners=corners)
        y = functional.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=corners)
        (y * y).sum().backward()
        results.append([t.detach().numpy() for t in (grid, y, x.grad, theta.grad if mode == "bilinear" else y)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_gradients(mode):
    x = kobai.tensor(RNG.standard_normal((1, 2, 3, 4)), requires_grad=True)
    grid = kobai.tensor(RNG.uniform(-0.9, 0.9, (1, 2, 2, 2)), requires_grad=True)
    assert gradcheck(lambda x, grid: F.grid_sample(x, grid, mode=mode, align_corners=False), (x, grid))


@pytest.mark.parametrize("corners", [True, False])
def test_the_identity_gives_the_image(corners, backend):
    x = kobai.tensor(IMAGES.astype(np.float32))
    theta = kobai.eye(2, 3).expand(2, 2, 3)
    y = F.grid_sample(x, F.affine_grid(theta, x.shape, corners), align_corners=corners)
    assert kobai.allclose(y, x, atol=1e-5)


def test_images_of_one_pixel():
    x = kobai.ones(1, 1, 1, 1)
    theta = kobai.eye(2, 3).unsqueeze(0)
    for padding in ("zeros", "border", "reflection"):
        for corners in (True, False):
            grid = F.affine_grid(theta, (1, 1, 1, 1), corners)
            assert F.grid_sample(x, grid * 0, padding_mode=padding, align_corners=corners).item() == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.affine_grid(kobai.ones(1, 3, 4), (1, 1, 2, 2)), r"theta \(N, 2, 3\)"),
        (lambda: F.grid_sample(kobai.ones(1, 1, 2, 2), kobai.ones(2, 2, 2, 2)), r"grid \(N, h, w, 2\)"),
        (
            lambda: F.grid_sample(kobai.ones(1, 1, 2, 2), kobai.ones(1, 2, 2, 2), mode="zzz"),
            r"unknown mode 'zzz'\. Known: bicubic, bilinear, nearest\.$",
        ),
        (lambda: F.grid_sample(kobai.ones(1, 1, 2, 2), kobai.ones(1, 2, 2, 2), padding_mode="zero"), "Did you mean"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(NotImplementedError, match=message):
        call()


def test_a_batch_without_images(backend):
    x, grid = kobai.ones(0, 3, 4, 4, requires_grad=True), kobai.ones(0, 2, 5, 2, requires_grad=True)
    y = F.grid_sample(x, grid, align_corners=False)
    assert y.shape == (0, 3, 2, 5)
    assert [g.shape for g in kobai.autograd.grad(y.sum(), [x, grid])] == [x.shape, grid.shape]
