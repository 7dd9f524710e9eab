"""Products of frozen float32 weights by oneDNN, on a CPU where torch's own library is slower.

torch multiplies float32 by MKL, which on a Zen 5 reaches 95 GFLOP/s a core, oneDNN 215. They sum rows of more
than some 200 values in another order: the same to rounding. Of a pass of the tiny model it takes 19%, of its
frozen towers 20%.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from lensmith.errors import InputError, Problem


def product(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As functional.linear: float32 [..., in] with [out, in] and [out] to [..., out], without a gradient."""
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")


def multiply_frozen(model: nn.Module) -> int:
    """Let linears whose weights are frozen float32 on a CPU compute as `product`; how many they are.

    Raises InputError where torch was built without oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        mend = "leave out train.cpu_products"
        raise InputError("this torch has no oneDNN", [Problem("was built without", torch.__version__, mend)])
    linears = [each for each in model.modules() if type(each) is nn.Linear and _frozen(each)]
    for each in linears:
        each.forward = MethodType(_forward, each)
    return len(linears)


def _frozen(linear: nn.Linear) -> bool:
    plain = linear.weight.is_cpu and linear.weight.dtype == torch.float32
    return plain and not any(each.requires_grad for each in linear.parameters())


def _forward(linear: nn.Linear, states: Tensor) -> Tensor:
    if states.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return functional.linear(states, linear.weight, linear.bias)
    return _Frozen.apply(states, linear.weight, linear.bias)


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return product(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (weight,) = ctx.saved_tensors
        return product(upstream, weight.t()), None, None
