"""A made-up Sentinel-2 scene: a landscape drawn by code, for the demo and for tests.

`python -m pipeline.scenes.synthetic scene.tif` writes it.

No imagery ships with the project, so this draws some: wooded hills, shrubland, pastures, fields, orchards, a
town with its industry, villages, a lake, a river and a motorway. Colours and textures follow the statistics
of EuroSAT's tiles of the same class, so that a network trained on those recognises them.

A plan says which land cover lies where (`_plan`). A painter for each land cover colours its pixels. Roads,
river and motorway are drawn on top. The air adds its haze, the instrument its blur and noise.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from scipy import fft, ndimage
from scipy.spatial import cKDTree

from pipeline.errors import UsageError

BANDS = ("B02", "B03", "B04", "B08")
GSD = 10.0  # metres


class Cover(IntEnum):
    """EuroSAT's classes with their ids in the map."""

    ANNUAL_CROP = 1
    FOREST = 2
    HERBACEOUS_VEGETATION = 3
    HIGHWAY = 4
    INDUSTRIAL = 5
    PASTURE = 6
    PERMANENT_CROP = 7
    RESIDENTIAL = 8
    RIVER = 9
    SEA_LAKE = 10


# What lies where: column and row of an area's middle as fractions of the scene, and how far it reaches
# compared with its neighbours.
# fmt: off
PLACES: dict[Cover, tuple[tuple[float, float, float], ...]] = {
    Cover.FOREST: ((0.08, 0.08, 1.0), (0.27, 0.10, 1.0), (0.08, 0.26, 1.0),
                   (0.66, 0.02, 0.9), (0.86, 0.00, 0.8), (1.00, 0.10, 0.6)),
    Cover.HERBACEOUS_VEGETATION: ((0.28, 0.27, 0.9), (0.46, 0.08, 1.0)),
    Cover.PASTURE: ((0.06, 0.44, 0.9), (0.23, 0.46, 1.0), (0.40, 0.38, 1.0),
                    (0.57, 0.19, 0.8), (0.98, 0.28, 0.7), (0.45, 0.56, 0.8)),
    Cover.SEA_LAKE: ((0.82, 0.18, 1.0),),
    Cover.INDUSTRIAL: ((0.77, 0.50, 0.7),),
    Cover.PERMANENT_CROP: ((0.93, 0.47, 1.0), (0.90, 0.66, 0.8)),
    Cover.ANNUAL_CROP: ((0.10, 0.66, 1.0), (0.28, 0.68, 1.0), (0.62, 0.66, 1.0),
                        (0.14, 0.88, 1.0), (0.34, 0.90, 1.0), (0.56, 0.88, 1.0), (0.80, 0.88, 1.0)),
    Cover.RESIDENTIAL: ((0.60, 0.40, 0.9), (0.69, 0.36, 0.6),
                        (0.15, 0.54, 0.25), (0.23, 0.79, 0.25), (0.67, 0.80, 0.3), (0.92, 0.94, 0.25)),
}

# EuroSAT names a tile after the river or the motorway that crosses it, whatever else it shows. This many
# pixels to each side of the middle count as theirs.
CORRIDOR = 42

# Reflectances x 10000 in the order of BANDS, without the haze of a clear day, which is added at the end.
HAZE = (700, 400, 200, 50)
BARE_SOIL, DRY_SOIL, STUBBLE = (480, 820, 1270, 2200), (620, 1000, 1530, 2500), (760, 1190, 1790, 2800)
MOIST_SOIL, PLOUGHED, RIPENING = (430, 700, 1050, 1950), (380, 600, 860, 1800), (330, 640, 700, 2950)
WHEAT, BEET, CLOVER = (220, 540, 370, 4400), (180, 440, 330, 3800), (290, 600, 500, 4100)
CROPS = (BARE_SOIL, DRY_SOIL, STUBBLE, MOIST_SOIL, PLOUGHED, WHEAT, BEET, CLOVER, RIPENING)
ORCHARDS = ((480, 790, 1130, 2470), (630, 1010, 1460, 2790), (360, 620, 840, 2350),
            (260, 480, 540, 2450), (380, 690, 780, 3050), (780, 1180, 1650, 3000))
