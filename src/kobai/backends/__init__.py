"""``kobai.backends``: the questions of ``torch.backends`` that training scripts ask, answered for Kobai.

Kobai calls neither cuDNN, Apple's MPS nor MKL, and reaches CUDA through CuPy. Each answers as in a PyTorch built without
it; switches of such a library can be set and read, and there is nothing they could change.
"""

from kobai.backends import cuda, cudnn, mkl, mps

__all__ = ["cuda", "cudnn", "mkl", "mps"]
