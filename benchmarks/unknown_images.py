"""Images that are no cells: noise, blank fields, textures and drawings, to measure with; nothing learns from them.

A drawer takes a generator and a side in pixels, and returns one image uint8 [size, size, 3]. `KINDS` sorts them.

The photos are parts of the three that scikit-learn and matplotlib ship (a temple, a flower, a portrait), at random
scales. All other textures are computed.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, zoom

Drawer = Callable[[np.random.Generator, int], np.ndarray]

# The color of an empty smear in the PBC data (the corners of 40 cells), and how much it varies between images.
_SMEAR, _SMEAR_SPREAD = np.array([240.0, 212.0, 190.0]), np.array([10.0, 12.0, 10.0])
# Colors of a stained smear: its background, red cells, nuclei, granules.
_STAIN = np.array([[240.0, 212.0, 190.0], [212.0, 170.0, 160.0], [110.0, 60.0, 130.0], [190.0, 120.0, 160.0]])


def _levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _color(rng: np.random.Generator) -> np.ndarray:
    """Return any color, or in half of the draws one of a stained smear: what is colored alike is harder to refuse."""
    if rng.random() < 0.5:
        return rng.uniform(0, 255, 3)
    return rng.dirichlet(np.ones(len(_STAIN))) @ _STAIN + 10 * rng.normal(size=3)


def _tinted(field: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a field [size, size] as an image that runs between two random colors."""
    low, high = np.percentile(field, [1, 99])
    share = np.clip((field - low) / max(high - low, 1e-9), 0, 1)[..., None]
    first, second = _color(rng), _color(rng)
    return _levels(first + share * (second - first))


def _power_law(rng: np.random.Generator, size: int, exponent: float) -> np.ndarray:
    """Return noise [size, size] whose power falls with this power of the frequency, as in photos (about 2)."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(size, size))) / frequency ** (exponent / 2)
    field = np.fft.irfft2(spectrum, s=(size, size))
    return field / field.std()


# Noise


def uniform_noise(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.integers(0, 256, (size, size, 3), np.uint8)


def gaussian_noise(rng: np.random.Generator, size: int) -> np.ndarray:
    return _levels(_color(rng) + rng.uniform(10, 80) * rng.normal(size=(size, size, 3)))


def gray_noise(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.repeat(_levels(rng.uniform(60, 200) + rng.uniform(20, 80) * rng.normal(size=(size, size, 1))), 3, axis=2)


def salt_and_pepper(rng: np.random.Generator, size: int) -> np.ndarray:
    image, drawn = np.broadcast_to(_color(rng), (size, size, 3)).copy(), rng.random((size, size))
    share = rng.uniform(0.05, 0.5)
    image[drawn < share / 2], image[drawn > 1 - share / 2] = 0, 255
    return _levels(image)


def blurred_noise(rng: np.random.Generator, size: int) -> np.ndarray:
    sigma = rng.uniform(1, 8)
    noise = gaussian_filter(rng.normal(size=(size, size, 3)), (sigma, sigma, 0), mode="wrap")
    return _levels(_color(rng) + rng.uniform(20, 60) * noise / noise.std())


# Blank fields


def one_color(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.broadcast_to(_levels(_color(rng)), (size, size, 3)).copy()


def gradient(rng: np.random.Generator, size: int) -> np.ndarray:
    angle, place = rng.uniform(0, 2 * np.pi), np.linspace(-1, 1, size)
    return _tinted(np.cos(angle) * place[:, None] + np.sin(angle) * place[None], rng)


def empty_smear(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a field of the color of an empty smear, with uneven light and the noise of a camera."""
    place = np.linspace(-1, 1, size)
    across, down = rng.uniform(-6, 6, 2)
    light = across * place[:, None] + down * place[None] - rng.uniform(0, 10) * (place[:, None] ** 2 + place[None] ** 2)
    color = _SMEAR + _SMEAR_SPREAD * rng.normal(size=3)
    return _levels(color + light[..., None] + rng.uniform(0.5, 4) * rng.normal(size=(size, size, 3)))


def dark_field(rng: np.random.Generator, size: int) -> np.ndarray:
    return _levels(rng.uniform(0, 30) + rng.uniform(0.5, 4) * rng.normal(size=(size, size, 3)))


# Textures


def power_law_texture(rng: np.random.Generator, size: int) -> np.ndarray:
    return _tinted(_power_law(rng, size, rng.uniform(1, 3)), rng)