MEADOWS = ((195, 515, 375, 3650), (215, 495, 430, 3200), (165, 490, 300, 4150), (285, 560, 570, 2950))
TILED_ROOF, BRIGHT_ROOF = (750, 950, 1500, 2200), (1500, 1900, 2300, 2800)
WHITE_HALL, PALE_HALL, RED_HALL = (2100, 2450, 2650, 3100), (1500, 1850, 2250, 2700), (520, 650, 1300, 1800)
GREY_HALLS = ((950, 1250, 1500, 2000), (800, 1050, 1250, 1700), (700, 900, 1150, 1600), (500, 700, 900, 1300))
HALLS = (*[WHITE_HALL] * 3, PALE_HALL, RED_HALL, *GREY_HALLS, (400, 500, 600, 950))
SPRUCE, BEECH = (85, 210, 165, 2100), (120, 310, 215, 3450)
HEDGE, GARDEN = (100, 270, 220, 2500), (230, 450, 390, 2900)
SHRUB, DRY_GRASS = (200, 390, 400, 2000), (540, 830, 1060, 2450)
DIRT_TRACK, ASPHALT, GRAVEL = (760, 1120, 1600, 2500), (610, 780, 950, 1450), (950, 1300, 1600, 1950)
LAKE, STREAM = (130, 190, 140, 150), (260, 440, 330, 350)
# fmt: on


@dataclass(frozen=True)
class SyntheticScene:
    """A scene and what is in it."""

    pixels: np.ndarray
    """(B, H, W) uint16, reflectance x 10000 without offset."""

    truth: np.ndarray
    """(H, W) uint8, ids of `Cover`."""


@dataclass(frozen=True)
class _Ground:
    """Pixels to paint: where they lie, and random fields of mean 0 and standard deviation 1."""

    rng: np.random.Generator
    x: np.ndarray  # in pixels
    y: np.ndarray
    bend_x: np.ndarray  # how nature bends straight lines
    bend_y: np.ndarray
    hills: np.ndarray  # how much the sides of hills face the sun
    canopy: np.ndarray  # the same for the crowns of trees
    patches: np.ndarray  # correlated over some 300 m
    mottle: np.ndarray  # over some 60 m
    grain: np.ndarray  # over some 15 m
    speckle: np.ndarray  # from pixel to pixel

    def at(self, mask: np.ndarray) -> "_Ground":
        """Return the pixels under a mask, in one dimension."""
        return replace(self, **{k: v[mask] for k, v in vars(self).items() if isinstance(v, np.ndarray)})


@dataclass(frozen=True)
class _Parcels:
    """Where each pixel lies in a mosaic of parcels; lengths in pixels."""

    number: np.ndarray  # of the parcel, in 0..4095
    across: np.ndarray  # distance from one long side
    edge: np.ndarray  # distance to the nearest side
    border: np.ndarray  # distance to the border of the block of parallel parcels
    table: np.ndarray  # (4, 4096) random numbers

    def random(self, k: int) -> np.ndarray:
        """Return the k-th random number in [0, 1) of each pixel's parcel."""
        return self.table[k, self.number]

    def color(self, palette: tuple[tuple[int, ...], ...]) -> np.ndarray:
        """Return a colour of the palette for each pixel's parcel: (4, n)."""
        return np.array(palette, np.float32)[(self.random(0) * len(palette)).astype(int)].T


