"""A made-up Sentinel-2 scene: a landscape drawn by code, for the demo and for tests.

No imagery ships with the project, so this draws some: a river and a lake, wooded hills, shrubland, pastures,
fields, orchards, a town with its industry and a motorway. Colours are top-of-atmosphere reflectances (L1C) and
textures have the contrast and the grain that the EuroSAT tiles of the same class have, so that a network trained
on those finds its way. Everything follows from the seed.

A plan says which land cover lies where (`_plan`); a painter for each cover colours its pixels; river and
motorway are drawn over that; the instrument blurs it and adds its noise.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from scipy import fft, ndimage
from scipy.spatial import cKDTree

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


# Where what lies: centres of areas, as fractions of the scene's width and height.
PLAN = (
    (0.10, 0.10, Cover.FOREST),
    (0.29, 0.10, Cover.FOREST),
    (0.10, 0.28, Cover.FOREST),
    (0.27, 0.27, Cover.HERBACEOUS_VEGETATION),
    (0.45, 0.12, Cover.HERBACEOUS_VEGETATION),
    (0.10, 0.46, Cover.PASTURE),
    (0.27, 0.47, Cover.PASTURE),
    (0.62, 0.10, Cover.FOREST),
    (0.84, 0.16, Cover.SEA_LAKE),
    (0.43, 0.33, Cover.PASTURE),
    (0.64, 0.31, Cover.RESIDENTIAL),
    (0.64, 0.46, Cover.RESIDENTIAL),
    (0.80, 0.45, Cover.INDUSTRIAL),
    (0.96, 0.38, Cover.PERMANENT_CROP),
    (0.94, 0.54, Cover.PERMANENT_CROP),
    (0.45, 0.55, Cover.PASTURE),
    (0.12, 0.64, Cover.ANNUAL_CROP),
    (0.30, 0.66, Cover.ANNUAL_CROP),
    (0.64, 0.66, Cover.ANNUAL_CROP),
    (0.84, 0.70, Cover.ANNUAL_CROP),
    (0.12, 0.88, Cover.ANNUAL_CROP),
    (0.33, 0.88, Cover.ANNUAL_CROP),
    (0.62, 0.88, Cover.ANNUAL_CROP),
    (0.88, 0.90, Cover.PERMANENT_CROP),
)

# EuroSAT names a tile after the river or the motorway that crosses it, whatever else it shows: so far to each
# side of the middle (in pixels) the land counts as theirs.
CORRIDOR = 42

# Top-of-atmosphere reflectance x 10000 in the order of BANDS.
CROPS = (
    (1180, 1210, 1480, 2250),  # bare soil
    (1300, 1380, 1720, 2500),  # dry soil
    (1450, 1560, 1960, 2800),  # stubble
    (1140, 1120, 1290, 2000),  # moist soil
    (1080, 1020, 1080, 1850),  # ploughed, dark
    (860, 860, 470, 4300),  # winter wheat
    (820, 720, 420, 3700),  # rape, not in flower
    (960, 960, 640, 4100),  # grass ley
    (1020, 1040, 900, 3000),  # ripening
)
ORCHARDS = (
    (1180, 1190, 1330, 2520),
    (1330, 1410, 1660, 2840),
    (1060, 1020, 1040, 2400),
    (960, 880, 740, 2500),
    (1080, 1090, 980, 3100),
    (1500, 1620, 1900, 3100),
)
MEADOWS = ((890, 910, 580, 3700), (910, 890, 630, 3250), (860, 890, 500, 4200), (970, 950, 760, 3000))
ROOFS = ((2300, 2350, 2600, 2900), (3300, 3400, 3600, 3700), (1700, 1650, 1750, 2100), (1350, 1250, 1300, 1600),
         (1200, 1050, 1000, 1200), (1500, 1450, 2000, 2500))  # fmt: skip
SOIL_TRACK = (1500, 1560, 1850, 2600)
HEDGE = (800, 690, 430, 2400)
WOOD = (810, 680, 405, 2800)
SHRUB = (960, 840, 700, 2300)
DRY_GRASS = (1230, 1220, 1270, 2400)
GARDEN = (970, 900, 660, 2900)
STREET = (1240, 1110, 1100, 1500)
TILES = (1500, 1400, 1700, 2200)
YARD = (1330, 1200, 1190, 1550)
ASPHALT = (1330, 1200, 1180, 1500)
LAKE = (800, 540, 300, 180)
WATER = (960, 830, 520, 380)
GRAVEL = (1700, 1750, 1850, 2000)


@dataclass(frozen=True)
class SyntheticScene:
    """`pixels`: (B, H, W) uint16, reflectance x 10000 (L1C, no offset); `truth`: (H, W) uint8, `Cover` ids."""

    pixels: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class _Ground:
    """Pixels to be painted: position in pixels and random fields (mean 0, standard deviation 1), coarse to fine."""

    rng: np.random.Generator
    x: np.ndarray
    y: np.ndarray
    relief: np.ndarray  # hills
    shade: np.ndarray  # how much their slopes face the sun
    patches: np.ndarray  # some 300 m
    mottle: np.ndarray  # some 60 m
    grain: np.ndarray  # some 15 m
    speckle: np.ndarray  # uncorrelated

    def at(self, mask: np.ndarray) -> "_Ground":
        """Return the pixels under a mask, as a row."""
        fields = {k: v[mask] for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return replace(self, **fields)


@dataclass(frozen=True)
class _Parcels:
    """Where each pixel lies in a mosaic of parcels; lengths in pixels."""

    number: np.ndarray  # of the parcel, 0..4095
    across: np.ndarray  # from the parcel's long side
    along: np.ndarray  # from its short side
    edge: np.ndarray  # distance to the nearest side
    border: np.ndarray  # distance to the edge of the block of parallel parcels
    table: np.ndarray

    def random(self, k: int) -> np.ndarray:
        """Return the k-th random number in [0, 1) of each pixel's parcel."""
        return self.table[k, self.number]

    def pick(self, palette: tuple[tuple[int, ...], ...], k: int = 0) -> np.ndarray:
        """Return a colour of the palette for each pixel's parcel: (4, n)."""
        index = (self.random(k) * len(palette)).astype(int)
        return np.array(palette, np.float32)[index].T