def colored_texture(rng: np.random.Generator, size: int) -> np.ndarray:
    exponent = rng.uniform(1, 3)
    fields = np.stack([_power_law(rng, size, exponent) for _ in range(3)], axis=2)
    return _levels(rng.uniform(80, 180) + 45 * (fields @ rng.normal(0.4, 0.5, (3, 3))))


def wood(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size + rng.uniform(-2, 2, (2, 1, 1))
    rings = np.hypot(x, rng.uniform(0.1, 0.6) * y) + 0.03 * _power_law(rng, size, 3)
    return _tinted(np.sin(2 * np.pi * rng.uniform(4, 14) * rings) + 0.2 * rng.normal(size=(size, size)), rng)


def marble(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    bands = np.cos(rng.uniform(0, 6)) * x + np.sin(rng.uniform(0, 6)) * y
    return _tinted(np.abs(np.sin(np.pi * (rng.uniform(2, 8) * bands + 0.5 * _power_law(rng, size, 2.5)))), rng)


def stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 30)
    wave = np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / period + rng.uniform(0, 6))
    return _tinted((np.sign(wave) if rng.random() < 0.5 else wave) + 0.1 * rng.normal(size=(size, size)), rng)


def bricks(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    high, wide = rng.integers(5, 16), rng.integers(8, 30)
    row = y // high
    gap = (y % high == 0) | ((x + row % 2 * (wide // 2)) % wide == 0)
    shade = rng.normal(size=(size, size))[row, (x + row % 2 * (wide // 2)) // wide]
    return _tinted(np.where(gap, -2.0, shade) + 0.2 * rng.normal(size=(size, size)), rng)


def cobbles(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    stones = rng.uniform(0, size, (rng.integers(12, 80), 2))
    distance = np.sort(np.hypot(y[..., None] - stones[:, 0], x[..., None] - stones[:, 1]), axis=2)
    return _tinted(np.tanh((distance[..., 1] - distance[..., 0]) / 4) + 0.1 * rng.normal(size=(size, size)), rng)


@cache
def _photos() -> tuple[np.ndarray, ...]:
    from matplotlib.cbook import get_sample_data
    from sklearn.datasets import load_sample_images

    portrait = np.asarray(Image.open(str(get_sample_data("grace_hopper.jpg", asfileobj=False))).convert("RGB"))
    return (*load_sample_images().images, portrait)


def photo(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a square part of a photo, from the size of the image up to the whole height."""
    picture = _photos()[rng.integers(3)]
    side = int(np.exp(rng.uniform(np.log(size), np.log(min(picture.shape[:2])))))
    top, left = (rng.integers(0, length - side + 1) for length in picture.shape[:2])
    part = Image.fromarray(picture[top : top + side, left : left + side])
    turned = np.rot90(np.asarray(part.resize((size, size), Image.Resampling.BICUBIC)), int(rng.integers(4)))
    return turned[:, ::-1] if rng.random() < 0.5 else turned


# Drawings


def _canvas(rng: np.random.Generator, size: int) -> tuple[Image.Image, ImageDraw.ImageDraw, Callable[[], tuple]]:
    background = (255, 255, 255) if rng.random() < 0.4 else tuple(_levels(_color(rng)).tolist())
    image = Image.new("RGB", (4 * size, 4 * size), background)
    return image, ImageDraw.Draw(image), lambda: tuple(_levels(_color(rng)).tolist())


def _smooth(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def shapes(rng: np.random.Generator, size: int) -> np.ndarray:
    image, draw, color = _canvas(rng, size)
    for _ in range(rng.integers(3, 13)):
        points = rng.uniform(0, 4 * size, (rng.integers(2, 6), 2)).ravel().tolist()
        kind = rng.integers(3)
        if kind == 0 and len(points) > 4:
            draw.polygon(points, fill=color())
        elif kind == 1:
            (x, x1), (y, y1) = sorted(points[0:4:2]), sorted(points[1:4:2])
            draw.ellipse((x, y, x1, y1), fill=color(), outline=color(), width=int(rng.integers(1, 12)))
        else:
            draw.line(points, fill=color(), width=int(rng.integers(2, 20)))
    return _smooth(image, size)


def face(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a cartoon face, as pranks in public data sets are."""
    image, draw, color = _canvas(rng, size)
    x, y = (2 * size + rng.uniform(-0.3, 0.3, 2) * size).tolist()
    r = rng.uniform(0.9, 1.7) * size
    draw.ellipse((x - r, y - r, x + r, y + r), fill=color(), outline="black", width=int(rng.integers(0, 10)))
    for side in (-1, 1):
        eye, white = (x + side * 0.4 * r, y - 0.25 * r), rng.uniform(0.12, 0.25) * r
        draw.ellipse((eye[0] - white, eye[1] - white, eye[0] + white, eye[1] + white), fill="white", outline="black")
        draw.ellipse((eye[0] - white / 3, eye[1] - white / 3, eye[0] + white / 3, eye[1] + white / 3), fill="black")
    draw.arc(
        (x - 0.5 * r, y - 0.1 * r, x + 0.5 * r, y + 0.6 * r), 10, 170, fill=color(), width=int(rng.integers(6, 24))
    )
    return _smooth(image, size)


def text(rng: np.random.Generator, size: int) -> np.ndarray:
    image, draw, color = _canvas(rng, size)
    for _ in range(rng.integers(2, 9)):
        letters = "".join(rng.choice(list("ABCDEFGHKLMNRSTabcdeghknrst0123456789?!&%"), rng.integers(2, 9)))
        place = rng.uniform(-0.5 * size, 3 * size, 2).tolist()
        draw.text(place, letters, fill=color(), font=ImageFont.load_default(int(rng.integers(size // 2, 2 * size))))
    return _smooth(image, size)


def chart(rng: np.random.Generator, size: int) -> np.ndarray:
    image, draw, color = _canvas(rng, size)
    bars, base = int(rng.integers(3, 9)), 3.6 * size
    width = 3.2 * size / bars
    for bar, height in enumerate(rng.uniform(0.3, 3.2, bars) * size):
        left = 0.5 * size + bar * width
        draw.rectangle((left, base - height, left + 0.7 * width, base), fill=color())
    draw.line((0.4 * size, 0.2 * size, 0.4 * size, base, 3.9 * size, base), fill="black", width=8)
    heights = (base - rng.uniform(0.2, 3, 12) * size).tolist()
    draw.line(list(zip(np.linspace(0.5, 3.7, 12) * size, heights, strict=True)), fill=color(), width=10)
    return _smooth(image, size)


def house(rng: np.random.Generator, size: int) -> np.ndarray:
    image, draw, color = _canvas(rng, size)
    ground, left, side = rng.uniform(2.6, 3.4) * size, rng.uniform(0.4, 1.6) * size, rng.uniform(1.2, 2) * size
    draw.rectangle((0, ground, 4 * size, 4 * size), fill=color())
    draw.rectangle((left, ground - side, left + side, ground), fill=color(), outline="black", width=6)
    draw.polygon((left, ground - side, left + side / 2, ground - 1.7 * side, left + side, ground - side), fill=color())
    draw.rectangle((left + 0.4 * side, ground - 0.5 * side, left + 0.6 * side, ground), fill=color())
    sun = rng.uniform(0.2, 0.5) * size
    draw.ellipse((3.2 * size - sun, 0.6 * size - sun, 3.2 * size + sun, 0.6 * size + sun), fill=color())
    return _smooth(image, size)


def sketch(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw smooth lines of a pen on white."""
    image = Image.new("RGB", (4 * size, 4 * size), "white")
    draw, ink = ImageDraw.Draw(image), tuple(_levels(rng.uniform(0, 90, 3)).tolist())
    for _ in range(rng.integers(2, 9)):
        path = np.asarray(zoom(rng.uniform(0.2, 3.8, (rng.integers(4, 8), 2)) * size, (20, 1), order=3))
        draw.line([tuple(point) for point in path.tolist()], fill=ink, width=int(rng.integers(4, 14)))
    return _smooth(image, size)


KINDS: dict[str, tuple[Drawer, ...]] = {
    "noise": (uniform_noise, gaussian_noise, gray_noise, salt_and_pepper, blurred_noise),
    "blank fields": (one_color, gradient, empty_smear, dark_field),
    "textures": (power_law_texture, colored_texture, wood, marble, stripes, bricks, cobbles, photo),
    "drawings": (shapes, face, text, chart, house, sketch),
}


def draw_images(drawer: Drawer, count: int, size: int) -> np.ndarray:
    """Return images of one drawer, uint8 [count, size, size, 3]; image i depends on its number and the drawer alone."""
    name = sum(map(ord, drawer.__name__))
    return np.stack([drawer(np.random.default_rng([name, number]), size) for number in range(count)])