def make_scene(size: int = 1600, seed: int = 7, bands: tuple[str, ...] = BANDS) -> SyntheticScene:
    """Draw a scene of `size` x `size` pixels of 10 m; `bands` are any of `BANDS`, in any order.

    Raises UsageError for other bands.
    """
    if unknown := set(bands) - set(BANDS):
        raise UsageError(f"The made-up scene has no band {min(unknown)}; it has {', '.join(BANDS)}.")
    rng = np.random.default_rng(seed)
    ground = _make_ground(rng, size)
    truth = _plan(ground)
    pixels = np.zeros((len(BANDS), size, size), np.float32)
    for cover, paint in _PAINTERS.items():
        mask = truth == cover
        if mask.any():
            pixels[:, mask] = paint(ground.at(mask))
    _draw_roads(pixels, ground)
    _draw_river(pixels, truth, ground)
    _draw_motorway(pixels, truth, ground)
    pixels += _color(HAZE)[..., None] * (1 + 0.06 * _noise(rng, (size, size), size / 3, 1.5))
    pixels = ndimage.gaussian_filter(pixels, (0, 0.62, 0.62))
    pixels += 8 * rng.standard_normal(pixels.shape, np.float32)
    order = [BANDS.index(band) for band in bands]
    return SyntheticScene(pixels[order].clip(1, 20000).astype(np.uint16), truth)


def write_scene(
    path: Path,
    size: int = 1600,
    seed: int = 7,
    epsg: int = 32633,
    origin: tuple[float, float] = (399960.0, 5400000.0),
) -> Path:
    """Draw a scene and write it as a GeoTIFF whose upper left corner is `origin` (metres east, north)."""
    profile = {
        "driver": "GTiff",
        "width": size,
        "height": size,
        "count": len(BANDS),
        "dtype": "uint16",
        "nodata": 0,
        "crs": f"EPSG:{epsg}",
        "transform": Affine(GSD, 0, origin[0], 0, -GSD, origin[1]),
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 2,
    }
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(make_scene(size, seed).pixels)
        dataset.descriptions = BANDS
        dataset.update_tags(PRODUCT_LEVEL="Level-1C", PROCESSING_LEVEL="Level-1C")
    return path


def _make_ground(rng: np.random.Generator, size: int) -> _Ground:
    shape = (size, size)
    y, x = np.indices(shape, np.float32)
    return _Ground(
        rng=rng,
        x=x,
        y=y,
        bend_x=_noise(rng, shape, 100, 2),
        bend_y=_noise(rng, shape, 100, 2),
        hills=_sunlit(-np.abs(_noise(rng, shape, 35, 1.8))),  # with sharp ridges
        canopy=_sunlit(_noise(rng, shape, 2.5, 1.5)),
        patches=_noise(rng, shape, 30),
        mottle=_noise(rng, shape, 6),
        grain=_noise(rng, shape, 1.5),
        speckle=_noise(rng, shape, 0.6),
    )


def _noise(rng: np.random.Generator, shape: tuple[int, int], scale: float, smooth: float = 1.0) -> np.ndarray:
    """Return a random field, correlated over `scale` pixels: mean 0, standard deviation 1.

    `smooth` is the smoothness of its Matern covariance (Rasmussen and Williams 2006, equation 4.15).
    """
    rows, cols = (fft.next_fast_len(n, real=True) for n in shape)
    spectrum = fft.rfft2(rng.standard_normal((rows, cols), np.float32))
    frequency = np.hypot(fft.fftfreq(rows)[:, None], fft.rfftfreq(cols)).astype(np.float32)
    spectrum *= (1 + (2 * np.pi * scale * frequency) ** 2) ** (-(smooth + 1) / 2)
    field = fft.irfft2(spectrum, (rows, cols))[: shape[0], : shape[1]]
    return (field - field.mean()) / field.std()


def _sunlit(height: np.ndarray) -> np.ndarray:
    """Return how much a surface faces the sun in the south-east: mean 0, standard deviation 1."""
    down, right = np.gradient(height)
    return -(down + right) / (down + right).std()


