"""Patch embeddings as one product: a convolution whose kernel is the whole patch, without its bookkeeping."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

from torch import Tensor, nn
from torch.nn import functional


@contextlib.contextmanager
def patches_as_products(model: nn.Module) -> Iterator[None]:
    """Run `embed_by_products` for a block; what is a product already stays one behind it."""
    changed = embed_by_products(model)
    try:
        yield
    finally:
        for each in changed:
            del each.forward


def embed_by_products(model: nn.Module) -> list[nn.Conv2d | nn.Conv3d]:
    """Run the model's convolutions over single patches as matrix products, which give the same to rounding.

    On a CPU torch unfolds each patch for itself, several times as slow as the product; cuDNN in bfloat16 has
    had no kernel for it (pytorch#166643, transformers#45750). A convolution that slides over a larger input
    stays one. Gives those that were changed.
    """
    convolutions = [
        each
        for each in model.modules()
        if isinstance(each, nn.Conv2d | nn.Conv3d) and _plain(each) and "forward" not in vars(each)
    ]
    for each in convolutions:
        each.forward = functools.partial(_embed, each, each.forward)  # pyright: ignore[reportAttributeAccessIssue]
    return convolutions


def _plain(convolution: nn.Conv2d | nn.Conv3d) -> bool:
    whole = convolution.groups == 1 and set(convolution.dilation) == {1}
    return whole and not isinstance(convolution.padding, str) and not any(convolution.padding)


def _embed(convolution: nn.Conv2d | nn.Conv3d, slide: Callable[[Tensor], Tensor], patches: Tensor) -> Tensor:
    """[patches, channels, *kernel] to [patches, out, 1, ...]; an input of another size is slid over."""
    if tuple(patches.shape[2:]) != convolution.kernel_size:
        return slide(patches)
    product = functional.linear(patches.flatten(1), convolution.weight.flatten(1), convolution.bias)
    return product.unflatten(1, (-1, *(1 for _ in convolution.kernel_size)))