def make_scene(size: int = 1600, seed: int = 7, bands: tuple[str, ...] = BANDS) -> SyntheticScene:
    """Draw a scene of `size` x `size` pixels of 10 m; `bands` are any of `BANDS`, in any order."""
    rng = np.random.default_rng(seed)
    ground = _make_ground(size, rng)
    truth = _plan(ground, size)
    pixels = np.zeros((len(BANDS), size, size), np.float32)
    for cover, paint in _PAINTERS.items():
        mask = truth == cover
        if mask.any():
            pixels[:, mask] = paint(ground.at(mask))
    _draw_river(pixels, truth, ground)
    _draw_highway(pixels, truth, ground)
    haze = _noise(rng, truth.shape, scale=size / 3, roughness=1.5)
    pixels += _color((45, 28, 18, 5))[..., None] * haze
    pixels = ndimage.gaussian_filter(pixels, (0, 0.55, 0.55))
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
    scene = make_scene(size, seed)
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
        dataset.write(scene.pixels)
        dataset.descriptions = BANDS
        dataset.update_tags(PRODUCT_LEVEL="Level-1C", PROCESSING_LEVEL="Level-1C", SYNTHETIC=f"seed {seed}")
    return path


def _make_ground(size: int, rng: np.random.Generator) -> _Ground:
    y, x = np.indices((size, size), np.float32)
    relief = _noise(rng, x.shape, scale=120, roughness=2.2)
    slope_y, slope_x = np.gradient(ndimage.gaussian_filter(relief, 1))
    shade = -(slope_x + slope_y)  # the sun stands in the south-east
    return _Ground(
        rng=rng,
        x=x,
        y=y,
        relief=relief,
        shade=shade / shade.std(),
        patches=_noise(rng, x.shape, scale=30),
        mottle=_noise(rng, x.shape, scale=6),
        grain=_noise(rng, x.shape, scale=1.2),
        speckle=rng.standard_normal(x.shape, np.float32),
    )


def _noise(
    rng: np.random.Generator, shape: tuple[int, ...], scale: float, roughness: float = 1.0
) -> np.ndarray:
    """Return a random field with a Matern spectrum: correlated over `scale` pixels, smoother as `roughness` grows."""
    rows, cols = (fft.next_fast_len(n, real=True) for n in shape)
    spectrum = fft.rfft2(rng.standard_normal((rows, cols), np.float32))
    frequency = np.hypot(fft.fftfreq(rows)[:, None], fft.rfftfreq(cols)[None]).astype(np.float32)
    spectrum *= (1 + (2 * np.pi * scale * frequency) ** 2) ** (-(roughness + 1) / 2)
    field = fft.irfft2(spectrum, (rows, cols))[: shape[0], : shape[1]]
    return (field - field.mean()) / field.std()


