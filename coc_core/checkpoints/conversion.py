"""Writes a checkpoint of any known origin in another form."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from coc_core.checkpoints.layouts import LAYOUTS
from coc_core.checkpoints.origins import ORIGINS, Origin, Source, recognize
from coc_core.checkpoints.origins.base import origin_of, without_wrapper, writer_of
from coc_core.checkpoints.origins.records import STOCK_MIXER, records_of
from coc_core.checkpoints.reading import CheckpointError, read
from coc_core.errors import UserError
from coc_core.files import write_bytes
from coc_core.ops import check_denominator

_SAFETENSORS = '.safetensors'


def forms() -> list[str]:
    """Return the forms that `convert` writes: this project's, timm's, the libraries' and those of the origins."""
    written = (origin.form for origin in ORIGINS if origin.form)
    return list(dict.fromkeys(['pth', 'safetensors', 'timm', *(c.form for c in LAYOUTS.values()), *written]))


def convert(
    path: str | Path,
    out: str | Path,
    form: str,
    *,
    denominator: str | None = None,
    ema: bool = False,
    overwrite: bool = False,
) -> str:
    """Write the weights of a checkpoint in another form; return a summary for people.

    Args:
        path: A checkpoint of any origin that `coc_core.checkpoints.load` knows.
        out: The new file; ``.safetensors`` or a name for a torch file, as the form needs it.
        form: One of `forms`. ``'pth'`` and ``'safetensors'`` hold this project's names, ``'timm'`` what
            `timm.create_model` takes as ``checkpoint_path``, ``'mmpretrain'``, ``'mmdet'`` and ``'mmseg'`` what a
            whole model there has, ``'published'`` the published code's names.
        denominator: The one that the weights were trained with, recorded in the new file; where it is not given and
            the file does not tell, none is recorded.
        ema: Take the averaged weights that stand beside the others.
        overwrite: Replace ``out`` where it exists.

    Raises:
        CheckpointError: The checkpoint cannot be read, is not complete, or cannot have this form; nothing is written.
        UserError: The denominator is unknown.
    """
    out = Path(out).expanduser()
    source = recognize(read(path), str(path), ema=ema)
    _check(source, str(path), form, out, overwrite)
    known = source.denominator.name
    for named in (denominator, known):
        if named is not None:
            check_denominator(named)
    if denominator is not None and known not in (None, denominator):
        raise CheckpointError(f'{path} was trained with denominator={known!r}: {source.denominator.evidence}.')
    meta = records_of(source)
    if source.origin.has_denominator and denominator:
        meta['denominator'] = denominator
    _save(source, meta, out, form)
    lines = [f'{path}: {source.title}', *(f'  translated: {step}' for step in source.translated)]
    lines += [f'  {remark}' for remark in source.origin.remarks(source)]
    if source.origin.has_denominator:
        lines.append(f'  denominator: {meta.get("denominator", "not known, not recorded (say it with --denominator)")}')
    return '\n'.join([*lines, f'{out}: {form}, {len(source.weights)} tensors of this project'])


def in_library_names(checkpoint: Any, name: str) -> Any:
    """Return a checkpoint as the mm* packages and `pointcloud` name it, for their own loaders.

    What has other names, such as published checkpoints, is renamed; any other object comes back as it is.
    """
    try:
        source = recognize(checkpoint, name)
    except CheckpointError:
        return checkpoint
    form = source.origin.library_form(source)
    if form is None:
        return checkpoint
    weights = {**source.origin.in_form(source, form), **source.unknown}
    if weights.keys() == checkpoint.get('state_dict', checkpoint).keys():
        return checkpoint
    rest = checkpoint if 'state_dict' in checkpoint else {}
    meta = rest.get('meta')
    kept = meta if isinstance(meta, Mapping) else {}
    return {**rest, 'state_dict': weights, 'meta': {**kept, **records_of(source)}}


