"""What a training begins with, as lines of its config: weights of a file, or random ones and a recipe for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coc_core.checkpoints import load_content, read
from coc_core.checkpoints.layouts import Layout
from coc_core.checkpoints.origins import recognize
from coc_core.checkpoints.origins.records import STOCK_MIXER
from coc_core.errors import UserError
from coc_core.mm.backbone import ContextClusterBackbone

PUBLISHED = 'https://github.com/ma-xu/Context-Cluster'


@dataclass(frozen=True)
class Start:
    """What a training begins with.

    Attributes:
        words: The start as the rest of a sentence.
        pretrained: Whether weights of a file.
        comment: Lines that the config says of it.
        backbone: Arguments of the backbone, as text, by name.
        load_from: The file from which whatever fits is taken over, where it is not the backbone's alone.
    """

    words: str
    pretrained: bool
    comment: tuple[str, ...] = ()
    backbone: Mapping[str, str] = field(default_factory=dict)
    load_from: str | None = None

    @property
    def load_from_text(self) -> str:
        """The line of the config, if there is one."""
        return '' if self.load_from is None else f'load_from = {self.load_from!r}\n'


def start_of_images(checkpoint: str | None, arch: str, layout: Layout, **backbone: Any) -> Start:
    """Return the start of a training on images.

    Args:
        checkpoint: A file of any known origin; None for random weights.
        arch: The variant.
        layout: How whole models of the task name their parts.
        **backbone: Further arguments of the backbone.

    Raises:
        UserError: The file is not there, cannot be read, or holds other weights.
    """
    if checkpoint is None:
        # Layer scale as published is for hundreds of epochs: these few steps could not raise it.
        return Start('random weights', False, _SCRATCH, dict(init_cfg='None', layer_scale_init='0.1'))
    content = read(checkpoint)
    source = recognize(content, checkpoint)
    if source.mixer not in (None, STOCK_MIXER):
        raise UserError(
            f'--checkpoint {checkpoint} was trained with the mixer {source.mixer}, which this tool does not know: '
            'leave the file out, and write custom_imports, mixer and init_cfg into the config (docs/extending.md).'
        )
    arguments = {}
    if source.denominator.name not in (None, 'similarity'):
        arguments['denominator'] = repr(source.denominator.name)
        backbone['denominator'] = source.denominator.name
    try:
        load_content(ContextClusterBackbone(arch, **backbone), content, checkpoint)
    except UserError as error:
        raise UserError(f'--checkpoint {checkpoint} does not start a backbone of --arch {arch}: {error}') from error
    if layout.dense and source.layout is layout:
        return Start(f'the model in {checkpoint}', True, _WHOLE, dict(init_cfg='None', **arguments), checkpoint)
    weights = f'dict(type={"Pretrained"!r}, checkpoint={checkpoint!r})'
    return Start(f'the backbone in {checkpoint}', True, (), dict(init_cfg=weights, **arguments))


_WHOLE = ('# What fits of the whole model is taken over; a head for other classes starts fresh.',)
_SCRATCH = (
    '# From random weights, which takes many epochs and images. Published ImageNet weights need few: the table of',
    f'# models in {PUBLISHED} links to them, and --checkpoint FILE writes this config for them.',
)
