"""Nets for images, by name: a small convolutional one, LeNet-5, and a residual net of eight layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from kobai import nn
from kobai.core.tensor import Tensor
from kobai.random import Generator
from kobai.train.activations import chosen, share

__all__ = ["cnn", "lenet", "resnet8"]

Activation = Callable[[], nn.Module]
Shape = Sequence[int]


def _image(who: str, input_shape: Shape, least: int) -> tuple[int, int, int]:
    """(C, H, W); ValueError unless the inputs are images of at least ``least`` pixels in height and width."""
    if len(input_shape) != 3:
        raise ValueError(f"{who}: expected images (C, H, W), got inputs {tuple(input_shape)}; --model mlp takes them")
    channels, h, w = input_shape
    if min(h, w) < least:
        raise ValueError(f"{who}: expected images of at least {least} × {least}, got {h} × {w}; --model cnn takes them")
    return channels, h, w


def _dense(
    widths: Sequence[int],
    classes: int,
    activation: Activation,
    init: str,
    last_init: str,
    dropout: float,
    generator: Generator | None,
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out, init=init, generator=generator), activation()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return [*layers, nn.Linear(widths[-1], classes, init=last_init, generator=generator)]


def cnn(
    input_shape: Shape,
    classes: int,
    hidden: Sequence[int],
    *,
    activation: str = "relu",
    init: str = "auto",
    batch_norm: bool = False,
    dropout: float = 0.0,
    generator: Generator | None = None,
) -> nn.Sequential:
    """Two convolutions of 3 × 3 (32, 64 channels), each before [BatchNorm2d,] activation and pooling of 2 × 2; Linear layers.

    >>> import kobai
    >>> cnn((1, 28, 28), 10, [100])(kobai.zeros(2, 1, 28, 28)).shape
    kobai.Size([2, 10])
    """
    channels, h, w = _image("cnn", input_shape, 4)
    rectify, init, last_init = chosen("cnn", activation, init)
    layers: list[nn.Module] = []
    for n_in, n_out in ((channels, 32), (32, 64)):
        layers.append(nn.Conv2d(n_in, n_out, 3, padding=1, bias=not batch_norm, init=init, generator=generator))
        layers += [nn.BatchNorm2d(n_out)] if batch_norm else []
        layers += [rectify(), nn.MaxPool2d(2)]
    layers.append(nn.Flatten())
    widths = [64 * (h // 4) * (w // 4), *hidden]
    return nn.Sequential(*layers, *_dense(widths, classes, rectify, init, last_init, share("cnn", dropout), generator))


def lenet(
    input_shape: Shape,
    classes: int,
    *,
    activation: str = "relu",
    init: str = "auto",
    dropout: float = 0.0,
    generator: Generator | None = None,
) -> nn.Sequential:
    """LeNet-5 with poolings of the maximum: convolutions of 5 × 5 with 6 and 16 channels, Linear layers of 120 and 84.

    LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86, 1998.
    """
    channels, h, w = _image("lenet", input_shape, 12)
    rectify, init, last_init = chosen("lenet", activation, init)
    sides = [(n // 2 - 4) // 2 for n in (h, w)]
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2, init=init, generator=generator),
        rectify(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, init=init, generator=generator),
        rectify(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *_dense(
            [16 * sides[0] * sides[1], 120, 84], classes, rectify, init, last_init, share("lenet", dropout), generator
        ),
    )


class ResidualBlock(nn.Module):
    """f(F(x) + x) with F of two convolutions of 3 × 3, each normalised; where the shape changes, x goes through one of 1 × 1.

    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", arXiv:1512.03385.
    """

    def __init__(
        self, n_in: int, n_out: int, stride: int, activation: Activation, init: str, generator: Generator | None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False, init=init, generator=generator)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False, init=init, generator=generator)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False, init=init, generator=generator),
                nn.BatchNorm2d(n_out),
            )
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        inside = self.activation(self.bn1(self.conv1(x)))
        result: Tensor = self.activation(self.bn2(self.conv2(inside)) + self.shortcut(x))
        return result


def resnet8(
    input_shape: Shape,
    classes: int,
    *,
    activation: str = "relu",
    init: str = "auto",
    generator: Generator | None = None,
) -> nn.Sequential:
    """A residual net of eight layers: a convolution, three blocks of 16, 32 and 64 channels, the mean over places, Linear.

    The net for CIFAR of arXiv:1512.03385, section 4.2, with one block in each stage.
    """
    channels, _, _ = _image("resnet8", input_shape, 4)
    rectify, init, last_init = chosen("resnet8", activation, init)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1, bias=False, init=init, generator=generator),
        nn.BatchNorm2d(16),
        rectify(),
        ResidualBlock(16, 16, 1, rectify, init, generator),
        ResidualBlock(16, 32, 2, rectify, init, generator),
        ResidualBlock(32, 64, 2, rectify, init, generator),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes, init=last_init, generator=generator),
    )
