"""The data set whose images lie in shards, and what reads one of them."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from mmengine.fileio import BaseStorageBackend, register_backend
from mmpretrain.datasets import ImageNet
from mmpretrain.registry import DATASETS

from coc_core.errors import UserError
from coc_core.mm.data_checks.class_folders import class_problems
from coc_core.mm.data_checks.inspection import Inspection, Sample, class_names, path_below
from coc_core.mm.data_checks.problems import Problem
from mmpretrain_plugin.shards.index import TOOL, ShardIndex, read_folder

_ADDRESS = re.compile(r'shard://(.+?)/(\d+)\+(\d+)\+(\d+)/(.+)')
# More than a sampler reads at a time, fewer than a process may have open.
_MOST_OPEN = 256


@DATASETS.register_module()
class ShardedImageNet(ImageNet):  # type: ignore[misc]
    """mmpretrain's ``ImageNet`` in shards that ``tools/dataset_converters/shard_imagenet.py`` has made.

    It takes the arguments of ``ImageNet``, and its samples are asked for by index as there. Their ``img_path`` is an
    address that mmengine's ``fileio``, and so ``LoadImageFromFile``, reads like a file's: see `ShardBackend`.
    `mmpretrain_plugin.shards.sampler.ShardSampler` asks in an order in which shards are read front to back.

    Attributes:
        shard_sizes: The number of images of each shard, in the order of the indices.

    Raises:
        UserError: There are no shards, one is missing or damaged, or they hold other classes.
    """

    shard_sizes: list[int]

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the indexes: one dict with the image's address and its label for each sample."""
        folder = Path(self.img_prefix).expanduser()
        classes, shards = read_folder(folder)
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(classes)
        elif len(self.CLASSES) != len(classes):
            raise UserError(
                f'The shards in {folder} hold {len(classes)} classes, but the data set has {len(self.CLASSES)}: give '
                f'the names in {folder}/classes.txt as dataset.metainfo.classes.'
            )
        self.shard_sizes = [len(index) for index in shards.values()]
        return [
            dict(img_path=address(path, index, place), gt_label=label)
            for path, index in shards.items()
            for place, label in enumerate(index.labels)
        ]

    @classmethod
    def inspect(cls, inspection: Inspection, dataset: Mapping[str, Any]) -> None:
        """Add the checks of the shards that a config's data set names (see `coc_core.mm.data_checks`)."""
        prefix = dataset.get('data_prefix') or dataset.get('split') or ''
        folder = path_below(dataset, prefix.get('img_path', '') if isinstance(prefix, Mapping) else prefix)
        try:
            classes, shards = read_folder(folder)
        except UserError as error:
            inspection.problems.append(Problem(inspection.name, f'cannot be used: {str(error).rstrip(".")}'))
            return
        given = class_names((dataset.get('metainfo') or {}).get('classes') or cls.METAINFO['classes'])
        inspection.classes = classes
        inspection.problems.extend(class_problems(str(folder), classes, given))
        present = {label for index in shards.values() for label in index.labels}
        absent = [name for label, name in enumerate(classes) if label not in present]
        inspection.problems.extend(inspection.missing_classes(str(folder), absent))
        count = sum(len(index) for index in shards.values())
        inspection.summary = f'{count} images of {len(classes)} classes in {len(shards)} shards'
        inspection.samples.extend(partial(open_shard, path, index) for path, index in shards.items())


def open_shard(path: Path, index: ShardIndex) -> Sample:
    """Read every image of a shard; their checksums tell whether they are what was written."""
    problems = []
    for place in range(len(index)):
        try:
            read_image(address(path, index, place))
        except UserError as error:
            problems.append(Problem(str(path), f'cannot be used: {str(error).rstrip(".")}'))
    return Sample(problems)


def address(path: Path, index: ShardIndex, place: int) -> str:
    """Return the address of an image, ``shard://TAR/OFFSET+SIZE+CHECKSUM/CLASS/NAME``.

    Args:
        path: The tar file.
        index: Its index.
        place: Which of its images.
    """
    where = f'{index.offsets[place]}+{index.sizes[place]}+{index.checksums[place]}'
    return f'shard://{path}/{where}/{index.names[place]}'


def read_image(address: str) -> bytes:
    """Read an image, as a file's bytes, by its `address`.

    Raises:
        UserError: It is no address, or the shard cannot be read or is damaged.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(f'{address} is not of the form shard://TAR/OFFSET+SIZE+CHECKSUM/NAME.')
    path, offset, size, checksum, name = match.groups()
    try:
        content = os.pread(_opened(path).handle, int(size), int(offset))
    except OSError as error:
        raise UserError(f'The shard {path} cannot be read: {error.strerror}.') from error
    if zlib.crc32(content) != int(checksum):
        raise UserError(
            f'The image {name} in the shard {path} is damaged: remove the shard and run {TOOL} again, it makes what is '
            'missing.'
        )
    return content


class _OpenFile:
    """A file that stays open as long as this object; data workers, which share it, each read at their own place."""

    def __init__(self, path: str) -> None:
        self.handle = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, 'handle'):
            os.close(self.handle)


# On a network disk each opening asks the server.
_opened = lru_cache(maxsize=_MOST_OPEN)(_OpenFile)


@register_backend('shard', prefixes='shard')
class ShardBackend(BaseStorageBackend):  # type: ignore[misc]
    """What mmengine's ``fileio`` reads images in shards with, by their `address`."""

    def get(self, filepath: str | Path) -> bytes:
        """Return the bytes of an image; errors as of `read_image`."""
        return read_image(str(filepath))

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """Return the bytes as text; errors as of `read_image`."""
        return self.get(filepath).decode(encoding)
