"""Files of one cloud or mesh each, as training and prediction read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coc_core.errors import UserError
from pointcloud.transforms import normalized

# As many as ScanObjectNN's files have of each cloud.
STORED_POINTS = 2048
SUFFIXES = ('.ply', '.xyz', '.npy', '.off')

# More values of a point than any of the formats has.
_COLUMNS = 16


def read_points(path: Path, least: int, most: int, seed: int) -> NDArray[np.float64]:
    """Return points of a file as they are, float64 [P, 3], in random order: scanners write neighbors one after another.

    Of a mesh, ``most`` points are drawn from its surface. Of a cloud, all points are taken up to ``most`` of them, and
    where it has fewer than ``least``, some again.

    Args:
        path: The file.
        least: The lowest P.
        most: The highest P.
        seed: Which points, and which order.

    Raises:
        UserError: The file cannot be read, has no points, or coordinates that are no numbers.
    """
    rng = np.random.default_rng(seed)
    points, faces = _content(path)
    if not np.isfinite(points).all():
        raise UserError(f'The point file {path} has coordinates that are no numbers: mend or remove it.')
    if len(faces):
        import trimesh

        mesh = trimesh.Trimesh(points, faces, process=False)
        points = trimesh.sample.sample_surface(mesh, most, seed=seed)[0]
    else:
        places = rng.permutation(len(points))
        points = points[np.resize(places, np.clip(len(points), least, most))]
    return rng.permutation(points)


def read_cloud(path: Path, num_points: int, seed: int) -> NDArray[np.float32]:
    """Return a file's cloud, float32 [num_points, 3], centered at the origin and with its farthest point at 1.

    Args:
        path: The file.
        num_points: How many: see `read_points`.
        seed: Which points.

    Raises:
        UserError: The file cannot be read, has no points, coordinates that are no numbers, or points that are all one.
    """
    points = read_points(path, num_points, num_points, seed)
    if np.ptp(points, axis=0).max() == 0:
        raise UserError(f'The point file {path} shows no shape: all its points are the same. Remove it.')
    return normalized(points)


def point_count(path: Path) -> int | None:
    """Return the number of points of a file; None of a mesh, which has as many as one wants.

    Raises:
        UserError: The file cannot be read, or has no points.
    """
    points, faces = _content(path)
    return None if len(faces) else len(points)


def _content(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the points, float64 [P, 3], and the triangles, [F, 3], of a file."""
    try:
        faces = np.empty((0, 3), int)
        if path.suffix.lower() == '.npy':
            points = np.load(path, allow_pickle=False)
        elif path.suffix.lower() in ('.xyz', '.txt'):
            # What stands behind x, y and z are normals or colors.
            points = np.loadtxt(path, usecols=(0, 1, 2), ndmin=2)
        else:
            points, faces = _loaded(path)
    except UserError:
        raise
    # The readers fail in ways of their own.
    except Exception as error:
        raise UserError(f'The point file {path} cannot be read ({error}): mend or remove it.') from error
    # One that lies on its side, [3, points], would be read as three points.
    if points.ndim != 2 or points.shape[0] == 0 or points.shape[1] < 3 or points.shape[1] > max(len(points), _COLUMNS):
        raise UserError(f'The point file {path} has an array of shape {points.shape}: [points, 3] is needed.')
    return points[:, :3].astype(np.float64), faces


def _loaded(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        import trimesh
    except ModuleNotFoundError as error:
        raise UserError(f'Reading {path} needs trimesh: run `make setup`, or `pip install trimesh`.') from error
    loaded = trimesh.load(path, process=False)
    # A scene of several meshes is one shape.
    shape = loaded.to_mesh() if isinstance(loaded, trimesh.Scene) else loaded
    return np.asarray(shape.vertices), np.asarray(getattr(shape, 'faces', np.empty((0, 3), int)))


def write_clouds(files: Sequence[Path], labels: Sequence[int], num_points: int, path: Path) -> None:
    """Write clouds and their labels into an HDF5 file as ``PointCloudFile`` reads it; tell which have few points.

    Raises:
        UserError: One of the files cannot be read, or shows no shape.
    """
    import h5py

    small: list[tuple[int, Path]] = []
    with h5py.File(path, 'w') as file:
        data = file.create_dataset('data', (len(files), num_points, 3), np.float32)
        for place, source in enumerate(files):
            data[place] = cloud = read_cloud(source, num_points, seed=place)
            distinct = len(np.unique(cloud, axis=0))
            small += [(distinct, source)] if distinct < num_points else []
        file['label'] = np.asarray(labels, np.int64)
    if small:
        least, source = min(small)
        print(
            f'note: {len(small)} of {len(files)} clouds have fewer than {num_points} different points, which are taken '
            f'again: {source} has {least}'
        )
