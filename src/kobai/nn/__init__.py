"""Layers, losses and everything they are made of; names, arguments and ``state_dict`` keys are PyTorch's."""

from kobai.nn import init, utils
from kobai.nn.container import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter
