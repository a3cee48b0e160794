"""The transformer: encoder, decoder and both together, built from attention (Vaswani et al., arXiv:1706.03762)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, ClassVar

from kobai.core.tensor import Tensor
from kobai.errors import nearest
from kobai.nn import functional as F, init
from kobai.nn.container import ModuleList
from kobai.nn.dropout import Dropout
from kobai.nn.linear import Linear
from kobai.nn.module import Module
from kobai.nn.multihead import MultiheadAttention
from kobai.nn.normalization import LayerNorm
from kobai.ops._args import need_flags
from kobai.ops.create import full
from kobai.ops.rearrange import triu

__all__ = [
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]

Activation = Callable[[Tensor], Tensor]


def _activation(who: str, activation: str | Activation) -> Activation:
    known: dict[str, Activation] = {"relu": F.relu, "gelu": F.gelu}
    if not isinstance(activation, str):
        return activation
    if activation not in known:
        hint = nearest(activation, known)
        raise ValueError(f"{who}: unknown activation {activation!r}.{hint}")
    return known[activation]


def _attend(
    attention: Module, x: Tensor, memory: Tensor, mask: Tensor | None, padding: Tensor | None, is_causal: bool
) -> Any:
    """By names, as PyTorch calls it: users put modules of their own in the place of ``self_attn``."""
    options = {"attn_mask": mask, "key_padding_mask": padding, "need_weights": False, "is_causal": is_causal}
    return attention(x, memory, memory, **options)


class _Layer(Module):
    """What encoder and decoder layers share: one or two attentions, the network, a normalisation and dropout after each."""

    _attentions: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        for name in self._attentions:
            attention = MultiheadAttention(
                d_model, nhead, dropout, bias, batch_first=batch_first, device=device, dtype=dtype
            )
            setattr(self, name, attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias, device, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, device, dtype)
        self.norm_first = norm_first
        steps = range(1, len(self._attentions) + 2)
        for i in steps:
            setattr(self, f"norm{i}", LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype))
        for i in steps:
            setattr(self, f"dropout{i}", Dropout(dropout))
        self.activation = _activation(self._get_name(), activation)

    def _network(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))  # type: ignore[no-any-return]

    # The blocks have PyTorch's names and arguments: subclasses replace one of them, or call it in a forward of their own.

    def _sa_block(
        self, x: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None, is_causal: bool = False
    ) -> Tensor:
        y, _ = _attend(self.self_attn, x, x, attn_mask, key_padding_mask, is_causal)
        return self.dropout1(y)  # type: ignore[no-any-return]


class TransformerEncoderLayer(_Layer):
    """Self-attention and a two-layer network, each with dropout, added to its input, and normalised.

    x ← norm₁(x + drop(attention(x))), x ← norm₂(x + drop(W₂ drop(f(W₁ x)))); with ``norm_first`` the normalisation comes
    before attention and network instead.

    Args:
        d_model, nhead, dropout, batch_first, bias, device, dtype: as in :class:`MultiheadAttention`.
        dim_feedforward: width of the hidden layer.
        activation: ``"relu"``, ``"gelu"`` or a function, f.
        layer_norm_eps: eps of the :class:`LayerNorm` layers.
        norm_first: see above.

    >>> import kobai
    >>> kobai.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)(kobai.randn(3, 5, 8)).shape
    kobai.Size([3, 5, 8])
    """

    _attentions = ("self_attn",)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """(L, N, d_model), (N, L, d_model) if ``batch_first``, or (L, d_model) → the same; masks as for attention."""
        masks = (src_mask, src_key_padding_mask, is_causal)
        if self.norm_first:
            src = src + self._sa_block(self.norm1(src), *masks)
            return src + self._ff_block(self.norm2(src))
        src = self.norm1(src + self._sa_block(src, *masks))
        return self.norm2(src + self._ff_block(src))  # type: ignore[no-any-return]

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout2(self._network(x))  # type: ignore[no-any-return]


class _Stack(Module):
    """Copies of one layer, and an optional final normalisation."""

    def _set_layers(self, layer: Module, num_layers: int, norm: Module | None) -> None:
        if num_layers < 1:
            raise ValueError(f"{self._get_name()}: expected num_layers >= 1, got {num_layers}")
        self.layers = ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.num_layers = num_layers
        self.norm = norm


class TransformerEncoder(_Stack):
    """``num_layers`` copies of an encoder layer in sequence, and an optional final normalisation.

    ``enable_nested_tensor`` and ``mask_check`` switch PyTorch's packed batches on, a matter of speed; here nothing is packed.

    >>> import kobai
    >>> encoder = kobai.nn.TransformerEncoder(kobai.nn.TransformerEncoderLayer(8, 2, 16), 2)
    >>> encoder(kobai.randn(5, 3, 8)).shape
    kobai.Size([5, 3, 8])
    """

    def __init__(
        self,
        encoder_layer: TransformerEncoderLayer,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = False,
        mask_check: bool = True,
    ) -> None:
        super().__init__()
        need_flags("TransformerEncoder", enable_nested_tensor=enable_nested_tensor, mask_check=mask_check)
        self._set_layers(encoder_layer, num_layers, norm)

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """As the layers' ``forward``."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, bool(is_causal))
        return src if self.norm is None else self.norm(src)


class TransformerDecoderLayer(_Layer):
    """As :class:`TransformerEncoderLayer`, with a second attention in between, to the encoder's result (``memory``).

    >>> import kobai
    >>> layer = kobai.nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
    >>> layer(kobai.randn(3, 4, 8), kobai.randn(3, 5, 8)).shape
    kobai.Size([3, 4, 8])
    """

    _attentions = ("self_attn", "multihead_attn")

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """``tgt`` (L, N, d_model) and ``memory`` (S, N, d_model) – N first if ``batch_first`` – → like ``tgt``."""
        own = (tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        other = (memory, memory_mask, memory_key_padding_mask, memory_is_causal)
        if self.norm_first:
            tgt = tgt + self._sa_block(self.norm1(tgt), *own)
            tgt = tgt + self._mha_block(self.norm2(tgt), *other)
            return tgt + self._ff_block(self.norm3(tgt))
        tgt = self.norm1(tgt + self._sa_block(tgt, *own))
        tgt = self.norm2(tgt + self._mha_block(tgt, *other))
        return self.norm3(tgt + self._ff_block(tgt))  # type: ignore[no-any-return]

    def _mha_block(
        self,
        x: Tensor,
        mem: Tensor,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        is_causal: bool = False,
    ) -> Tensor:
        y, _ = _attend(self.multihead_attn, x, mem, attn_mask, key_padding_mask, is_causal)
        return self.dropout2(y)  # type: ignore[no-any-return]

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout3(self._network(x))  # type: ignore[no-any-return]


class TransformerDecoder(_Stack):
    """``num_layers`` copies of a decoder layer in sequence, and an optional final normalisation.

    >>> import kobai
    >>> decoder = kobai.nn.TransformerDecoder(kobai.nn.TransformerDecoderLayer(8, 2, 16), 2)
    >>> decoder(kobai.randn(4, 3, 8), kobai.randn(5, 3, 8)).shape
    kobai.Size([4, 3, 8])
    """

    def __init__(self, decoder_layer: TransformerDecoderLayer, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self._set_layers(decoder_layer, num_layers, norm)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """As the layers' ``forward``."""
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        for layer in self.layers:
            tgt = layer(tgt, memory, *masks, bool(tgt_is_causal), memory_is_causal)
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Module):
    """Encoder and decoder: from a source and the beginning of its translation to the states that predict the next word.

    Arguments as those of :class:`TransformerEncoderLayer`; ``custom_encoder`` and ``custom_decoder`` replace those made
    from them. Matrices start from Glorot's uniform distribution.

    >>> import kobai
    >>> model = kobai.nn.Transformer(8, 2, 1, 1, 16)
    >>> model(kobai.randn(5, 3, 8), kobai.randn(4, 3, 8)).shape
    kobai.Size([4, 3, 8])
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = "relu",
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        sizes = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps)
        options = (batch_first, norm_first, bias, device, dtype)

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)

        if custom_encoder is None:
            custom_encoder = TransformerEncoder(TransformerEncoderLayer(*sizes, *options), num_encoder_layers, norm())
        if custom_decoder is None:
            custom_decoder = TransformerDecoder(TransformerDecoderLayer(*sizes, *options), num_decoder_layers, norm())
        self.encoder = custom_encoder
        self.decoder = custom_decoder
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """``src`` (S, N, d_model), ``tgt`` (L, N, d_model) – N first if ``batch_first`` – → like ``tgt``."""
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        return self.decoder(tgt, memory, *masks, tgt_is_causal, memory_is_causal)  # type: ignore[no-any-return]

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """A causal mask to add to scores, (sz, sz): −∞ above the diagonal, 0 on it and below.

        >>> import kobai
        >>> kobai.nn.Transformer.generate_square_subsequent_mask(2)
        tensor([[0., -inf],
                [0., 0.]])
        """
        return triu(full((sz, sz), -math.inf, dtype=dtype, device=device), diagonal=1)
