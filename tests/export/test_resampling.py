"""Matrix products compared with torch's own resizing."""

import pytest
import torch
from torch.nn import functional as F

from nailseg.export import resampling

SIZES = [(1, 1), (5, 7), (16, 48), (97, 161), (300, 33)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("reached", SIZES, ids=str)
def test_resize_antialiased(size: tuple[int, int], reached: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (2, 3, *size)).float()
    # in float32 torch's own positions are off by 1e-3 of a grey level
    expected = F.interpolate(image.double(), reached, mode="bilinear", antialias=True).float()
    torch.testing.assert_close(resampling.resize_antialiased(image, reached), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("reached", SIZES, ids=str)
def test_bilinear_matrix(size: tuple[int, int], reached: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size)
    rows, columns = (
        resampling.bilinear_matrix(there, here, image.device)
        for there, here in zip(reached, size, strict=True)
    )
    expected = F.interpolate(image, reached, mode="bilinear")
    torch.testing.assert_close(rows @ image @ columns.T, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.sum(1), torch.ones(reached[0]))
