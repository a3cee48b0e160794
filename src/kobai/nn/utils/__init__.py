"""Helpers around networks: clipping gradients, parameters as one vector, sequences of several lengths."""

from kobai.nn.utils import rnn
from kobai.nn.utils.parameters import clip_grad_norm_, clip_grad_value_, parameters_to_vector, vector_to_parameters

__all__ = ["clip_grad_norm_", "clip_grad_value_", "parameters_to_vector", "rnn", "vector_to_parameters"]
