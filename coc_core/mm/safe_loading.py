"""Makes mmengine, of both OpenMMLab families, read checkpoints by `coc_core.checkpoints.read` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import history_buffer  # noqa: F401  the buffer is known to `allowed_types` from now on
from mmengine.runner import CheckpointLoader

from coc_core.checkpoints.conversion import in_library_names
from coc_core.checkpoints.origins.records import READ_CONFIG
from coc_core.checkpoints.reading import allowed_types, read


def _without_program(checkpoint: Any) -> Any:
    """Return a checkpoint without the config, a program of whoever wrote the file, where mmengine would run it.

    It stays under another name: it tells the mixer and the denominator that the weights were trained with.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        kept = {key: value for key, value in meta.items() if key not in ('config', 'cfg')}
        checkpoint['meta'] = kept | ({READ_CONFIG: meta['cfg']} if isinstance(meta.get('cfg'), str) else {})
    return checkpoint


def install_safe_loader() -> None:
    """Make mmengine read every checkpoint weights-only, from a disk or from the web, and under the libraries' names.

    OneDL's own loader falls back to plain pickle where the weights-only reader refuses a file, and both families read
    what they download by plain pickle. Upstream's resume needs the allow-list in torch itself.
    """
    torch.serialization.add_safe_globals(allowed_types())
    # mmengine's log line prints the loader's name from its 11th letter on.
    CheckpointLoader.register_scheme('', loader=load_from_local_weights_only, force=True)
    CheckpointLoader.register_scheme(('http://', 'https://'), loader=load_from_http_weights_only, force=True)


def load_from_local_weights_only(filename: str, map_location: Any = None) -> Any:
    """Load a file as mmengine asks for it: weights-only, under the libraries' names."""
    return in_library_names(_without_program(read(filename, map_location)), filename)


def load_from_http_weights_only(filename: str, map_location: Any = None, model_dir: str | None = None) -> Any:
    """Load from an address as mmengine asks for it: download once, into torch's cache, and read weights-only."""
    folder = Path(model_dir or Path(torch.hub.get_dir()) / 'checkpoints')
    file = folder / Path(urlparse(filename).path).name
    if is_main_process() and not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(filename, str(file))
    barrier()
    return in_library_names(_without_program(read(file, map_location)), filename)
