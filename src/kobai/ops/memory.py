"""What programs ask of the memory and the kind of a tensor: its storage, and whether it is one of PyTorch's other kinds."""

from __future__ import annotations

from typing import Any

from kobai.core.primitive import method
from kobai.core.tensor import Tensor

__all__: list[str] = []  # methods only


class Storage:
    """The memory of a tensor and of all views of it: a row of elements, or of bytes (``untyped``)."""

    def __init__(self, tensor: Tensor, untyped: bool) -> None:
        self._owner: Any = tensor if tensor._base is None else tensor._base
        self._untyped = untyped
        self.dtype, self.device = tensor.dtype, tensor.device

    def data_ptr(self) -> int:
        """Address of the first element: the same for all tensors that share this memory."""
        return int(self._owner.data_ptr())

    def nbytes(self) -> int:
        """Bytes of all elements."""
        return int(self._owner.nbytes)

    def element_size(self) -> int:
        """Bytes of one element."""
        return 1 if self._untyped else int(self._owner.itemsize)

    def size(self) -> int:
        """Number of elements, or of bytes."""
        return self.nbytes() // self.element_size()

    __len__ = size

    def tolist(self) -> list[Any]:
        """The elements, or bytes, one after the other."""
        row = self._owner.detach().array.reshape(-1)
        return (row.view("uint8") if self._untyped else row).tolist()  # type: ignore[no-any-return]


@method
def storage(input: Tensor) -> Storage:
    """The memory of ``input`` as a row of elements of its dtype."""
    return Storage(input, untyped=False)


@method
def untyped_storage(input: Tensor) -> Storage:
    """The memory of ``input`` as a row of bytes."""
    return Storage(input, untyped=True)


@method
def is_set_to(input: Tensor, tensor: Tensor) -> bool:
    """Whether both see the same elements of the same memory in the same shape."""
    a, b = input._array, tensor._array
    return input.data_ptr() == tensor.data_ptr() and a.shape == b.shape and a.strides == b.strides


@method
def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape."""
    return input.shape == other.shape


@method
def is_shared(input: Tensor) -> bool:
    """Whether the elements lie in memory that several processes share: on the CPU never, here."""
    return input.is_cuda


@method
def is_pinned(input: Tensor) -> bool:
    """Whether the elements lie in page-locked memory of the host: never; copies to a GPU take such memory by themselves."""
    return False


@method
def is_inference(input: Tensor) -> bool:
    """Whether the tensor may never take part in differentiation: none is made so, ``inference_mode`` is ``no_grad``."""
    return False


@method
def to_dense(input: Tensor) -> Tensor:
    """``input`` itself: every tensor stores all its elements."""
    return input


@method
def dim_order(input: Tensor) -> tuple[int, ...]:
    """Dimensions in the order in which they lie in memory, from the one with the largest step."""
    return tuple(sorted(range(input.ndim), key=lambda d: -input._array.strides[d]))


@method
def record_stream(input: Tensor, stream: Any) -> None:
    """Memory is given back in the order of the stream on which it was used; nothing needs to be recorded."""


def _kind(name: str, what: str, holds: Any) -> None:
    setattr(Tensor, name, property(holds, doc=f"Whether {what}."))


_kind("is_cpu", "the elements live on the CPU", lambda self: self.device.type == "cpu")
for _name, _what in {
    "is_mps": "the elements live on an Apple GPU",
    "is_xpu": "the elements live on an Intel GPU",
    "is_xla": "the elements live on a TPU",
    "is_ipu": "the elements live on an IPU",
    "is_vulkan": "the elements live on a Vulkan device",
    "is_meta": "the tensor has no elements, only a shape",
    "is_mkldnn": "the elements are laid out for oneDNN",
    "is_nested": "the tensor is a list of tensors",
    "is_quantized": "the elements are quantised",
    "is_sparse_csr": "only some elements are stored, row by row",
}.items():
    _kind(_name, f"{_what}: never, in Kobai", lambda self: False)
