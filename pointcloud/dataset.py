"""Clouds in HDF5 files: one's own, and ScanObjectNN (Uy et al., 2019), scanned objects."""

from __future__ import annotations

import os.path as osp
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmengine.dataset import BaseDataset
from numpy.typing import NDArray

from coc_core.errors import UserError
from coc_core.mm.data_checks.inspection import Inspection, Sample, class_names
from coc_core.mm.data_checks.problems import Problem
from pointcloud.clouds import content_problems, digest, filling_problems, order_problems, place_problems, split
from pointcloud.config_checks import normalizes, points_taken
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
class PointCloudFile(BaseDataset):
    """Clouds of an HDF5 file with ``points`` (float32 [N, 3]) and ``gt_label`` for the pipeline.

    Args:
        ann_file: The file: ``data``, floating [N, P, 3], and ``label``, whole numbers [N].
        data_root: The folder that it is in.
        validation: ``dict(keep='train' or 'val', fraction=0.1, seed=0)`` keeps one side of a stratified split.
        pipeline: Transforms.
        metainfo: ``classes`` in the order of the labels.
        test_mode: See mmengine's `BaseDataset`.
        lazy_init: See mmengine's `BaseDataset`.

    Raises:
        UserError: The file is missing, cannot be read, or holds something else.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(classes=())

    def __init__(
        self,
        ann_file: str,
        *,
        data_root: str = '',
        validation: Mapping[str, Any] | None = None,
        pipeline: Sequence[Any] = (),
        metainfo: Mapping[str, Any] | None = None,
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.path = Path(osp.expanduser(osp.join(data_root, ann_file)))
        self.validation = dict(validation) if validation else None
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
        kept = _kept(labels, self.metainfo['classes'], self.validation)
        return [{'gt_label': int(labels[i]), 'place': int(i), 'sample': f'{self.path}, cloud {i}'} for i in kept]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return the sample's dict with its points, which may not be written to."""
        info: dict[str, Any] = super().get_data_info(idx)
        info['points'] = self.points[info['place']]
        return info

    @classmethod
    def inspect(cls, inspection: Inspection, arguments: Mapping[str, Any]) -> None:
        """Add the checks of the file that a config's data set names (see `coc_core.mm.data_checks`)."""
        classes = class_names((arguments.get('metainfo') or {}).get('classes')) or list(cls.METAINFO['classes'])
        try:
            path = cls.named_file(arguments)
        except UserError as error:
            inspection.problems.append(Problem(inspection.name, f'cannot be found: {str(error).rstrip(".")}'))
            return
        content = read(path)
        if isinstance(content, Problem):
            inspection.problems.append(content)
            return
        points, labels = content
        steps = arguments.get('pipeline', ())
        taken = points_taken(steps)
        inspection.summary = f'{len(points)} clouds of {points.shape[1]} points'
        inspection.problems.extend(content_problems(path, points, labels, len(classes)))
        if inspection.problems:
            return
        if taken > points.shape[1]:
            what = f'holds clouds of {points.shape[1]} points, but the pipeline takes {taken}: lower its num_points'
            inspection.problems.append(Problem(str(path), what))
        anywhere = normalizes(steps)
        seen = points if anywhere else points[:, : taken or None]
        inspection.problems.extend(place_problems(path, seen, anywhere))
        inspection.problems.extend(filling_problems(path, seen))
        inspection.problems.extend(order_problems(path, points, taken))
        try:
            kept = _kept(labels, classes, arguments.get('validation'))
        except UserError as error:
            inspection.problems.append(Problem(str(path), f'cannot be split: {str(error).rstrip(".")}'))
            return
        inspection.contents = {digest(points[i]): f'{path}, cloud {i},' for i in kept}
        present = np.unique(labels[kept])
        missing = [name for label, name in enumerate(classes) if label not in present]
        inspection.problems.extend(inspection.missing_classes(str(path), missing))
        inspection.summary += f', {len(present)} of {len(classes)} classes'
        inspection.samples.extend(cls.whole_file(path, len(points), classes, arguments))

    @classmethod
    def named_file(cls, arguments: Mapping[str, Any]) -> Path:
        """Return the file that these arguments name.

        Raises:
            UserError: They cannot name one.
        """
        return Path(osp.expanduser(osp.join(arguments.get('data_root') or '', arguments.get('ann_file') or '')))

    @classmethod
    def whole_file(
        cls, path: Path, found: int, classes: Sequence[str], arguments: Mapping[str, Any]
    ) -> list[Callable[[], Sample]]:
        """Return what tells whether a file with so many clouds is the whole one, where that is known."""
        return []