def _plan(ground: _Ground, size: int) -> np.ndarray:
    """Return the land cover: each pixel takes that of the nearest centre, with distances bent by noise."""
    places = np.array([place[:2] for place in PLAN]) + ground.rng.normal(0, 0.008, (len(PLAN), 2))
    covers = np.array([place[2] for place in PLAN], np.uint8)
    bend = 0.018 * size
    position = np.stack(
        [ground.x + bend * ground.relief, ground.y + bend * ground.relief[::-1, ::-1]], axis=-1
    )
    nearest = cKDTree(places * size).query(position)[1]
    return covers[nearest]


def _parcels(ground: _Ground, block: float, width: float, length: float, bend: float = 4) -> _Parcels:
    """Divide the ground into blocks some `block` pixels wide, each into parcels of about width x length."""
    rng = ground.rng
    x, y = ground.x + bend * ground.patches, ground.y - bend * ground.patches
    corners = np.mgrid[x.min() : x.max() + block : block, y.min() : y.max() + block : block].reshape(2, -1).T
    centres = corners + rng.uniform(-0.4, 0.4, corners.shape) * block
    distance, nearest = cKDTree(centres).query(np.stack([x, y], axis=-1), k=2)
    home = nearest[:, 0]
    angle = rng.uniform(0, np.pi, len(centres)).astype(np.float32)[home]
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    u = u + 0.3 * width * np.sin(1.7 * u / width)  # parcels of unequal width
    column, across = np.divmod(u, width)
    v = v + rng.uniform(0, length, 4096)[(column.astype(int) * 37) % 4096]
    row, along = np.divmod(v, length)
    edge = np.minimum(np.minimum(across, width - across), np.minimum(along, length - along))
    border = (distance[:, 1] - distance[:, 0]) / 2
    number = (home * 7919 + column.astype(int) * 2903 + row.astype(int) * 4057) % 4096
    return _Parcels(number, across, along, np.minimum(edge, border), border, rng.random((4, 4096), np.float32))


def _color(color: tuple[int, ...]) -> np.ndarray:
    return np.array(color, np.float32)[:, None]


def _mix(below: np.ndarray, color: tuple[int, ...], weight: np.ndarray) -> np.ndarray:
    """Lay a colour over a picture (4, n), with a weight per pixel from 0 (unseen) to 1 (opaque)."""
    return below + (_color(color) - below) * np.clip(weight, 0, 1).astype(np.float32)


def _paint_forest(ground: _Ground) -> np.ndarray:
    crowns = 0.05 * ground.grain + 0.02 * ground.mottle + 0.03 * ground.shade
    kind = np.clip(0.5 + 0.5 * ground.patches, 0, 1)  # from spruce to beech
    picture = _mix(_color((800, 630, 380, 2100)), (830, 740, 420, 3500), kind)
    clearing = (ground.patches < -2.3) & (ground.mottle > 0)
    return _mix(picture * (1 + crowns), DRY_GRASS, 0.6 * clearing)


def _paint_herbaceous(ground: _Ground) -> np.ndarray:
    gullies = np.exp(-((ground.mottle / 0.25) ** 2))
    picture = _mix(_color(DRY_GRASS), SHRUB, 0.5 + 0.4 * ground.patches + 0.25 * ground.mottle)
    picture = picture * (1 + 0.06 * ground.shade + 0.04 * ground.grain)
    return _mix(picture, HEDGE, 0.45 * gullies * (ground.grain > 0))


def _paint_pasture(ground: _Ground) -> np.ndarray:
    parcels = _parcels(ground, block=90, width=30, length=42, bend=7)
    picture = parcels.pick(MEADOWS) * (1 + 0.02 * ground.mottle + 0.015 * ground.grain)
    hedge = (parcels.edge < 1.0) & (parcels.random(1) > 0.25) | (ground.mottle > 2.6)
    return _mix(picture, HEDGE, 0.8 * hedge)


