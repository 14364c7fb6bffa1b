"""Training augmentation, and the only module that imports albumentations.

Geometry is one resize and one warp in OpenCV; albumentations needs three passes for the same. Color, blur and
noise are albumentations', on the small result. Both draw from one seed per sample: albumentations by itself
repeats its draws in every worker and every epoch. Other libraries store every intermediate image, need
torchvision, depend on the order of the samples, or blur masks.
"""

import math
import os
from dataclasses import dataclass

# before the import, or albumentations asks the network for newer versions
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np

from nailseg.errors import ConfigError
from nailseg.imaging.geometry import PAD_VALUE, Resize, network_size
from nailseg.imaging.recolor import recolor_randomly
from nailseg.types import IGNORE_INDEX, MAX_CLASSES

OUTSIDE = MAX_CLASSES
"""Padding while a mask is warped, to tell it from pixels that the file ignores; no class has this index."""

FOREGROUND_SHARE = 0.5
"""Share of `crop`'s crops that are chosen around a foreground pixel, because most crops of a large image with
small objects show none. nnU-Net (Isensee et al. 2021) takes a third of each batch, at least one of two."""


@dataclass(frozen=True)
class Augmentation:
    """Strengths and probabilities of the augmentation. Zero turns one off.

    Attributes:
        scale: Smallest and largest factor on the size that evaluation uses (longer side = `size`; with `crop`
            the image's own).
        stretch: Largest relative change of width against height.
        rotate: Largest rotation in either direction, in degrees.
        flip: Probability of mirroring left to right.
        vertical_flip: Probability of mirroring top to bottom.
        light: Strength of brightness, contrast and gamma changes, 0..1.
        color: Strength of hue, saturation and white balance changes, 0..1.
        blur: Probability of blur (out of focus or motion).
        noise: Probability of sensor noise.
        compression: Probability of JPEG artefacts.
        shadow: Probability of a cast shadow.
        clahe: Probability of local contrast equalisation.
        recolor: Probability of painting the foreground in a random nail polish color; shading is kept.
    """

    scale: tuple[float, float] = (0.5, 1.6)
    stretch: float = 0.1
    rotate: float = 30.0
    flip: float = 0.5
    vertical_flip: float = 0.0
    light: float = 0.5
    color: float = 0.5
    blur: float = 0.15
    noise: float = 0.15
    compression: float = 0.15
    shadow: float = 0.05
    clahe: float = 0.03
    recolor: float = 0.0

    def __post_init__(self) -> None:
        """Raises ConfigError for a field outside its range."""
        low, high = self.scale
        if not 0 < low <= high:
            expected = f"expected two factors, 0 < smallest <= largest, found {list(self.scale)}"
            raise ConfigError(f"--data.augmentation.scale: {expected}. [1, 1] turns scaling off.")
        for name, value in vars(self).items():
            limit = 180 if name == "rotate" else 1
            if name != "scale" and not 0 <= value <= limit:
                expected = f"expected a number from 0 to {limit}, found {value}. 0 turns it off"
                raise ConfigError(f"--data.augmentation.{name}: {expected}.")


DEFAULT_AUGMENTATION = Augmentation()


