"""A folder of shards: tar files in webdataset's form, and beside each an index of what lies where in it.

    shards.json         what all shards together are
    classes.txt         the name of a class in each line, in the order of the labels
    000000.tar          00000000.cls, 00000000.jpg, 00000001.cls, ...: label and image of each sample
    000000.json         where each image begins, and its checksum

webdataset's own readers need the tar files alone, but go through them from the start. With the index any sample is one
read, so that samplers, and trainings that go on where they were cut, work as over files.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coc_core.errors import UserError
from coc_core.files import write_bytes

RECORD = 'shards.json'
CLASSES = 'classes.txt'
TOOL = 'tools/dataset_converters/shard_imagenet.py'


@dataclass(frozen=True)
class ShardIndex:
    """What lies in one tar file; the lists have an entry for each image, in the order of the file.

    Attributes:
        size: Bytes of the tar file.
        names: Each image's path in the folder that it came from, ``CLASS/NAME``.
        labels: Labels.
        offsets: The byte at which each image begins.
        sizes: Bytes of each image.
        checksums: CRC-32 of each image.
        resized: How many of the images were made smaller.
        left_out: A sentence about each image that could not be read and is not in the file.
    """

    size: int
    names: list[str]
    labels: list[int]
    offsets: list[int]
    sizes: list[int]
    checksums: list[int]
    resized: int
    left_out: list[str]

    def __len__(self) -> int:
        return len(self.names)


def shard_path(folder: Path, number: int) -> Path:
    """Return the tar file of a shard."""
    return folder / f'{number:06d}.tar'


def write_index(shard: Path, index: ShardIndex) -> None:
    """Write the index of a tar file beside it, which says that the file is complete.

    Raises:
        UserError: It cannot be written.
    """
    write_bytes(shard.with_suffix('.json'), json.dumps(asdict(index)).encode())


def read_index(shard: Path) -> ShardIndex:
    """Read the index of a tar file.

    Raises:
        UserError: Tar file or index is not there, or not what the other belongs to.
    """
    try:
        index = ShardIndex(**json.loads(shard.with_suffix('.json').read_bytes()))
        found = shard.stat().st_size
    except FileNotFoundError as error:
        raise UserError(f'{error.filename} does not exist: run {TOOL} again, it makes what is missing.') from error
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f'The index {shard.with_suffix(".json")} cannot be read ({error}): run {TOOL} again, it makes such a shard '
            'anew.'
        ) from error
    if found != index.size:
        raise UserError(
            f'The shard {shard} is damaged: it has {found:,} bytes and had {index.size:,}. Run {TOOL} again, it makes '
            'such a shard anew.'
        )
    return index


def read_record(folder: Path) -> dict[str, Any]:
    """Read what the shards of a folder are.

    Raises:
        UserError: There are none.
    """
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f'{folder} has no shards ({RECORD} is missing): make them with `python {TOOL} --out {folder.parent}`.'
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f'{folder / RECORD} cannot be read ({error}): run {TOOL} again.') from error
    return record


def read_folder(folder: Path) -> tuple[list[str], dict[Path, ShardIndex]]:
    """Read the index of every shard of a folder.

    Returns:
        The names of the classes in the order of their labels, and the index of each tar file.

    Raises:
        UserError: There are no shards, or one is missing or damaged.
    """
    count = read_record(folder)['shards']
    paths = [shard_path(folder, number) for number in range(count)]
    missing = [path for path in paths if not path.with_suffix('.json').exists()]
    if missing:
        raise UserError(
            f'{folder} has {count - len(missing)} of its {count} shards, the first that is missing is '
            f'{missing[0].name}: run {TOOL} again, it goes on.'
        )
    return (folder / CLASSES).read_text().splitlines(), {path: read_index(path) for path in paths}
