"""Writes a checkpoint of any known origin in another form."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from coc_core.checkpoints.official import to_official
from coc_core.checkpoints.reading import CheckpointError, read
from coc_core.checkpoints.recognition import FIRST_GENERATION, STOCK_MIXER, Source, recognise
from coc_core.model import ContextCluster
from coc_core.ops import check_denominator
from coc_core.variants import VARIANTS, CoCConfig

_IMAGE_TASKS = ('classification', 'detection', 'segmentation', 'backbone')
FORMS: dict[str, tuple[str, ...]] = {
    'pth': (*_IMAGE_TASKS, 'points'),
    'safetensors': (*_IMAGE_TASKS, 'points'),
    'timm': ('classification', 'backbone'),
    'mmpretrain': ('classification',),
    'mmdet': ('detection',),
    'mmseg': ('segmentation',),
    'official': (*_IMAGE_TASKS, 'points'),
}
"""The forms that `convert` writes, and the tasks whose checkpoints can have each."""

_TRUNK = ('stem.', 'stages.', 'norm.', 'dense_norms.')
_SAFETENSORS = '.safetensors'


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
        path: A checkpoint of any origin that `load` knows.
        out: The new file; ``.safetensors`` or a name for a torch file, as the form needs it.
        form: One of `FORMS`. ``'pth'`` and ``'safetensors'`` hold this project's names, ``'timm'`` what
            `timm.create_model` takes as ``checkpoint_path``, ``'mmpretrain'``, ``'mmdet'`` and ``'mmseg'`` what a
            whole model there has, ``'official'`` the published code's names.
        denominator: The one that the weights were trained with, recorded in the new file; where it is not given and
            the file does not tell, none is recorded.
        ema: Take the averaged weights that stand beside the others.
        overwrite: Replace ``out`` where it exists.

    Raises:
        CheckpointError: The checkpoint cannot be read, is not complete, or cannot have this form; nothing is written.
        ValueError: The denominator is unknown.
    """
    out = Path(out).expanduser()
    source = recognise(read(path), str(path), ema=ema)
    _check(source, str(path), form, out, overwrite)
    known = source.denominator.name
    for named in (denominator, known):
        if named is not None:
            check_denominator(named)
    if denominator is not None and known not in (None, denominator):
        raise CheckpointError(f'{path} was trained with denominator={known!r}: {source.denominator.evidence}.')
    meta = _metadata(source)
    if source.task in _IMAGE_TASKS and denominator:
        meta['denominator'] = denominator
    _save(_in_form(source, form), meta, out, form)
    lines = [f'{path}: {source.origin}', *(f'  translated: {step}' for step in source.translated)]
    if source.task in _IMAGE_TASKS:
        lines.append(f'  variants of these shapes: {", ".join(_variants(source.weights)) or "none that is published"}')
        lines.append(f'  denominator: {meta.get("denominator", "not known, not recorded (say it with --denominator)")}')
    return '\n'.join([*lines, f'{out}: {form}, {len(source.weights)} tensors of this project'])


def in_library_names(checkpoint: Any, name: str) -> Any:
    """Return a checkpoint as the mm* packages and `pointcloud` name it, for their own loaders.

    Published checkpoints and classifiers of `coc_core.create_model` are renamed; any other object comes back as it is.
    """
    try:
        source = recognise(checkpoint, name)
    except CheckpointError:
        return checkpoint
    form = {'classification': 'mmpretrain', 'detection': 'mmdet', 'segmentation': 'mmseg', 'points': 'pth'}
    if source.task not in form or not (source.published or source.task == 'classification'):
        return checkpoint
    weights = {**_in_form(source, form[source.task]), **source.unknown}
    if not source.published and weights.keys() == checkpoint.get('state_dict', checkpoint).keys():
        return checkpoint
    rest = checkpoint if 'state_dict' in checkpoint else {}
    meta = rest.get('meta')
    kept = meta if isinstance(meta, Mapping) else {}
    return {**rest, 'state_dict': weights, 'meta': {**kept, **_metadata(source)}}


def _metadata(source: Source) -> dict[str, str]:
    """What a new file must say, as `recognise` reads it again."""
    meta = {'origin': source.origin, 'task': source.task}
    if source.denominator.name:
        meta['denominator'] = source.denominator.name
    if source.denominator.first_generation:
        meta['mlp'] = FIRST_GENERATION
    return meta


def _check(source: Source, name: str, form: str, out: Path, overwrite: bool) -> None:
    if form not in FORMS:
        raise CheckpointError(f'The form {form!r} is unknown: choose one of {", ".join(FORMS)}.')
    if source.task not in FORMS[form]:
        forms = [known for known, tasks in FORMS.items() if source.task in tasks]
        possible = (
            f'it can become {", ".join(forms)}' if forms else 'only Context Cluster and PointMLP can be converted'
        )
        raise CheckpointError(f'{name} is a {source.origin}, which has no form {form!r}: {possible}.')
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
    if source.task in _IMAGE_TASKS:
        problems += _incompleteness(source)
    if problems:
        more = f', and {len(problems) - 3} more' if len(problems) > 3 else ''
        raise CheckpointError(f'{name} ({source.origin}) is not complete: {", ".join(problems[:3])}{more}.')