def _plan(ground: _Ground) -> np.ndarray:
    """Return the land cover (H, W): that of the nearest place, in units of the place's reach."""
    size = len(ground.x)
    x = ground.x / size + 0.018 * ground.bend_x + 0.007 * ground.patches
    y = ground.y / size + 0.018 * ground.bend_y + 0.007 * ground.patches
    cover = np.zeros(x.shape, np.uint8)
    nearest = np.full(x.shape, np.inf, np.float32)
    for place_cover, places in PLACES.items():
        for place_x, place_y, reach in places:
            distance = np.hypot(x - place_x, y - place_y) / reach
            cover[distance < nearest] = place_cover
            np.minimum(nearest, distance, out=nearest)
    return cover


def _parcels(
    ground: _Ground, block: float, width: float, length: float, bend: float = 10, turn: float = np.pi
) -> _Parcels:
    """Divide the ground into blocks some `block` pixels wide, each into parcels of about width x length.

    `bend` says how crooked they are in pixels, `turn` how much the blocks' directions differ in radians.
    """
    rng = ground.rng
    x, y = ground.x + bend * ground.bend_x, ground.y + bend * ground.bend_y
    centres = np.mgrid[x.min() : x.max() + block : block, y.min() : y.max() + block : block].reshape(2, -1).T
    centres += rng.uniform(-0.4, 0.4, centres.shape) * block
    distance, nearest = cKDTree(centres).query(np.stack([x, y], axis=-1), k=2)
    home = nearest[:, 0]
    angle = rng.uniform(0, turn, len(centres)).astype(np.float32)[home]
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    u += 0.3 * width * np.sin(1.7 * u / width)  # some wider than others
    column, across = np.divmod(u, width)
    v += rng.uniform(0, length, 4096).astype(np.float32)[column.astype(int) % 4096]
    row, along = np.divmod(v, length)
    edge = np.minimum(np.minimum(across, width - across), np.minimum(along, length - along))
    border = (distance[:, 1] - distance[:, 0]) / 2
    number = (home * 7919 + column.astype(int) * 2903 + row.astype(int) * 4057) % 4096
    return _Parcels(number, across, np.minimum(edge, border), border, rng.random((4, 4096), np.float32))


def _color(color: tuple[int, ...]) -> np.ndarray:
    return np.array(color, np.float32)[:, None]


def _mix(below: np.ndarray, color: tuple[int, ...], weight: np.ndarray | float) -> np.ndarray:
    """Lay a colour over a picture (4, n), with a weight per pixel from 0 (unseen) to 1 (opaque)."""
    return below + (_color(color) - below) * np.float32(np.clip(weight, 0, 1))


def _plant_trees(picture: np.ndarray, ground: _Ground, mask: np.ndarray) -> np.ndarray:
    trees = _color(HEDGE) * (1 + 0.25 * ground.canopy + 0.1 * ground.mottle)
    return np.where(mask, 0.85 * trees + 0.15 * picture, picture)


def _paint_forest(ground: _Ground) -> np.ndarray:
    picture = _mix(_color(SPRUCE), BEECH, 0.5 + 0.3 * ground.patches + 0.1 * ground.mottle)
    picture = picture * (1 + 0.13 * ground.hills + 0.14 * ground.canopy)
    return _mix(picture, DRY_GRASS, 0.5 * ((ground.patches < -2.2) & (ground.mottle > 0)))


def _paint_herbaceous(ground: _Ground) -> np.ndarray:
    thicket = ground.patches + 0.7 * ground.mottle + 0.5 * ground.grain
    picture = _mix(_color(DRY_GRASS), SHRUB, 0.35 + 0.25 * ground.patches + 0.35 * (thicket > 0.8))
    picture = picture * (1 + 0.1 * ground.hills + 0.06 * ground.canopy)
    path = np.abs((ground.bend_x + 0.1 * ground.patches) % 0.5 - 0.25) < 0.008
    return _mix(picture, DIRT_TRACK, 0.6 * path)