class TrainingTransform:
    """Random scale, rotation, crop, flips, color, blur and noise; one seed always gives the same bytes.

    >>> image, mask = np.zeros((90, 120, 3), np.uint8), np.zeros((90, 120), np.uint8)
    >>> [array.shape for array in TrainingTransform(size=64)(image, mask, seed=1)]
    [(64, 64, 3), (64, 64)]

    Args:
        size: Height and width of the result in pixels.
        resize: What scale 1 means: `keep` (longer side = `size`), `squash` (both sides = `size`) or `crop`
            (the image's own scale; half of the crops contain a random foreground pixel, if there is one).
        augmentation: Strengths and probabilities.
    """

    def __init__(
        self, size: int, resize: Resize = "keep", augmentation: Augmentation = DEFAULT_AUGMENTATION
    ) -> None:
        self.size, self.augmentation = size, augmentation
        self.resize: Resize = resize
        # largest factor on the network's size to which an image is resized
        self.max_scale = augmentation.scale[1] * math.sqrt(1 + augmentation.stretch)
        self.appearance = appearance_transform(augmentation)

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Augments one image and its mask.

        Args:
            image: uint8 (H, W, 3), RGB. Not changed.
            mask: uint8 (H, W), class index or 255. Not changed.
            seed: 0 .. 2**32 - 1; the only source of randomness.

        Returns:
            Image uint8 (size, size, 3), padded with 114, and mask uint8 (size, size), padded with 255.
        """
        rng = np.random.default_rng(seed)
        crop, labels, outside = self._random_crop(image, mask, rng)
        if rng.random() < self.augmentation.recolor:
            crop = recolor_randomly(crop, labels, rng)
        self.appearance.set_random_seed(seed)
        crop = np.ascontiguousarray(self.appearance(image=crop)["image"])
        # padding has the value that it has in evaluation, whatever the color augmentation does
        cv2.copyTo(np.full_like(crop, PAD_VALUE), outside.view(np.uint8), crop)
        return crop, labels

    def _random_crop(
        self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A randomly scaled, rotated, flipped and placed square of the image and its mask.

        The third array, bool (size, size), tells what is padding.
        """
        size, options = self.size, self.augmentation
        # uniform in the logarithm: halving is as likely as doubling
        factor = math.exp(rng.uniform(math.log(options.scale[0]), math.log(options.scale[1])))
        stretch = math.exp(rng.uniform(-1, 1) * math.log1p(options.stretch) / 2)
        angle = math.radians(rng.uniform(-1, 1) * options.rotate)
        mirror_x = -1.0 if rng.random() < options.flip else 1.0
        mirror_y = -1.0 if rng.random() < options.vertical_flip else 1.0
        cosine, sine = math.cos(angle), math.sin(angle)
        rotation = np.array([[cosine * mirror_x, -sine * mirror_y], [sine * mirror_x, cosine * mirror_y]])
        if self.resize == "crop":
            zoom = np.array([factor * stretch, factor / stretch])
            crop_center = _choose_crop(mask, size / zoom, rng)
            # two pixels more than the rotated square covers, for the interpolation
            reach = (size / 2 * (abs(cosine) + abs(sine)) + 2) / zoom + 2
            left, top = np.floor(np.maximum(crop_center - reach, 0)).astype(int)
            right, bottom = np.ceil(crop_center + reach).astype(int)
            image, mask = image[top:bottom, left:right], mask[top:bottom, left:right]
        height, width = image.shape[:2]
        base_height, base_width = network_size(height, width, size, self.resize)
        new_height = max(1, round(base_height * factor / stretch))
        new_width = max(1, round(base_width * factor * stretch))
        # center of the image in the square
        if self.resize == "crop":
            from_crop = np.array([left + width / 2, top + height / 2]) - crop_center
            center = size / 2 + rotation @ (from_crop * [new_width / width, new_height / height])
        else:  # an image that fits is not cropped, a larger one leaves no padding
            center = size / 2 + rng.uniform(-1, 1, 2) * np.abs(np.array([new_width, new_height]) - size) / 2

        # the resize first and by area: the warp reads four pixels, so downscaling with it would alias
        by = cv2.INTER_AREA if new_height * new_width < height * width else cv2.INTER_LINEAR
        resized = cv2.resize(image, (new_width, new_height), interpolation=by)
        matrix = _affine(rotation, (new_width, new_height), center)
        crop = cv2.warpAffine(resized, matrix, (size, size), borderValue=(PAD_VALUE,) * 3)
        # the mask is sampled once, at its full resolution: two nearest-neighbour passes would fray its edges
        zoom = np.diag([new_width / width, new_height / height])
        matrix = _affine(rotation @ zoom, (width, height), center)
        labels = cv2.warpAffine(mask, matrix, (size, size), flags=cv2.INTER_NEAREST, borderValue=OUTSIDE)
        outside = labels == OUTSIDE
        labels[outside] = IGNORE_INDEX
        return crop, labels, outside


def _choose_crop(mask: np.ndarray, extent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The center (x, y) of a crop in whole pixels; unrotated, it contains as much of the image as it can.

    `mask` is the whole image's, `extent` the crop's width and height in pixels of the image.
    """
    size = np.array(mask.shape[::-1])
    # an image smaller than the crop lies anywhere inside it
    low, high = np.minimum(extent, 2 * size - extent) / 2, np.maximum(extent, 2 * size - extent) / 2
    center = rng.uniform(low, high)
    if rng.random() < FOREGROUND_SHARE:
        foreground = cv2.findNonZero(cv2.inRange(mask, 1, MAX_CLASSES - 1))
        if foreground is not None:
            pixels = foreground.reshape(-1, 2)  # OpenCV 4 gives (N, 1, 2), 5 gives (N, 2); each x, y
            pixel = pixels[rng.integers(len(pixels))]
            # not always in the middle, which the network would learn
            center = np.clip(pixel + rng.uniform(-1, 1, 2) * extent / 4, low, high)
    return np.round(center)


def _affine(linear: np.ndarray, source_size: tuple[int, int], center: np.ndarray) -> np.ndarray:
    """The 2x3 matrix that applies `linear` and takes the source's center to `center`.

    OpenCV's coordinates are whole numbers at pixel centers, so the center of n pixels lies at (n - 1) / 2.
    """
    source_center = (np.array(source_size, dtype=np.float64) - 1) / 2
    shift = (center - 0.5) - linear @ source_center
    return np.concatenate([linear, shift[:, None]], axis=1)


def appearance_transform(augmentation: Augmentation) -> A.Compose:
    """Color, light, blur, noise and compression, which do not change the mask: a pipeline for `image=`."""
    light, color, given = augmentation.light, augmentation.color, augmentation
    kinds_of_blur = [A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.5)), A.MotionBlur(blur_limit=(3, 7))]
    steps = [
        (light, A.RandomBrightnessContrast(0.5 * light, 0.5 * light, p=0.6)),
        (light, A.RandomGamma((100 - 50 * light, 100 + 70 * light), p=0.3)),
        # skin and polish differ little in hue, and lamps shift it by more
        (color, A.HueSaturationValue(24 * color, 70 * color, 40 * color, p=0.5)),
        (color, A.RGBShift(30 * color, 30 * color, 30 * color, p=0.3)),
        (color, A.ToGray(p=0.05 * color)),
        (given.shadow, A.RandomShadow(p=given.shadow)),
        (given.clahe, A.CLAHE(clip_limit=(1, 3), p=given.clahe)),
        (given.blur, A.OneOf(kinds_of_blur, p=given.blur)),
        (given.noise, A.GaussNoise(std_range=(0.01, 0.06), p=given.noise)),
        (given.compression, A.ImageCompression(quality_range=(35, 90), p=given.compression)),
    ]
    # a step of strength 0 is left out: it would draw random numbers, and change the other steps'
    return A.Compose([step for strength, step in steps if strength > 0])
