"""Data sets, samplers and the DataLoader: PyTorch's ``torch.utils.data``."""

from kobai.utils.data.collate import *
from kobai.utils.data.dataloader import *
from kobai.utils.data.dataset import *
from kobai.utils.data.sampler import *
from kobai.utils.data.workers import *
