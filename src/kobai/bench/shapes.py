"""The shape of a data set, which is all that the time of a step depends on: known sets need not be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kobai.train import job
from kobai.train.settings import RunSettings


@dataclass(frozen=True)
class Shape:
    """Shape of one sample, and the number of classes."""

    inputs: tuple[int, ...]
    classes: int

    def description(self, settings: RunSettings) -> dict[str, Any]:
        """The description from which :func:`kobai.train.models.build` makes the model."""
        return job.describe_model(settings, self.inputs, self.classes)


KNOWN = {
    "digits": Shape((1, 8, 8), 10),
    "mnist": Shape((1, 28, 28), 10),
    "fashion-mnist": Shape((1, 28, 28), 10),
    "cifar10": Shape((3, 32, 32), 10),
}


def shape_of(settings: RunSettings) -> Shape:
    """The shape of the data in ``settings``; a table is read."""
    known = KNOWN.get(settings.data.lower().replace("_", "-"))
    if known is not None:
        return known
    data = job.load_data(settings)
    return Shape(data.input_shape, data.outputs)
