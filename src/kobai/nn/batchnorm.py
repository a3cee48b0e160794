"""Batch normalisation: ``BatchNorm1d``, ``BatchNorm2d``, ``BatchNorm3d``."""

from __future__ import annotations

from typing import Any, ClassVar

from kobai.core.tensor import Tensor
from kobai.nn import functional as F, init
from kobai.nn.linear import _real, _size
from kobai.nn.module import Module
from kobai.nn.normalization import _Affine
from kobai.ops._epilogue import epilogue
from kobai.ops.create import empty, tensor
from kobai.xp import beside

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "SyncBatchNorm",
]


class _NormBase(_Affine):
    """y = f((x − mean) / √(var + eps) · weight + bias), mean and variance over all dimensions but 1."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    _version = 2  # since num_batches_tracked is there
    _shapes: ClassVar[dict[int, str]]  # what forward takes: number of dimensions -> what to call it in an error

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        self.num_features = _size(self._get_name(), "num_features", num_features)
        epilogue(self._get_name(), activation)  # an unknown name fails here, not in forward
        self.eps = _real(self._get_name(), "eps", eps)
        self.momentum = None if momentum is None else _real(self._get_name(), "momentum", momentum)
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.activation = activation
        self._add_affine(num_features, device, dtype, weight=affine, bias=affine and bias)
        for name in ("running_mean", "running_var"):
            statistic = empty(num_features, device=device, dtype=dtype) if track_running_stats else None
            self.register_buffer(name, statistic)
        self.register_buffer("num_batches_tracked", tensor(0, device=device) if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget the batches seen: mean 0, variance 1."""
        for statistic, start in ((self.running_mean, 0.0), (self.running_var, 1.0), (self.num_batches_tracked, 0)):
            if statistic is not None:
                init.constant_(statistic, start)

    def reset_parameters(self) -> None:
        """Reset the statistics; weight 1, bias 0."""
        self.reset_running_stats()
        super().reset_parameters()

    def _check_input_dim(self, input: Tensor) -> None:
        """ValueError for an input of another shape; subclasses with a ``forward`` of their own call it."""
        shape = input.shape
        if len(shape) not in self._shapes or shape[1] != self.num_features:
            wanted = " or ".join(text.format(self.num_features) for text in self._shapes.values())
            raise ValueError(f"{self._get_name()}: expected input {wanted}, got {tuple(shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """In training normalise by the batch's statistics and update the running ones; else normalise by those."""
        self._check_input_dim(input)
        momentum: Any = self.momentum
        if self.training and self.num_batches_tracked is not None:
            count = self.num_batches_tracked.array
            with beside(count):
                count += 1  # on the device, so that no step waits for the host
                if momentum is None:  # the plain average of all batches
                    momentum = 1.0 / count
            self.num_batches_tracked._bump()
        return self._normalise(input, momentum)

    def _normalise(self, input: Tensor, momentum: Any) -> Tensor:
        return F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            momentum,
            self.eps,
            activation=self.activation,
        )

    def extra_repr(self) -> str:
        extra = (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )
        return extra if self.activation is None else f"{extra}, activation={self.activation!r}"


class _BatchNorm(_NormBase):
    """Base of those that normalise over the batch."""


class BatchNorm1d(_BatchNorm):
    """Normalise every feature over the batch: y = f((x − mean) / √(var + eps) · weight + bias).

    Args:
        num_features: C of input (N, C) or (N, C, L).
        eps: added to the variance.
        momentum: weight of each new batch in the running statistics, which evaluation uses; None: a plain average.
        affine: whether there are a trained ``weight`` and ``bias``, (C) each; ``bias=False`` leaves out the latter.
        track_running_stats: False to use the batch's statistics in evaluation too.
        device, dtype: of parameters and statistics.
        activation: f, ``"relu"``, ``"sigmoid"``, ``"tanh"`` or None, computed in the result's own memory.

    The batch is normalised by the biased variance; the unbiased one goes into ``running_var``, as in PyTorch.
    Ioffe and Szegedy, ICML 2015, arXiv:1502.03167.

    Raises:
        ValueError: input of another shape; in training, only one value per channel.

    >>> import kobai
    >>> norm = kobai.nn.BatchNorm1d(1, affine=False)
    >>> norm(kobai.tensor([[1.0], [3.0]]))
    tensor([[-1.0000],
            [ 1.0000]])
    >>> norm.running_mean
    tensor([0.2000])
    """

    _shapes: ClassVar[dict[int, str]] = {2: "(N, {0})", 3: "(N, {0}, L)"}


class BatchNorm2d(_BatchNorm):
    """As :class:`BatchNorm1d`, for images: C of input (N, C, H, W).

    >>> import kobai
    >>> kobai.nn.BatchNorm2d(3)(kobai.randn(2, 3, 4, 4)).shape
    kobai.Size([2, 3, 4, 4])
    """

    _shapes: ClassVar[dict[int, str]] = {4: "(N, {0}, H, W)"}


