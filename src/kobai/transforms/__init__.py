"""Transforms of images, with torchvision's names and arguments: of Pillow's images, and of tensors (…, C, H, W).

>>> import kobai
>>> from kobai import transforms
>>> prepare = transforms.Compose([transforms.Resize(8), transforms.Normalize((0.5,), (0.5,))])
>>> prepare(kobai.ones(1, 16, 16)).shape
kobai.Size([1, 8, 8])

Random transforms draw from the host stream of the default generator, so one seed gives the same images on every backend.
"""

from kobai.refusals import guard as _guard
from kobai.transforms.augment import Augment
from kobai.transforms.colors import ColorJitter, Grayscale, RandomGrayscale
from kobai.transforms.compose import Compose, Lambda, RandomApply, RandomChoice, RandomOrder
from kobai.transforms.convert import ConvertImageDtype, Normalize, PILToTensor, ToPILImage, ToTensor
from kobai.transforms.erasing import RandomErasing
from kobai.transforms.pictures import InterpolationMode
from kobai.transforms.places import (
    CenterCrop,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
    Resize,
)

__all__ = [
    "Augment",
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "ConvertImageDtype",
    "Grayscale",
    "InterpolationMode",
    "Lambda",
    "Normalize",
    "PILToTensor",
    "Pad",
    "RandomApply",
    "RandomChoice",
    "RandomCrop",
    "RandomErasing",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomOrder",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomVerticalFlip",
    "Resize",
    "ToPILImage",
    "ToTensor",
]

_guard(globals(), classes=True)