def _incompleteness(source: Source) -> list[str]:
    """What is missing, too much or of an impossible shape in an image model's trunk and classifier."""
    own = {k: v for k, v in source.weights.items() if k.startswith((*_TRUNK, 'head.'))}
    try:
        config = _shape_config(own)
    except KeyError as error:
        return [f'{error.args[0]!r} is missing']
    except (ValueError, IndexError, TypeError, ZeroDivisionError) as error:
        return [f'a tensor has a shape or name that no Context Cluster has ({error})']
    dense = sorted({int(key.split('.')[1]) for key in own if re.match(r'dense_norms\.\d+\.', key)})
    if dense and dense[-1] >= config.num_stages:
        return [f"'dense_norms.{dense[-1]}' belongs to no stage"]
    if source.task in ('detection', 'segmentation') and not dense:
        return ["'dense_norms.0.weight' is missing"]
    classes = len(own['head.weight']) if 'head.weight' in own and own['head.weight'].ndim else 0
    with torch.device('meta'):
        model = ContextCluster(config, num_classes=classes, dense_indices=dense)
    norm_is_optional = source.task == 'backbone'
    expected = {k: v for k, v in model.state_dict().items() if not (norm_is_optional and k.startswith('norm.'))}
    problems = [f'{key!r} is missing' for key in expected if key not in own]
    problems += [f'{key!r} is unknown' for key in own if key not in expected]
    return problems + [
        f'{key!r} is {list(own[key].shape)} where {list(value.shape)} is expected'
        for key, value in expected.items()
        if key in own and own[key].shape != value.shape
    ]


def _shape_config(weights: Mapping[str, Tensor]) -> CoCConfig:
    """An architecture with the shapes of these weights; what shapes do not tell (heads, grids) is one."""
    blocks = {
        tuple(map(int, (k.split('.')[1], k.split('.')[3])))
        for k in weights
        if k.startswith('stages.') and '.blocks.' in k
    }
    stages = range(max(stage for stage, _ in blocks) + 1)
    first = [f'stages.{stage}.blocks.0.' for stage in stages]
    dims = tuple(len(weights[start + 'norm1.weight']) for start in first)
    hidden = [len(weights[start + 'mlp.fc1.weight']) for start in first]
    return CoCConfig(
        depths=tuple(1 + max((block for at, block in blocks if at == stage), default=0) for stage in stages),
        dims=dims,
        mlp_ratios=tuple((width + 0.5) / dim for width, dim in zip(hidden, dims, strict=True)),
        heads=(1,) * len(stages),
        head_dim=tuple(weights[start + 'mixer.proj.weight'].shape[1] for start in first),
        center_grid=(1,) * len(stages),
        region_grid=(1,) * len(stages),
        in_channels=weights['stem.weight'].shape[1] - 2,
    )


def _variants(weights: Mapping[str, Tensor]) -> list[str]:
    """The published variants whose trunk has these shapes."""
    shapes = {key: value.shape for key, value in weights.items() if key.startswith(('stem.', 'stages.'))}
    found = []
    for name, config in VARIANTS.items():
        with torch.device('meta'):
            trunk = ContextCluster(config, num_classes=0).state_dict()
        if shapes == {key: value.shape for key, value in trunk.items() if not key.startswith('norm.')}:
            found.append(name)
    return found


def _in_form(source: Source, form: str) -> dict[str, Tensor]:
    whole = source.task in ('detection', 'segmentation') or form == 'mmpretrain'
    weights: Mapping[str, Tensor] = source.weights
    parts: dict[str, Tensor] = {}
    if form == 'official':
        is_part = {k: source.task in ('detection', 'segmentation') and not k.startswith(_TRUNK) for k in weights}
        parts = {k: v for k, v in weights.items() if is_part[k]}
        weights = to_official(
            {k: v for k, v in weights.items() if not is_part[k]},
            first_generation=source.denominator.first_generation,
        )
        return {**{('backbone.' if whole else '') + k: v for k, v in weights.items()}, **parts}
    if not whole:
        return dict(weights)
    named = {('backbone.' + k if k.startswith(_TRUNK) else k): v for k, v in weights.items()}
    return {
        (k.replace('head.', 'head.fc.', 1) if form == 'mmpretrain' and k[:5] == 'head.' else k): v
        for k, v in named.items()
    }


def _save(weights: Mapping[str, Tensor], meta: dict[str, str], out: Path, form: str) -> None:
    """Write beside the target first: a file is whole or not there."""
    # Views of one memory would be written whole, or refused.
    copies = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in weights.items()}
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix='.') as folder:
            beside = Path(folder) / 'weights'
            if out.suffix == _SAFETENSORS:
                safetensors.torch.save_file(copies, beside, metadata={'format': 'pt', **meta})
            else:
                content: dict[str, Any] = {'state_dict': copies, 'meta': meta}
                if form == 'official' and meta['task'] == 'points':
                    content = {'net': copies}
                torch.save(content, beside)
            os.replace(beside, out)
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(f'{out} cannot be written: {type(error).__name__}: {error}.') from error