def _paint_pasture(ground: _Ground) -> np.ndarray:
    parcels = _parcels(ground, block=85, width=30, length=44, bend=25)
    brightness = 1 + 0.2 * (parcels.random(2) - 0.5) + 0.06 * ground.mottle + 0.04 * ground.canopy
    picture = parcels.color(MEADOWS) * brightness
    hedge = (parcels.edge < 1.0) & (parcels.random(1) > 0.3) & (ground.grain > -0.8)
    return _plant_trees(picture, ground, hedge | (ground.mottle > 2.4) | (ground.patches < -2.2))


def _paint_annual_crop(ground: _Ground) -> np.ndarray:
    parcels = _parcels(ground, block=130, width=26, length=85)
    soil = 0.04 * ground.patches + 0.035 * ground.mottle + 0.025 * ground.grain
    tramlines = 0.04 * np.sin(2 * np.pi * parcels.across / 3.4) * (parcels.random(1) > 0.5)
    picture = parcels.color(CROPS) * (1 + 0.25 * (parcels.random(2) - 0.5) + soil + tramlines)
    picture = _plant_trees(picture, ground, ground.patches < -2.5)
    return _mix(picture, DIRT_TRACK, 0.7 * (parcels.border < 0.7))


def _paint_permanent_crop(ground: _Ground) -> np.ndarray:
    parcels = _parcels(ground, block=60, width=11, length=18)
    rows = 0.08 * np.sin(2 * np.pi * parcels.across / 2.7)
    picture = parcels.color(ORCHARDS) * (1 + rows + 0.07 * ground.grain + 0.04 * ground.mottle)
    picture = _mix(picture, HEDGE, 0.5 * (parcels.edge < 0.6))
    return _mix(picture, DIRT_TRACK, 0.7 * (parcels.border < 0.7))


def _paint_residential(ground: _Ground) -> np.ndarray:
    parcels = _parcels(ground, block=50, width=8, length=30)
    density = 0.3 + 0.2 * ground.mottle + 0.15 * ground.patches
    picture = _mix(_color(GARDEN), ASPHALT, density) * (1 + 0.15 * ground.grain)
    picture = _mix(picture, ASPHALT, 0.8 * (parcels.edge < 0.7) + 0.8 * (parcels.border < 1.2))
    houses = (parcels.edge > 0.7) & (ground.speckle > 0.2)
    picture = _mix(picture, TILED_ROOF, houses * (0.5 + 0.3 * ground.speckle))
    picture = _mix(picture, BRIGHT_ROOF, houses & (ground.speckle > 2))
    return _plant_trees(picture, ground, ground.patches + 0.3 * ground.mottle > 2.2)  # parks


def _paint_industrial(ground: _Ground) -> np.ndarray:
    parcels = _parcels(ground, block=85, width=10, length=15, bend=0, turn=1.2)
    picture = _color(ASPHALT) * (1 + 0.15 * ground.grain + 0.05 * ground.speckle)
    picture = _mix(picture, GARDEN, 0.3 + 0.5 * ground.mottle)
    wall = parcels.edge - 1 - 1.5 * parcels.random(2)  # > 0: inside a hall
    built = parcels.random(1) > 0.22
    shadow = built & (wall > -1.2) & (parcels.across < 4)
    halls = parcels.color(HALLS) * (1 + 0.06 * ground.speckle)
    picture = np.where(built & (wall > 0), halls, picture * (1 - 0.4 * shadow))
    return _mix(picture, ASPHALT, parcels.border < 1.2)


def _paint_lake(ground: _Ground) -> np.ndarray:
    return _color(LAKE) * (1 + 0.15 * ground.bend_x + 0.02 * ground.mottle)