def _paint_annual_crop(ground: _Ground) -> np.ndarray:
    parcels = _parcels(ground, block=130, width=26, length=85, bend=3)
    soil = 0.025 * ground.patches + 0.015 * ground.mottle + 0.01 * ground.grain
    tramlines = 0.025 * np.sin(2 * np.pi * parcels.across / 3.4) * (parcels.random(1) > 0.5)
    picture = parcels.pick(CROPS) * (1 + 0.12 * (parcels.random(2) - 0.5) + soil + tramlines)
    return _mix(picture, SOIL_TRACK, 0.7 * (parcels.border < 0.7))


def _paint_permanent_crop(ground: _Ground) -> np.ndarray:
    parcels = _parcels(ground, block=60, width=11, length=17, bend=3)
    rows = 0.05 * np.sin(2 * np.pi * parcels.across / 2.7)
    picture = parcels.pick(ORCHARDS) * (1 + rows + 0.05 * ground.grain + 0.03 * ground.mottle)
    picture = _mix(picture, HEDGE, 0.5 * (parcels.edge < 0.6))
    return _mix(picture, SOIL_TRACK, 0.8 * (parcels.border < 0.7))


def _paint_residential(ground: _Ground) -> np.ndarray:
    parcels = _parcels(ground, block=45, width=8, length=22, bend=3)
    picture = _mix(_color(GARDEN), YARD, 0.35 + 0.3 * ground.mottle + 0.1 * ground.patches)
    picture = picture * (1 + 0.08 * ground.grain)
    houses = (ground.speckle > 0.4) & (parcels.edge > 1)
    picture = _mix(picture, TILES, houses * (0.45 + 0.35 * ground.speckle))
    return _mix(picture, STREET, 0.8 * (parcels.edge < 0.7))


def _paint_industrial(ground: _Ground) -> np.ndarray:
    parcels = _parcels(ground, block=60, width=9, length=14, bend=0)
    picture = _mix(_color(YARD), GARDEN, 0.3 + 0.5 * ground.mottle) * (1 + 0.1 * ground.grain)
    built = parcels.random(1) > 0.25
    roofs = built & (parcels.edge > 1.3)
    picture = picture * np.where(built & (parcels.edge > 0.4) & (parcels.across < 2), 0.75, 1)  # shadows
    return np.where(roofs, parcels.pick(ROOFS) * (1 + 0.04 * ground.speckle), picture)


def _paint_lake(ground: _Ground) -> np.ndarray:
    return _color(LAKE) * (1 + 0.03 * ground.relief + 0.004 * ground.mottle)


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


def _distance_to_curve(along: np.ndarray, across: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Return the signed distance to a curve across = curve[along], exact near it where it is not too steep."""
    slope = np.gradient(curve)
    i = along.astype(int)
    return (across - curve[i]) / np.hypot(1, slope[i])


def _draw_river(pixels: np.ndarray, truth: np.ndarray, ground: _Ground) -> None:
    size = len(truth)
    t = np.arange(size)
    phase = ground.rng.uniform(0, 0.6, 2)
    curve = 0.47 * size - 0.06 * t + 60 * np.sin(t / 105 + phase[0]) + 25 * np.sin(t / 47 + phase[1])
    distance = _distance_to_curve(ground.y, ground.x, curve)
    shore = np.abs(distance + 2 * ground.mottle) - 11 - 1.5 * ground.patches
    wood = (shore > 0) & (shore < 6 + 4 * ground.patches)
    near = ground.at(wood)
    pixels[:, wood] = _color(WOOD) * (1 + 0.08 * near.grain)
    bar = np.abs(shore) < 1.0
    pixels[:, bar] = _mix(pixels[:, bar], GRAVEL, 0.6 * (ground.patches[bar] > 0.3))
    water = shore < 0
    pixels[:, water] = _color(WATER) * (1 + 0.01 * ground.at(water).mottle)
    truth[np.abs(distance) < CORRIDOR] = Cover.RIVER


def _draw_highway(pixels: np.ndarray, truth: np.ndarray, ground: _Ground) -> None:
    size = len(truth)
    t = np.arange(size)
    curve = 0.72 * size - 0.14 * t + 40 * np.sin(t / 230 + ground.rng.uniform(0, 6))
    distance = _distance_to_curve(ground.x, ground.y, curve)
    away = np.abs(distance)
    for limit, color, weight in ((6, HEDGE, 0.6), (3.4, ASPHALT, 0.9), (0.6, GARDEN, 0.8)):
        band = away < limit
        pixels[:, band] = _mix(pixels[:, band], color, np.full(band.sum(), weight))
    truth[away < CORRIDOR] = Cover.HIGHWAY
