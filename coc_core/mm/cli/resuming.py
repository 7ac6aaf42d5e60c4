"""Which checkpoint a training goes on from."""

from __future__ import annotations

from pathlib import Path

from coc_core.checkpoints.reading import check_file, is_whole


def find_checkpoint(work_dir: str) -> Path | None:
    """Return the checkpoint that a killed training in this folder can go on from, or None.

    mmengine writes the name of the last one beside it; where that file is gone or torn, the newest whole one counts.
    """
    folder = Path(work_dir)
    named = folder / 'last_checkpoint'
    found = sorted(
        [*folder.glob('epoch_*.pth'), *folder.glob('iter_*.pth')], key=lambda path: path.stat().st_mtime, reverse=True
    )
    if named.is_file():
        last = Path(named.read_text(encoding='utf-8').strip())
        # The name is absolute, and folders get moved; the folder itself is what the user named.
        found = [folder / last.name, *([] if last.is_dir() else [last]), *found]
    return next((path for path in found if path.is_file() and is_whole(path)), None)


def resume_from(resume: str, work_dir: str) -> Path | None:
    """Resolve the value of `--resume`: a path, or `auto` for the newest checkpoint of the work folder, if any.

    Raises:
        CheckpointError: The path does not exist or is not a whole checkpoint.
    """
    if resume == 'auto':
        return find_checkpoint(work_dir)
    path = Path(resume).expanduser()
    check_file(path)
    return path