_PAINTERS: dict[Cover, Callable[[_Ground], np.ndarray]] = {
    Cover.FOREST: _paint_forest,
    Cover.HERBACEOUS_VEGETATION: _paint_herbaceous,
    Cover.PASTURE: _paint_pasture,
    Cover.ANNUAL_CROP: _paint_annual_crop,
    Cover.PERMANENT_CROP: _paint_permanent_crop,
    Cover.RESIDENTIAL: _paint_residential,
    Cover.INDUSTRIAL: _paint_industrial,
    Cover.SEA_LAKE: _paint_lake,
}


def _draw(pixels: np.ndarray, mask: np.ndarray, color: tuple[int, ...], weight: float = 1.0) -> None:
    """Lay a colour over the pixels (4, H, W) under a mask."""
    pixels[:, mask] = _mix(pixels[:, mask], color, weight)


def _draw_roads(pixels: np.ndarray, ground: _Ground) -> None:
    """Join each settlement to the two nearest others."""
    size = len(ground.x)
    towns = np.array(PLACES[Cover.RESIDENTIAL])[:, :2] * size
    x, y = ground.x + 18 * ground.bend_x, ground.y + 18 * ground.bend_y
    nearest = cKDTree(towns).query(towns, k=3)[1][:, 1:]  # the first is the town itself
    links = {(min(i, j), max(i, j)) for i in range(len(towns)) for j in nearest[i]}
    for i, j in sorted(links):
        (x0, y0), (dx, dy) = towns[i], towns[j] - towns[i]
        part = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        _draw(pixels, np.hypot(x - x0 - part * dx, y - y0 - part * dy) < 0.7, ASPHALT, 0.8)


def _distance_to_curve(along: np.ndarray, across: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Return the signed distance to the curve across = curve[along], true near it."""
    index = along.astype(int)
    return (across - curve[index]) / np.hypot(1, np.gradient(curve))[index]


def _draw_river(pixels: np.ndarray, truth: np.ndarray, ground: _Ground) -> None:
    size = len(truth)
    t = np.arange(size)
    start = ground.rng.uniform(0, 0.6, 2)
    course = 0.47 * size - 0.06 * t + 70 * np.sin(t / 105 + start[0]) + 25 * np.sin(t / 47 + start[1])
    distance = _distance_to_curve(ground.y, ground.x, course)
    shore = np.abs(distance + ground.mottle) - 12 - 1.5 * ground.patches  # < 0: in the water
    _draw(pixels, (shore > 0) & (shore < 5 + 5 * ground.patches), HEDGE, 0.9)
    _draw(pixels, (np.abs(shore) < 1.3) & (ground.patches > 0.6), GRAVEL, 0.8)
    _draw(pixels, shore < 0, STREAM)
    truth[np.abs(distance) < CORRIDOR] = Cover.RIVER


def _draw_motorway(pixels: np.ndarray, truth: np.ndarray, ground: _Ground) -> None:
    size = len(truth)
    t = np.arange(size)
    course = 0.72 * size - 0.13 * t + 40 * np.sin(t / 230 + ground.rng.uniform(0, 6))
    distance = np.abs(_distance_to_curve(ground.x, ground.y, course))
    exit_x = int(0.72 * size)
    x, y = ground.x - exit_x, ground.y - course[exit_x]
    _draw(pixels, np.hypot(x, y) < 26, CLOVER, 0.7)
    _draw(pixels, distance < 6.5 + 1.5 * ground.mottle, HEDGE, 0.7)  # verge
    _draw(pixels, distance < 3, ASPHALT)
    _draw(pixels, distance < 0.5, GARDEN, 0.5)  # central reservation
    _draw(pixels, (np.abs(x) < 1.2) & (np.abs(y) < 70), ASPHALT, 0.9)  # the road that crosses
    for side_x, side_y in ((-11, -11), (11, -11), (-11, 11), (11, 11)):  # a cloverleaf
        _draw(pixels, np.abs(np.hypot(x - side_x, y - side_y) - 9) < 0.9, ASPHALT, 0.9)
    truth[distance < CORRIDOR] = Cover.HIGHWAY


if __name__ == "__main__":
    write_scene(Path(sys.argv[1]))
