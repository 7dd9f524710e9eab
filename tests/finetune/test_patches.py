"""A convolution over single patches as a product: the same values, and the module as it was afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finetune.patches import patches_as_products


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("convolution", "size"),
    [
        (nn.Conv3d(3, 5, (2, 4, 4), stride=(2, 4, 4)), (2, 4, 4)),
        (nn.Conv3d(3, 5, (2, 4, 4), stride=(2, 4, 4), bias=False), (2, 4, 4)),
        (nn.Conv2d(3, 5, 4, stride=4), (4, 4)),
        # Slid over a larger input.
        (nn.Conv2d(3, 5, 4, stride=4), (8, 12)),
        (nn.Conv2d(3, 5, 4, stride=4, padding=2), (4, 4)),
        (nn.Conv2d(3, 6, 4, groups=3), (4, 4)),
        (nn.Conv2d(3, 5, 2, dilation=2), (3, 3)),
    ],
)
def test_the_same_values(convolution: nn.Conv2d | nn.Conv3d, size: tuple[int, ...]) -> None:
    model = nn.Sequential(convolution).double()
    patches = noise(7, 3, *size)
    expected = model(patches)
    with patches_as_products(model):
        found = model(patches)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-12)
    assert "forward" not in vars(convolution)


def test_a_patch_is_not_convolved(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("convolved")

    convolution = nn.Conv3d(3, 5, (2, 4, 4), stride=(2, 4, 4))
    monkeypatch.setattr(nn.Conv3d, "_conv_forward", refuse)
    with patches_as_products(convolution):
        assert convolution(torch.zeros(7, 3, 2, 4, 4)).shape == (7, 5, 1, 1, 1)
    with pytest.raises(AssertionError, match="convolved"):
        convolution(torch.zeros(7, 3, 2, 4, 4))