class _InstanceNorm(_NormBase):
    """As batch normalisation, but mean and variance of every single example."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise by the statistics of each example, or in evaluation by the running ones where they are tracked."""
        (ndim,) = self._shapes
        alone = input.ndim == ndim - 1
        fits = input.ndim in (ndim, ndim - 1)
        if fits and self.weight is None and self.running_mean is None:
            pass  # nothing here has num_features entries: any number of channels will do, as in PyTorch
        elif not fits or input.shape[0 if alone else 1] != self.num_features:
            batch = self._shapes[ndim].format(self.num_features)
            wanted = f"{batch} or {batch.replace('N, ', '')}"
            raise ValueError(f"{self._get_name()}: expected input {wanted}, got {tuple(input.shape)}")
        y = F.instance_norm(
            input.unsqueeze(0) if alone else input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return y.squeeze(0) if alone else y


class InstanceNorm1d(_InstanceNorm):
    """As :class:`BatchNorm1d`, with the mean and variance of every single example: (N, C, L) or (C, L).

    Without ``affine`` and ``track_running_stats`` by default. Ulyanov, Vedaldi, Lempitsky, arXiv:1607.08022.

    >>> import kobai
    >>> kobai.nn.InstanceNorm1d(3)(kobai.randn(2, 3, 4)).shape
    kobai.Size([2, 3, 4])
    """

    _shapes: ClassVar[dict[int, str]] = {3: "(N, {0}, L)"}


class InstanceNorm2d(_InstanceNorm):
    """As :class:`InstanceNorm1d`, for images: (N, C, H, W) or (C, H, W).

    >>> import kobai
    >>> kobai.nn.InstanceNorm2d(3)(kobai.randn(2, 3, 4, 4)).mean((2, 3)).abs().max().item() < 1e-5
    True
    """

    _shapes: ClassVar[dict[int, str]] = {4: "(N, {0}, H, W)"}


class InstanceNorm3d(_InstanceNorm):
    """As :class:`InstanceNorm1d`, for volumes: (N, C, D, H, W) or (C, D, H, W).

    >>> import kobai
    >>> kobai.nn.InstanceNorm3d(3)(kobai.randn(2, 3, 4, 4, 4)).shape
    kobai.Size([2, 3, 4, 4, 4])
    """

    _shapes: ClassVar[dict[int, str]] = {5: "(N, {0}, D, H, W)"}


class BatchNorm3d(_BatchNorm):
    """As :class:`BatchNorm1d`, for volumes: C of input (N, C, D, H, W).

    >>> import kobai
    >>> kobai.nn.BatchNorm3d(3)(kobai.randn(2, 3, 4, 4, 4)).shape
    kobai.Size([2, 3, 4, 4, 4])
    """

    _shapes: ClassVar[dict[int, str]] = {5: "(N, {0}, D, H, W)"}


class SyncBatchNorm(_BatchNorm):
    """As :class:`BatchNorm1d`, for input (N, C, ...), with the statistics of all processes' batches together.

    In training the sums over the batch are added over the processes of :mod:`kobai.distributed`, forward and backward, so that
    P processes compute what one would with the whole batch; in a ``Trainer(shards=V)``, over all V shards, on any number of
    processes. There is one group, so ``process_group`` is None.

    >>> import kobai
    >>> kobai.nn.SyncBatchNorm(3)(kobai.randn(2, 3, 4, 4)).shape
    kobai.Size([2, 3, 4, 4])
    """

    _shapes: ClassVar[dict[int, str]] = {2 + n: f"(N, {{0}}{', *' * n})" for n in range(4)}

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: None = None,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        if process_group is not None:
            raise NotImplementedError(
                "SyncBatchNorm: there is one group, of all processes; expected process_group=None"
            )
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def _normalise(self, input: Tensor, momentum: Any) -> Tensor:
        from kobai.nn.data_parallel import batch_norm, in_shares  # which few need

        if (self.training or self.running_mean is None) and in_shares():
            return batch_norm(self, input, momentum)
        return super()._normalise(input, momentum)

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: None = None) -> Module:
        """``module`` with its batch normalisations as SyncBatchNorm; parameters and statistics stay the same tensors.

        >>> from kobai import nn
        >>> type(nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3)))[0]).__name__
        'SyncBatchNorm'
        """
        if isinstance(module, _BatchNorm) and not isinstance(module, cls):
            old, module = module, cls(module.num_features, module.eps, module.momentum, False, False, process_group)
            module.affine, module.track_running_stats = old.affine, old.track_running_stats
            module.activation, module.training = old.activation, old.training
            module._parameters.update(old._parameters)
            module._buffers.update(old._buffers)
        for name, child in module.named_children():
            setattr(module, name, cls.convert_sync_batchnorm(child, process_group))
        return module
