"""Resizing, padding, and restoring the original size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nailseg.imaging import geometry


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (432, 432, 512, (512, 512)),
        (100, 400, 64, (16, 64)),
        (400, 100, 64, (64, 16)),
        (3000, 4000, 512, (384, 512)),
        (10, 33, 64, (19, 64)),  # 19.39
        (3, 8, 4, (2, 4)),  # 1.5 rounds up
        (1, 5000, 64, (1, 64)),
        (1, 1, 64, (64, 64)),
    ],
)
def test_keep_resizes_the_longer_side(height: int, width: int, size: int, expected: tuple[int, int]) -> None:
    assert geometry.network_size(height, width, size, "keep") == expected


def test_squash_makes_a_square() -> None:
    assert geometry.network_size(100, 400, 64, "squash") == (64, 64)


def test_resize_keeps_flat_colour() -> None:
    image = torch.full((2, 3, 40, 30), 200, dtype=torch.uint8)
    resized = geometry.resize_image(image, (17, 64))
    assert resized.dtype == torch.float32
    assert resized.shape == (2, 3, 17, 64)
    assert torch.allclose(resized, torch.tensor(200.0))


def test_downscaling_averages_pixels() -> None:
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 255
    # away from the border every result pixel sees as many white columns as black ones
    reduced = geometry.resize_image(stripes, (16, 16))[..., 2:-2]
    assert reduced.min() > 120
    assert reduced.max() < 135


def test_resize_does_not_round() -> None:
    image = torch.tensor([[10, 11]], dtype=torch.uint8).expand(1, 3, 1, 2)
    assert geometry.resize_image(image, (1, 4))[0, 0, 0].tolist() == [10, 10.25, 10.75, 11]


@pytest.mark.parametrize(("height", "width", "expected"), [(32, 64, (32, 64)), (33, 1, (64, 32))])
def test_pad_to_a_multiple(height: int, width: int, expected: tuple[int, int]) -> None:
    image = torch.randint(0, 255, (1, 3, height, width), dtype=torch.uint8)
    padded = geometry.pad(image)
    assert padded.shape[-2:] == expected
    assert padded.dtype == torch.uint8
    assert torch.equal(padded[..., :height, :width], image)
    assert (padded[..., height:, :] == geometry.PAD_VALUE).all()
    assert (padded[..., width:] == geometry.PAD_VALUE).all()


def test_padding_is_about_zero_after_normalisation() -> None:
    mean = torch.tensor([0.485, 0.456, 0.406])
    assert ((geometry.PAD_VALUE / 255 - mean).abs() < 0.05).all()


def test_fit_image_returns_the_valid_size() -> None:
    image = torch.randint(0, 255, (1, 3, 50, 70), dtype=torch.uint8)
    fitted, valid = geometry.fit_image(image, 64)
    assert valid == (46, 64)
    assert fitted.shape == (1, 3, 64, 64)
    assert torch.equal(fitted[..., :46, :], geometry.resize_image(image, (46, 64)))


def test_padding_is_independent_of_the_batch() -> None:
    images = torch.randint(0, 255, (3, 3, 50, 70), dtype=torch.uint8)
    together, _ = geometry.fit_image(images, 96)
    alone, _ = geometry.fit_image(images[1:2], 96)
    assert torch.equal(together[1:2], alone)


def test_restore_logits_resizes_the_valid_part() -> None:
    logits = torch.randn(2, 2, 64, 96)
    restored = geometry.restore_logits(logits, (50, 90), (123, 211))
    expected = F.interpolate(logits[:, :, :50, :90], (123, 211), mode="bilinear", align_corners=False)
    assert torch.equal(restored, expected)
    # logits of the padding must not affect the image
    logits[:, :, 50:], logits[:, :, :, 90:] = 1e6, 1e6
    assert torch.equal(geometry.restore_logits(logits, (50, 90), (123, 211)), restored)


@pytest.mark.parametrize("resize", ["keep", "squash"])
def test_fit_and_restore_keep_positions(resize: geometry.Resize) -> None:
    image = torch.zeros(1, 3, 90, 150, dtype=torch.uint8)
    image[..., 20:60, 30:110] = 255
    fitted, valid = geometry.fit_image(image, 128, resize)
    back = geometry.restore_logits(fitted.float(), valid, (90, 150))[:, 0] > 127
    wrong = back != (image[:, 0] > 127)
    assert wrong.float().mean() < 0.005


def test_export_with_dynamic_height_and_width() -> None:
    class Fit(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            fitted, valid = geometry.fit_image(image, 64)
            return geometry.restore_logits(fitted.float(), valid, image.shape[-2:])

    def make_image(height: int, width: int) -> torch.Tensor:
        return torch.randint(0, 255, (1, 3, height, width), dtype=torch.uint8)

    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(Fit(), (make_image(50, 70),), dynamic_shapes=(sides,))
    # the guards are about memory layout, which differs where nothing is cropped; the arithmetic is the same
    program = exported.module(check_guards=False)
    for height, width in [(50, 70), (91, 37), (40, 300)]:
        image = make_image(height, width)
        torch.testing.assert_close(program(image), Fit()(image))
