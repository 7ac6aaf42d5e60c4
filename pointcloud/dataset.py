"""ScanObjectNN (Uy et al., 2019): clouds of scanned objects in HDF5 files."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmengine.dataset import BaseDataset
from numpy.typing import NDArray

from coc_core.errors import UserError
from coc_core.mm.data_checks.inspection import Inspection, Sample
from coc_core.mm.data_checks.problems import Problem
from pointcloud.registry import DATASETS

FILES = {
    'OBJ_ONLY': ('main_split_nobg', ''),
    'OBJ_BG': ('main_split', ''),
    'PB_T25': ('main_split', '_augmented25_norot'),
    'PB_T25_R': ('main_split', '_augmented25rot'),
    'PB_T50_R': ('main_split', '_augmentedrot'),
    'PB_T50_RS': ('main_split', '_augmentedrot_scale75'),
}
"""Folder and ending of the file names of each variant."""

PARTS = ('training', 'test')

COUNTS = {'PB_T50_RS': {'training': 11416, 'test': 2882}}
"""Clouds in the published files, where they are known to us."""

_FILE_DEFAULTS = {'data_root': '', 'part': '', 'variant': 'PB_T50_RS', 'folder': None}


@DATASETS.register_module()
class ScanObjectNN(BaseDataset):
    """Clouds with ``points`` (float32 [N, 3]) and ``gt_label`` for the pipeline.

    Args:
        data_root: Folder that holds ``main_split`` and ``main_split_nobg``.
        part: ``'training'`` or ``'test'``.
        variant: ``'OBJ_ONLY'``, ``'OBJ_BG'``, ``'PB_T25'``, ``'PB_T25_R'``, ``'PB_T50_R'`` or ``'PB_T50_RS'``.
        folder: Another folder below ``data_root`` than the variant's: ``'main_split_nobg'`` has the perturbed variants
            without background.
        validation: ``dict(keep='train' or 'val', fraction=0.1, seed=0)`` keeps one side of a stratified split.
        pipeline: Transforms.
        metainfo: ``classes`` where they are not ScanObjectNN's.
        test_mode: See mmengine's `BaseDataset`.
        lazy_init: See mmengine's `BaseDataset`.

    Raises:
        UserError: The file is missing, cannot be read, or holds something else.
        UserError: An argument is unknown or impossible.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(
        dataset_type='ScanObjectNN',
        classes=(
            'bag', 'bin', 'box', 'cabinet', 'chair', 'desk', 'display', 'door', 'shelf', 'table', 'bed', 'pillow',
            'sink', 'sofa', 'toilet',
        ),
    )  # fmt: skip

    def __init__(
        self,
        data_root: str,
        part: str,
        *,
        variant: str = 'PB_T50_RS',
        folder: str | None = None,
        validation: Mapping[str, Any] | None = None,
        pipeline: Sequence[Any] = (),
        metainfo: Mapping[str, Any] | None = None,
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.path = file_of(data_root, part, variant, folder)
        self.validation = dict(validation) if validation else None
        if self.validation and self.validation.get('keep') not in ('train', 'val'):
            raise UserError(f"validation={self.validation} must have keep='train' or keep='val'.")
        super().__init__(
            data_root=data_root,
            metainfo=metainfo,
            # The clouds lie in one array; what is left is a number for each.
            serialize_data=False,
            pipeline=list(pipeline),
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the file: one dict with the label and the place in the file for each cloud."""
        content = read(self.path)
        if isinstance(content, Problem):
            raise UserError(str(content))
        self.points, labels = content
        problems = content_problems(self.path, self.points, labels, len(self.metainfo['classes']))
        if problems:
            raise UserError(str(problems[0]))
        # The workers share this array, and every epoch reads it.
        self.points.flags.writeable = False
        kept = np.arange(len(labels))
        if self.validation:
            kept = split(labels, **self.validation)
        return [{'gt_label': int(labels[i]), 'place': int(i), 'sample': f'{self.path}, cloud {i}'} for i in kept]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return the sample's dict with its points, which may not be written to."""
        info: dict[str, Any] = super().get_data_info(idx)
        info['points'] = self.points[info['place']]
        return info

    @classmethod
    def inspect(cls, inspection: Inspection, arguments: Mapping[str, Any]) -> None:
        """Add the checks of the file that a config's data set names (see `coc_core.mm.data_checks`)."""
        classes = (arguments.get('metainfo') or {}).get('classes') or cls.METAINFO['classes']
        try:
            path = file_of(*(arguments.get(key, default) for key, default in _FILE_DEFAULTS.items()))
        except ValueError as error:
            inspection.problems.append(Problem(inspection.name, f'cannot be found: {str(error).rstrip(".")}'))
            return
        content = read(path)
        if isinstance(content, Problem):
            inspection.problems.append(content)
            return
        points, labels = content
        inspection.problems.extend(content_problems(path, points, labels, len(classes)))
        taken = max((step.get('num_points', 0) for step in arguments.get('pipeline', ())), default=0)
        if taken > points.shape[1]:
            what = f'holds clouds of {points.shape[1]} points, but the pipeline takes {taken}: lower its num_points'
            inspection.problems.append(Problem(str(path), what))
        if classes == cls.METAINFO['classes']:
            # Only tools/dataset_converters/check_data.py asks this: part of the data serves to try things out.
            inspection.samples.append(partial(open_whole, path, len(points), arguments))
        present = len(np.unique(labels))
        inspection.summary = f'{len(points)} clouds of {points.shape[1]} points, {present} of {len(classes)} classes'


def file_of(data_root: str, part: str, variant: str, folder: str | None) -> Path:
    """Return the file of a variant.

    Raises:
        UserError: There is no such variant or part.
    """
    if variant not in FILES:
        raise UserError(f'variant={variant!r} is unknown: choose one of {", ".join(FILES)}.')
    if part not in PARTS:
        raise UserError(f'part={part!r} is unknown: choose one of {", ".join(PARTS)}.')
    own_folder, ending = FILES[variant]
    return Path(osp.expanduser(data_root)) / (folder or own_folder) / f'{part}_objectdataset{ending}.h5'


def read(path: Path) -> tuple[NDArray[Any], NDArray[Any]] | Problem:
    """Read a file of the layout: points float32 [N, P, 3] and labels int64 [N], or what prevents it."""
    import h5py

    if not path.is_file():
        return Problem(str(path), 'does not exist: see docs/point-clouds.md on where the data is to be had')
    try:
        with h5py.File(path, 'r') as file:
            missing = [key for key in ('data', 'label') if key not in file]
            if missing:
                return Problem(str(path), f'has no {missing[0]!r}: it has {", ".join(map(repr, file)) or "nothing"}')
            points, labels = file['data'][()], file['label'][()]
    except OSError as error:
        return Problem(str(path), f'is not a complete HDF5 file ({error})')
    if points.ndim != 3 or points.shape[-1] != 3 or not np.issubdtype(points.dtype, np.floating):
        return Problem(str(path), f"has 'data' of shape {points.shape} and type {points.dtype}, not floating [N, P, 3]")
    if labels.shape != points.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        return Problem(
            str(path),
            f"has 'label' of shape {labels.shape} and type {labels.dtype}, not a whole number for each of the "
            f'{len(points)} clouds',
        )
    return points.astype(np.float32, copy=False), labels.astype(np.int64)


def content_problems(path: Path, points: NDArray[Any], labels: NDArray[Any], classes: int) -> list[Problem]:
    """Return the labels that stand for no class, and the clouds whose coordinates are no numbers."""
    if not len(points):
        return [Problem(str(path), 'holds no clouds')]
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    problems = [
        Problem(f'{path}, cloud {i},', f'has the label {labels[i]}, but there are {classes} classes, from 0')
        for i in wrong
    ]
    broken = np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)))
    for i in broken:
        point = int(np.flatnonzero(~np.isfinite(points[i]).all(axis=1))[0])
        what = f'has coordinates that are no numbers: point {point} is {points[i, point].tolist()}'
        problems.append(Problem(f'{path}, cloud {i},', what))
    return problems


def open_whole(path: Path, found: int, arguments: Mapping[str, Any]) -> Sample:
    """Tell whether a file of ScanObjectNN is the published one, by its number of clouds."""
    variant = arguments.get('variant', _FILE_DEFAULTS['variant'])
    expected = COUNTS.get(variant, {}).get(arguments['part'], found)
    if found == expected:
        return Sample([])
    what = f'has {found:,} clouds, but the published file of {variant} has {expected:,}'
    return Sample([Problem(str(path), what)])


def split(labels: NDArray[Any], keep: str, fraction: float = 0.1, seed: int = 0) -> NDArray[Any]:
    """Return the indices of one side of a stratified split, in order; ``fraction`` is the validation side's share.

    Raises:
        UserError: The share leaves a class without a sample on a side.
    """
    from sklearn.model_selection import train_test_split

    train, val = train_test_split(np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed)
    return np.sort(train if keep == 'train' else val)
