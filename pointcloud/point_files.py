"""Files of one cloud or mesh each, made what the models take: as many points each, centered, of radius 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coc_core.errors import UserError

SUFFIXES = ('.ply', '.xyz', '.npy', '.off')


def read_cloud(path: Path, num_points: int, seed: int) -> NDArray[np.float32]:
    """Return a file's cloud, float32 [num_points, 3], centered at the origin and with its farthest point at 1.

    Of a mesh, points are drawn from its surface; of a cloud, as many of its points as are asked for, and where it has
    fewer, all of them and some again. Their order is random, so that the first ones show the whole shape.

    Args:
        path: The file.
        num_points: How many.
        seed: Which points.

    Raises:
        UserError: The file cannot be read, has no points, coordinates that are no numbers, or points that are all one.
    """
    rng = np.random.default_rng(seed)
    points, faces = _content(path)
    if not np.isfinite(points).all():
        raise UserError(f'The point file {path} has coordinates that are no numbers: mend or remove it.')
    if len(faces):
        import trimesh

        mesh = trimesh.Trimesh(points, faces, process=False)
        points = trimesh.sample.sample_surface(mesh, num_points, seed=seed)[0]
    else:
        places = rng.permutation(len(points))
        points = points[np.resize(places, num_points)]
    points = rng.permutation(points)
    points = points - (points.max(axis=0) + points.min(axis=0)) / 2
    radius = np.linalg.norm(points, axis=1).max()
    if radius == 0:
        raise UserError(f'The point file {path} shows no shape: all its points are the same. Remove it.')
    cloud: NDArray[np.float32] = (points / radius).astype(np.float32)
    return cloud


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
        if path.suffix.lower() == '.npy':
            points, faces = np.load(path, allow_pickle=False), np.empty((0, 3), int)
        else:
            points, faces = _loaded(path)
    except UserError:
        raise
    # trimesh's readers fail in ways of their own.
    except Exception as error:
        raise UserError(f'The point file {path} cannot be read ({error}): mend or remove it.') from error
    if points.ndim != 2 or points.shape[0] == 0 or points.shape[1] < 3:
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
    """Write clouds and their labels into an HDF5 file as ``PointCloudFile`` reads it.

    Raises:
        UserError: One of the files cannot be read, or shows no shape.
    """
    import h5py

    with h5py.File(path, 'w') as file:
        data = file.create_dataset('data', (len(files), num_points, 3), np.float32)
        for place, source in enumerate(files):
            data[place] = read_cloud(source, num_points, seed=place)
        file['label'] = np.asarray(labels, np.int64)
