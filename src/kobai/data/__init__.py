"""Real data sets, ready to train on: :class:`DataSplits` of train, validation and test tensors."""

from kobai.data.catalogue import NAMES, load
from kobai.data.cifar import cifar10
from kobai.data.embedded import digits
from kobai.data.image_folder import ImageFolder
from kobai.data.images import images
from kobai.data.mnist_family import fashion_mnist, mnist
from kobai.data.splits import DataSplits, Scaling
from kobai.data.tables.preparation import Preparation
from kobai.data.tables.table import csv, table
from kobai.refusals import guard as _guard

__all__ = ["NAMES", "DataSplits", "ImageFolder", "Preparation", "Scaling"]
__all__ += ["cifar10", "csv", "digits", "fashion_mnist", "images", "load", "mnist", "table"]

_guard(globals(), classes=True)