def _check(source: Source, name: str, form: str, out: Path, overwrite: bool) -> None:
    if form not in forms():
        raise CheckpointError(f'The form {form!r} is unknown: choose one of {", ".join(forms())}.')
    own = source.origin.forms(source)
    if form not in own:
        models = ' and '.join(dict.fromkeys(f'{origin.models} models' for origin in ORIGINS))
        possible = f'it can become {", ".join(own)}' if own else f'only {models} can be converted'
        raise CheckpointError(f'{name} is a {source.title}, which has no form {form!r}: {possible}.')
    suffixes = {'safetensors': (_SAFETENSORS,), 'timm': (_SAFETENSORS, '.pth')}.get(form, ('.pth',))
    if out.suffix not in suffixes:
        raise CheckpointError(f'{out} does not go with the form {form!r}: let its name end in {" or ".join(suffixes)}.')
    if out.is_dir():
        raise CheckpointError(f'{out} is a folder: name a file.')
    if out.exists() and not overwrite:
        raise CheckpointError(f'{out} exists already: remove it, or allow it to be replaced with --force.')
    if not out.parent.is_dir():
        raise CheckpointError(f'{out} cannot be written: there is no folder {out.parent}.')
    if source.mixer not in (None, STOCK_MIXER):
        raise CheckpointError(
            f'{name} was trained with the mixer {source.mixer}: only weights of the published layer ({STOCK_MIXER}) '
            'have other forms. coc_core.checkpoints.load takes it as it is.'
        )
    problems = [f'{key!r} is unknown' for key in source.unknown]
    problems += source.origin.incompleteness(source)
    if problems:
        more = f', and {len(problems) - 3} more' if len(problems) > 3 else ''
        raise CheckpointError(f'{name} ({source.title}) is not complete: {", ".join(problems[:3])}{more}.')


def _save(source: Source, meta: dict[str, str], out: Path, form: str) -> None:
    # A form of this project's names holds the same whatever the weights came from.
    writer = writer_of(form, source.origin.family) or Origin()
    # Views of one memory would be written whole, or refused.
    copies = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in source.origin.in_form(source, form).items()
    }
    # In memory first: in writing to a full disk both formats fail in words of their own.
    stream = io.BytesIO()
    try:
        if out.suffix == _SAFETENSORS:
            stream.write(safetensors.torch.save(copies, metadata={'format': 'pt', **meta}))
        else:
            torch.save(writer.content_of_file(copies, meta), stream)
    except (RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(f'{out} cannot be written: {type(error).__name__}: {error}.') from error
    try:
        write_bytes(out, stream.getbuffer())
    except UserError as error:
        raise CheckpointError(str(error)) from error


def from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a published model's state dict into this project's names and shapes.

    Works for classification and dense image models, of either generation, and after ``import pointcloud`` for
    point-cloud classifiers. 1x1 convolutions become matrices, and an image model's projections ``f`` and ``v`` (or
    ``fc1`` and ``fc_v``) become one. What data-parallel training and `torch.compile` put before every name is dropped.

    Args:
        state_dict: Published names to tensors; it is not changed.

    Returns:
        This project's names to tensors; those that need no reshaping share memory with the input.

    Raises:
        UserError: A key is not one of the published model's, or ``f`` comes without ``v``.
    """
    state_dict = without_wrapper(state_dict)
    writers = [origin for origin in ORIGINS if origin.form == 'published']
    origin = max(writers, key=lambda writer: writer.prefixes(state_dict).total())
    translated, unknown, _ = origin.rename(state_dict)
    if unknown:
        raise UserError(origin.why_unknown(unknown[0]))
    return translated


def to_official(weights: Mapping[str, Tensor], *, first_generation: bool = False) -> dict[str, Tensor]:
    """Translate this project's names and shapes into the published code's: the inverse of `from_official`.

    Args:
        weights: Names of `coc_core.create_model`, of a dense backbone, or of `pointcloud.create_model`.
        first_generation: The MLPs as 1x1 convolutions, as the code of March 2023 has them.

    Returns:
        Published names to tensors that share memory with the input.

    Raises:
        UserError: A key is not one of this project's models'.
    """
    known = origin_of(weights)
    writer = writer_of('published', known.family if known else 'image')
    assert writer is not None
    return writer.rename_back(weights, first_generation=first_generation)
