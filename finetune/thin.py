"""LoRA's products on a CPU: thin matrices laid out as its libraries are fast with, and no pass over the rest.

PEFT 0.21 (tuners/lora/layer.py, `Linear.forward`) scales and adds the wide product in passes of their own,
and of a rank below 16 MKL takes up to four times as long for a thin matrix on the right as on the left.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

_ACTIVE = "default"
Product = Callable[..., Tensor]


def multiply_thin(model: nn.Module, product: Product = functional.linear) -> int:
    """Let linears with LoRA compute as `_Adapted` where that is the same, and say how many may.

    product: what multiplies by their frozen weights, as functional.linear does.

    The same to rounding; in ranks of 16 and more, and with a scale that is a power of two, to the last bit.
    Those with dropout, DoRA or weights in 4 bits stay as PEFT has them. Not for DeepSpeed, whose stage 3
    gathers weights as PEFT's modules are called.
    """
    layers = [each for each in model.modules() if isinstance(each, Linear) and _plain(each)]
    for layer in layers:
        layer.forward = functools.partial(_forward, layer, product)  # pyright: ignore[reportAttributeAccessIssue]
    return len(layers)


def _plain(layer: Linear) -> bool:
    return (
        type(layer.base_layer) is nn.Linear
        and not any(each.requires_grad for each in layer.base_layer.parameters())
        and layer.active_adapters == [_ACTIVE]
        and not layer.lora_variant
        and isinstance(layer.lora_dropout[_ACTIVE], nn.Identity)
    )


def _forward(layer: Linear, product: Product, states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """PEFT's own for whatever is not float32 on a CPU, with the adapter switched off or merged."""
    base = layer.base_layer
    down, up = layer.lora_A[_ACTIVE].weight, layer.lora_B[_ACTIVE].weight
    mine = all(each.dtype == torch.float32 and each.is_cpu for each in (states, base.weight, down, up))
    other = layer.disable_adapters or layer.merged or torch.is_autocast_enabled("cpu")
    if not mine or args or kwargs or other:
        return type(layer).forward(layer, states, *args, **kwargs)
    # Twice: their gradients are summed as those of PEFT's two products, in the same order.
    return _Adapted.apply(states, states, base.weight, base.bias, down, up, layer.scaling[_ACTIVE], product)


class _Adapted(torch.autograd.Function):
    """A frozen linear and its LoRA. low: [rank, n], n being all positions of the states."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        adapted: Tensor,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
        product: Product,
    ) -> Tensor:
        """adapted, states: the same [..., in]; weight [out, in], down [rank, in], up [out, rank] to
        [..., out]."""
        flat = states.flatten(0, -2)
        low = torch.mm(down, flat.t()).mul_(scale)
        ctx.save_for_backward(flat, low, weight, down, up)
        ctx.scale, ctx.product = scale, product  # pyright: ignore[reportAttributeAccessIssue]
        wide = product(flat, weight, bias).addmm_(low.t(), up.t())
        return wide.unflatten(0, states.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, upstream: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Gradients of the states twice, by way of the adapter and of the frozen weight; of down and up."""
        flat, low, weight, down, up = ctx.saved_tensors
        shape = (*upstream.shape[:-1], flat.shape[-1])
        upstream = upstream.flatten(0, -2)
        slope = torch.mm(up.t(), upstream.t()).mul_(ctx.scale)
        adapted = torch.mm(slope.t(), down).view(shape) if ctx.needs_input_grad[0] else None
        states = ctx.product(upstream, weight.t()).view(shape) if ctx.needs_input_grad[1] else None
        return adapted, states, None, None, torch.mm(slope, flat), torch.mm(low, upstream).t(), None, None
