"""``kobai.backends``: the questions of ``torch.backends`` that training scripts ask, answered for Kobai.

Kobai uses neither cuDNN nor Apple's MPS nor MKL nor oneDNN, and reaches CUDA through CuPy. Each answers as in a PyTorch built
without it; its switches can be set and read, and have no effect.
"""

from kobai.backends import cuda, cudnn, mkl, mps

__all__ = ["cuda", "cudnn", "mkl", "mps"]
