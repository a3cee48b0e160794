"""Data sets, samplers and the DataLoader: PyTorch's ``torch.utils.data``."""

from kobai.compat.paths import connect as _connect
from kobai.refusals import guard as _guard
from kobai.utils.data import collate, dataloader, dataset, distributed, sampler, workers
from kobai.utils.data.collate import *
from kobai.utils.data.dataloader import *
from kobai.utils.data.dataset import *
from kobai.utils.data.distributed import *
from kobai.utils.data.sampler import *
from kobai.utils.data.workers import *

__all__: list[str] = []
__all__ += collate.__all__
__all__ += dataloader.__all__
__all__ += dataset.__all__
__all__ += distributed.__all__
__all__ += sampler.__all__
__all__ += workers.__all__

_guard(globals(), classes=True)
for _module in (__name__, dataloader.__name__, dataset.__name__):
    _connect(_module)
