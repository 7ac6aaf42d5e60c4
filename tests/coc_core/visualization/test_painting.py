"""Constructed clusters, painted and compared pixel by pixel; the same in SVG."""

import itertools
from xml.etree import ElementTree

import numpy as np
import pytest

from coc_core.visualization import LayerClusters
from coc_core.visualization.painting import enlarge, highlight, overlay, palette, similarity_map
from coc_core.visualization.sheets import contact_sheet, paint, single_panel, to_svg

# Rows of a map of 3x4 points: two regions along each side of a map padded to 4x4, two centers in each... of four.
ASSIGNMENT = np.array([[0, 1, 0, 0], [0, 0, 3, 3], [2, 2, 1, 0]])
STRIDE = 4
SIZE = (11, 16)


def clusters(assignment=ASSIGNMENT, heads=1, **changes):
    fields = dict(
        stage=2, block=1, stride=STRIDE, image_size=SIZE, map_size=(4, 4), region_grid=2, center_grid=2, alpha=1.5,
        beta=-0.5, assignment=np.stack([assignment] * heads, axis=-1),
    )  # fmt: skip
    return LayerClusters(**{**fields, **changes})


def expected_overlay(image, alpha, factor=1):
    """Pixel by pixel, from the definition."""
    height, width = SIZE[0] * factor, SIZE[1] * factor
    side = STRIDE * factor
    ids = np.array([[(y // side, x // side) for x in range(width)] for y in range(height)])
    center = ASSIGNMENT[ids[..., 0], ids[..., 1]]
    region = ids[..., 0] // 2 * 2 + ids[..., 1] // 2
    painted = image * (1 - alpha) + palette(4)[center] * alpha
    cluster = region * 4 + center
    for y, x in itertools.product(range(height), range(width)):
        after = [(y + 1, x)] * (y + 1 < height) + [(y, x + 1)] * (x + 1 < width)
        if any(cluster[y, x] != cluster[place] for place in after):
            painted[y, x] *= 0.4
        if any(region[y, x] != region[place] for place in after):
            painted[y, x] = 255
    return painted


@pytest.mark.parametrize('factor', [1, 3])
@pytest.mark.parametrize('alpha', [0.0, 0.6, 1.0])
def test_an_overlay_is_the_definition_in_every_pixel(alpha, factor):
    """The last row of points is cut by the image's end, the map's last row is padding and not seen."""
    image = np.random.default_rng(0).integers(0, 256, (SIZE[0] * factor, SIZE[1] * factor, 3), dtype=np.uint8)
    found = overlay(image, clusters(), 0, alpha=alpha)
    assert found.dtype == np.uint8
    assert np.abs(found - expected_overlay(image, alpha, factor)).max() <= 1


def test_without_colors_and_borders_the_image_stays_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    assert np.array_equal(overlay(image, clusters(), 0, alpha=0, borders=False), image)


@pytest.mark.parametrize(
    ('region_grid', 'center_grid', 'map_size'), [(1, 7, (14, 9)), (8, 2, (16, 24)), (7, 4, (28, 28))]
)
def test_every_region_and_center_grid_is_drawn(region_grid, center_grid, map_size):
    """Each point has a random center; region borders are where regions end, and colors tell all centers apart."""
    assignment = np.random.default_rng(1).integers(0, center_grid**2, map_size)
    size = (map_size[0] * 8, map_size[1] * 8)
    layer = clusters(
        assignment, stride=8, image_size=size, map_size=map_size, region_grid=region_grid, center_grid=center_grid
    )
    found = overlay(np.zeros((*size, 3), np.uint8), layer, 0, alpha=1.0)
    # The middles of the points are free of borders.
    assert np.array_equal(found[4::8, 4::8], palette(center_grid**2)[assignment])
    white = (found == 255).all(axis=-1)
    rows = {y for y in range(size[0]) if white[y].all()}
    height = size[0] // region_grid
    assert rows == {height * i - 1 for i in range(1, region_grid)}


# Machado et al. 2009, severity 1, on linear RGB.
SIGHTS = {
    'protanopia': [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    'deuteranopia': [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    'tritanopia': [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize('sight', SIGHTS)
def test_colors_of_four_centers_can_be_told_apart_by_every_sight(sight):
    """Distances in CIELAB; about 2 can just be seen side by side."""
    linear = (palette(4) / 255) ** 2.2 @ np.array(SIGHTS[sight]).T
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.clip(linear, 0, 1) @ to_xyz.T / np.array([0.9505, 1, 1.089])
    f = np.cbrt(xyz)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)) > 25


def test_a_center_keeps_its_color_whatever_the_number_of_centers():
    many = palette(49)
    assert len({tuple(color) for color in many}) == 49
    assert np.array_equal(palette(4), many[:4])


def test_a_highlighted_cluster_keeps_its_pixels_and_the_rest_is_dark():
    image = np.full((44, 64, 3), 200, np.uint8)
    found = highlight(image, clusters(), 0, cluster=7)
    # Region 1 (upper right), center 3: the points in row 1, columns 2 and 3.
    assert (found[17:29, 33:60] == 200).all()
    assert (found[:14] == 70).all() and (found[34:] == 70).all()


def test_a_similarity_map_is_brighter_where_points_are_more_alike():
    image = np.full((*SIZE, 3), 100, np.uint8)
    similarity = np.full((3, 4), np.nan)
    similarity[:2, :2] = [[-1, -0.3], [0.4, 1]]
    found = similarity_map(image, clusters(), similarity).astype(int)[2::4, 2::4].sum(axis=-1)
    assert found[0, 0] < found[0, 1] < found[1, 0] < found[1, 1]
    assert (found[:, 2:] == 105).all()


def test_small_images_are_enlarged_by_a_whole_factor():
    assert enlarge(np.zeros((64, 100, 3), np.uint8), 200).shape == (256, 400, 3)
    assert enlarge(np.zeros((300, 400, 3), np.uint8), 200).shape == (300, 400, 3)


def test_a_contact_sheet_has_each_layer_and_head_once():
    layers = [clusters(heads=2, stage=0), clusters(heads=3)]
    image = np.full((*SIZE, 3), 128, np.uint8)
    sheet = contact_sheet([image], [layers], title='predicted: 3')
    heads = [(panel.clusters.stage, panel.head) for panel in sheet.panels if panel.clusters is not None]
    assert heads == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]
    assert {'predicted: 3', 'head 2', 'stage 0', 'stage 2', 'block 1', '2x2 regions'} <= {
        t.content for t in sheet.texts
    }
    page = paint(sheet)
    assert page.shape == (sheet.height, sheet.width, 3)
    for panel in sheet.panels:
        assert panel.top + panel.size[0] < sheet.height and panel.left + panel.size[1] < sheet.width
        part = page[panel.top : panel.top + panel.size[0], panel.left : panel.left + panel.size[1]]
        assert (part == 128).all() == (panel.clusters is None)
    overlapping = [
        (a, b) for a, b in itertools.combinations(sheet.panels, 2)
        if abs(a.left - b.left) < a.size[1] and abs(a.top - b.top) < a.size[0]
    ]  # fmt: skip
    assert not overlapping


def test_images_of_different_aspect_share_a_sheet():
    square = clusters(np.zeros((4, 4), int), image_size=(16, 16))
    images = [np.zeros((*SIZE, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)]
    sheet = contact_sheet(images, [[clusters()], [square]])
    assert {panel.size for panel in sheet.panels} == {(112, 163), (112, 112)}
    assert paint(sheet).shape == (sheet.height, sheet.width, 3)


def test_svg_has_the_areas_of_the_clusters():
    root = ElementTree.fromstring(to_svg(single_panel(np.zeros((*SIZE, 3), np.uint8), clusters(), 0, alpha=0.5)))
    space = '{http://www.w3.org/2000/svg}'
    assert root.attrib['viewBox'] == '0 0 16 11'
    filled = {p.attrib['fill']: p.attrib['d'] for p in root.iter(f'{space}path') if p.attrib['fill'] != 'none'}
    names = ['#' + ''.join(f'{c:02x}' for c in color) for color in palette(4).tolist()]
    assert set(filled) == set(names)
    for center, name in enumerate(names):
        runs = [part.split('h')[1].split('v')[0] for part in filled[name].split('M')[1:]]
        assert sum(map(int, runs)) == STRIDE * np.count_nonzero(center == ASSIGNMENT)


def test_impossible_wishes_are_told():
    image = np.zeros((*SIZE, 3), np.uint8)
    with pytest.raises(ValueError, match='head 1 does not exist: stage 2, block 1 has the heads 0 to 0'):
        overlay(image, clusters(), 1)
    with pytest.raises(ValueError, match=r'alpha 1.5 must be between 0'):
        overlay(image, clusters(), 0, alpha=1.5)
    with pytest.raises(ValueError, match='at least one color'):
        palette(0)
