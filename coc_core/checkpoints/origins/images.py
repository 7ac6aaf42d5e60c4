"""Image models of this project, alone or as the backbone of a library's model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from coc_core.checkpoints.layouts import LAYOUTS, Layout
from coc_core.checkpoints.origins.base import Content, Denominator, Origin, Source, none_under, writer_of, written_forms
from coc_core.checkpoints.origins.records import (
    recorded_backbone,
    recorded_denominator,
    recorded_mixer,
    recorded_title,
)
from coc_core.model import ContextCluster
from coc_core.variants import VARIANTS, CoCConfig

TRUNK = ('stem.', 'stages.', 'norm.', 'dense_norms.')
_CLASSIFIER = ('norm.weight', 'norm.bias', 'head.weight', 'head.bias')
_STAGE = re.compile(r'^stages\.(\d+)\.(?:downsample\.(?:weight|bias)$|blocks\.\d+\.)')


class Images(Origin):
    """Names of `coc_core.create_model`, of a dense backbone, or of a library's model around one."""

    # What every block has, whatever its mixer is.
    names = re.compile(r'^((?:.*\.)?)stages\.\d+\.blocks\.\d+\.gamma[12]$')
    models = 'Context Cluster image'
    family = 'image'
    has_denominator = True
    title = '{task} checkpoint of this project'

    def translate(self, content: Content) -> Source:
        """Return the trunk by this project's names, other parts as they are called.

        Raises:
            CheckpointError: There are no weights under the prefix.
        """
        found, said = self.prefixes(content.weights), content.prefix
        start = found.most_common(1)[0][0] if said is None else said.rstrip('.') + '.' if said else ''
        if start not in found:
            raise none_under(start, content.name, content.weights)
        trunk = {k.removeprefix(start): v for k, v in content.weights.items() if k.startswith(start)}
        parts = {k: v for k, v in content.weights.items() if not k.startswith(start)}
        steps = list(content.steps)
        if start and said is None and not start.startswith('backbone.'):
            steps.append(f'prefix {start!r} dropped')
        weights, unknown_names, changes = self.rename(trunk)
        unknown = {**content.others, **{name: trunk[name] for name in unknown_names}}
        layout = next((layout for layout in LAYOUTS.values() if any(map(layout.has, parts))), None)
        for key, value in parts.items():
            name = (
                key.replace(layout.classifier, 'head.', 1) if layout and layout.has(key) and layout.classifier else key
            )
            # A second tensor for a name, or one of the trunk's names outside of it, must not replace the first.
            if name in weights or name.startswith(TRUNK):
                unknown[key] = value
            else:
                weights[name] = value
        if layout is None and any(key.startswith(('norm.', 'head.')) for key in weights):
            layout = next(layout for layout in LAYOUTS.values() if layout.classifier)
        task = layout.task if layout else 'backbone'
        title = recorded_title(content.meta) or self.title.format(task=task) + self.title_end(layout)
        denominator = self.denominator_of(trunk) or recorded_denominator(content.meta)
        mixer = self.mixer_of(content)
        return Source(
            self, title, task, weights, unknown, (*steps, *changes), layout,
            denominator=denominator, mixer=mixer, backbone=recorded_backbone(content.meta),
        )  # fmt: skip

    def title_end(self, layout: Layout | None) -> str:
        """Return what follows the task in the title."""
        return ''

    def denominator_of(self, trunk: Mapping[str, Tensor]) -> Denominator | None:
        """Return the denominator that the weights themselves tell."""
        return None

    def mixer_of(self, content: Content) -> str | None:
        """Return the mixer that the weights were trained with, where the file tells."""
        return recorded_mixer(content.meta)

    def forms(self, source: Source) -> tuple[str, ...]:
        """Return the forms of this project, of the published code, of timm and of the task's library."""
        timm = () if _is_dense(source) else ('timm',)
        library = (source.layout.form,) if source.layout else ()
        return ('pth', 'safetensors', *timm, *library, *written_forms(self.family))

    def in_form(self, source: Source, form: str) -> dict[str, Tensor]:
        """Return the weights by the names of a form."""
        writer, layout = writer_of(form, self.family), source.layout
        if writer is not None:
            return writer.translate_back(source)
        if layout is None or not (layout.dense or form == layout.form):
            return dict(source.weights)
        named = {('backbone.' + k if k.startswith(TRUNK) else k): v for k, v in source.weights.items()}
        return {_library_name(k, layout): v for k, v in named.items()}

    def library_form(self, source: Source) -> str | None:
        """Return the form of the task's library."""
        return source.layout.form if source.layout else None

    def place(
        self, source: Source, own: Mapping[str, Tensor], trunk: ContextCluster | None
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Give weights a model's names.

        Not used by design: a classifier's norm and head in a dense backbone, stages that are not built and norms of
        outputs that are not asked for, other parts than the backbone in a bare backbone.
        """
        whole = any(key.startswith('backbone.stages.') for key in own)
        classifier = next(
            (c.classifier for c in LAYOUTS.values() if c.classifier and f'{c.classifier}weight' in own), ''
        )
        placed: dict[str, Tensor] = {}
        unused: list[str] = []
        for key, value in source.weights.items():
            in_trunk = key.startswith(TRUNK)
            name = f'backbone.{key}' if whole and in_trunk else key
            if whole and key.startswith('head.') and classifier:
                name = key.replace('head.', classifier, 1)
            part_of_a_classifier = key in _CLASSIFIER and source.layout is not None and not source.layout.dense
            around_a_backbone = not whole and not in_trunk and _is_dense(source)
            if name not in own and (part_of_a_classifier or around_a_backbone or _unbuilt(key, trunk, whole)):
                unused.append(key)
            else:
                placed[name] = value
        return placed, tuple(unused)

    def fresh(self, source: Source, own: Mapping[str, Tensor], placed: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Let a dense backbone's norms start fresh where the weights have none; counters of batches always may."""
        bare = any(key.startswith('stages.') for key in own)
        no_norms = bare and not _is_dense(source) and not any('dense_norms.' in key for key in placed)
        norms = (key for key in own if key not in placed and no_norms and key.startswith('dense_norms.'))
        names = {*super().fresh(source, own, placed), *norms}
        return tuple(key for key in own if key in names)

    def starts_a_backbone(self, source: Source) -> bool:
        """Whether it is a trunk, or a classifier."""
        return not _is_dense(source)

    def incompleteness(self, source: Source) -> Sequence[str]:
        """Return what is missing, too much or of an impossible shape in the trunk and the classifier."""
        own = {k: v for k, v in source.weights.items() if k.startswith((*TRUNK, 'head.'))}
        try:
            config = _shape_config(own)
        except KeyError as error:
            return [f'{error.args[0]!r} is missing']
        except (ValueError, IndexError, TypeError, ZeroDivisionError) as error:
            return [f'a tensor has a shape or name that no Context Cluster has ({error})']
        dense = sorted({int(key.split('.')[1]) for key in own if re.match(r'dense_norms\.\d+\.', key)})
        if dense and dense[-1] >= config.num_stages:
            return [f"'dense_norms.{dense[-1]}' belongs to no stage"]
        if _is_dense(source) and not dense:
            return ["'dense_norms.0.weight' is missing"]
        classes = len(own['head.weight']) if 'head.weight' in own and own['head.weight'].ndim else 0
        with torch.device('meta'):
            model = ContextCluster(config, num_classes=classes, dense_indices=dense)
        # A bare trunk may come without a classifier's norm.
        expected = {k: v for k, v in model.state_dict().items() if source.layout or not k.startswith('norm.')}
        problems = [f'{key!r} is missing' for key in expected if key not in own]
        problems += [f'{key!r} is unknown' for key in own if key not in expected]
        return problems + [
            f'{key!r} is {list(own[key].shape)} where {list(value.shape)} is expected'
            for key, value in expected.items()
            if key in own and own[key].shape != value.shape
        ]

    def remarks(self, source: Source) -> Sequence[str]:
        """Return the published variants whose trunk has these shapes."""
        shapes = {key: value.shape for key, value in source.weights.items() if key.startswith(('stem.', 'stages.'))}
        found = []
        for name, config in VARIANTS.items():
            with torch.device('meta'):
                trunk = ContextCluster(config, num_classes=0).state_dict()
            if shapes == {key: value.shape for key, value in trunk.items() if not key.startswith('norm.')}:
                found.append(name)
        return [f'variants of these shapes: {", ".join(found) or "none that is published"}']


def _is_dense(source: Source) -> bool:
    return source.layout is not None and source.layout.dense


def _library_name(key: str, layout: Layout) -> str:
    return key.replace('head.', layout.classifier, 1) if layout.classifier and key.startswith('head.') else key


def _unbuilt(key: str, trunk: ContextCluster | None, whole: bool) -> bool:
    """Whether a name belongs to a stage or a norm of the architecture that this model does not build."""
    if trunk is None:
        return False
    stage, norm = _STAGE.match(key), re.match(r'dense_norms\.(\d+)\.', key)
    if stage and len(trunk.stages) <= int(stage[1]) < trunk.config.num_stages:
        return True
    return bool(norm and trunk.dense_indices and int(norm[1]) < trunk.config.num_stages and not whole)


def _shape_config(weights: Mapping[str, Tensor]) -> CoCConfig:
    """Return an architecture with the shapes of these weights; what shapes do not tell (heads, grids) is one."""
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