@DATASETS.register_module()
class ScanObjectNN(PointCloudFile):
    """The clouds of ScanObjectNN, or of files that are called like its own.

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
        self, data_root: str, part: str, *, variant: str = 'PB_T50_RS', folder: str | None = None, **others: Any
    ) -> None:
        file = file_of(data_root, part, variant, folder)
        super().__init__(str(file.relative_to(osp.expanduser(data_root))), data_root=data_root, **others)

    @classmethod
    def named_file(cls, arguments: Mapping[str, Any]) -> Path:
        """Return the file of the variant and part that these arguments name.

        Raises:
            UserError: There is no such variant or part.
        """
        return file_of(*(arguments.get(key, default) for key, default in _FILE_DEFAULTS.items()))

    @classmethod
    def whole_file(
        cls, path: Path, found: int, classes: Sequence[str], arguments: Mapping[str, Any]
    ) -> list[Callable[[], Sample]]:
        """Return what compares the number of clouds with that of the published file."""
        # Only tools/dataset_converters/check_data.py asks this: part of the data serves to try things out.
        own = classes == list(cls.METAINFO['classes'])
        return [partial(open_whole, path, found, arguments)] if own else []


def _kept(labels: NDArray[Any], classes: Sequence[str], validation: Mapping[str, Any] | None) -> NDArray[Any]:
    """Return the places of the clouds that a data set keeps of its file.

    Raises:
        UserError: They cannot be split, or a setting of the split is unknown.
    """
    unknown = set(validation or ()) - {'keep', 'fraction', 'seed'}
    if unknown or (validation and 'keep' not in validation):
        raise UserError(
            f"validation={dict(validation or {})} must have keep='train' or keep='val', and may have fraction and seed."
        )
    return split(labels, classes, **validation) if validation else np.arange(len(labels))


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
        if 'data/digits' in path.as_posix():
            return Problem(
                str(path), 'does not exist: make it with `python tools/dataset_converters/make_digits_data.py`'
            )
        return Problem(str(path), 'does not exist: see docs/point-clouds.md on where the data is to be had')
    try:
        with h5py.File(path, 'r') as file:
            missing = [key for key in ('data', 'label') if not isinstance(file.get(key), h5py.Dataset)]
            if missing:
                return Problem(str(path), f'has no {missing[0]!r}: it has {", ".join(map(repr, file)) or "nothing"}')
            points, labels = file['data'][()], file['label'][()]
    except OSError as error:
        return Problem(str(path), unreadable(error))
    if points.ndim != 3 or points.shape[-1] != 3 or not np.issubdtype(points.dtype, np.floating):
        return Problem(str(path), f"has 'data' of shape {points.shape} and type {points.dtype}, not floating [N, P, 3]")
    if labels.shape == (len(points), 1):
        return Problem(str(path), f"has 'label' of shape {labels.shape}: store it as {labels.shape[:1]}, label[:, 0]")
    if labels.shape != points.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        return Problem(
            str(path),
            f"has 'label' of shape {labels.shape} and type {labels.dtype}, not a whole number for each of the "
            f'{len(points)} clouds',
        )
    return points.astype(np.float32, copy=False), labels.astype(np.int64)


def unreadable(error: OSError) -> str:
    """Return why an HDF5 file cannot be read, as the rest of a sentence."""
    # Writers hold a lock; those of the newest format mark the file as well, and one that is killed leaves its mark.
    if isinstance(error, BlockingIOError) or 'already open for write' in str(error):
        return (
            'is open for writing by another program, or was left so by one that ended early: wait for it, or write the '
            'file again'
        )
    # HDF5's own errors are of what is in the file, the system's have a number.
    return f'cannot be read ({error})' if error.errno else f'is not a complete HDF5 file ({error})'


def open_whole(path: Path, found: int, arguments: Mapping[str, Any]) -> Sample:
    """Tell whether a file of ScanObjectNN is the published one, by its number of clouds."""
    variant = arguments.get('variant', _FILE_DEFAULTS['variant'])
    expected = COUNTS.get(variant, {}).get(arguments['part'], found)
    if found == expected:
        return Sample([])
    what = f'has {found:,} clouds, but the published file of {variant} has {expected:,}'
    return Sample([Problem(str(path), what)])
