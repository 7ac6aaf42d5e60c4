"""The classes that a checkpoint was trained with: a model knows labels by their places alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from coc_core.checkpoints import CheckpointError
from coc_core.mm.data_checks.inspection import shown
from coc_core.mm.requirements import quiet_imports
from coc_core.mm.task import test_dataset


def classes_of(cfg: Config, content: Any, checkpoint: str) -> dict[str, Any]:
    """Return what is known of the classes that a checkpoint predicts, without reading any data.

    What the config names itself comes first, then what the checkpoint was trained with, then what the class of the test
    data has: a data set of ImageNet's kind may hold other classes. Names that the checkpoint does not know are told in
    a warning.

    Args:
        cfg: The config.
        content: The checkpoint as it was read.
        checkpoint: What messages call the checkpoint.

    Raises:
        CheckpointError: See `check_trained_classes`.
    """
    dataset = test_dataset(cfg)
    with quiet_imports(), DATASETS.switch_scope_and_registry(None) as registry:
        kind = registry.get(dataset.type) if isinstance(dataset.get('type'), str) else dataset.get('type')
        try:
            known = dict(registry.build({**dataset, 'pipeline': [], 'lazy_init': True}).metainfo)
        except Exception:
            # A class of the user's may read its data at once, which need not be here.
            known = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    stored = _inner(_inner(content, 'meta'), 'dataset_meta')
    named = (dataset.get('metainfo') or {}).get('classes')
    meta = known if named or not isinstance(stored, Mapping) else {**known, **stored}
    tell_other_classes(content, meta.get('classes'), checkpoint)
    return meta


def tell_other_classes(content: Any, classes: Any, checkpoint: str) -> None:
    """Warn of what `check_trained_classes` returns; arguments and errors as there."""
    if told := check_trained_classes(content, classes, checkpoint):
        logging.getLogger(__name__).warning('%s', told)


def check_trained_classes(content: Any, classes: Any, checkpoint: str) -> str | None:
    """Check that a label means the same to a checkpoint and to what its model shall serve.

    Args:
        content: The checkpoint as it was read.
        classes: The names of the classes by label, as the config or the data has them; anything else is passed over.
        checkpoint: What messages call the checkpoint.

    Returns:
        A sentence where classes have other names, which may be new names for the same; None where all is well, or where
        the checkpoint does not say its classes.

    Raises:
        CheckpointError: A class that the checkpoint knows has another label there.
    """
    trained, wanted = _names(_inner(_inner(content, 'meta'), 'dataset_meta')), _names({'classes': classes})
    if trained is None or wanted is None:
        return None
    known = {name.casefold() for name in trained}
    pairs = enumerate(zip_longest(trained, wanted, fillvalue=''))
    other = [(label, new) for label, (old, new) in pairs if old.casefold() != new.casefold()]
    if not other:
        return None
    what = f'was trained with the classes {shown(trained, 10)}, but here they are {shown(wanted, 10)}'
    if any(new.casefold() in known for _, new in other):
        raise CheckpointError(
            f'{checkpoint} {what}: from label {other[0][0]} on its predictions would count as other classes. Bring the '
            'classes and the data into the order of the checkpoint, or train with this one.'
        )
    return f'{checkpoint} {what}: if these are no new names for the same, its predictions count as other classes.'


def reordered_classes(content: Any, classes: Any, checkpoint: str) -> str | None:
    """Return a sentence where a training starts from the same classes in another order; None otherwise.

    Other classes are what fine-tuning is for: they are none to tell.

    Args:
        content: The checkpoint as it was read.
        classes: The names of the classes by label, as the data has them; anything else is passed over.
        checkpoint: What messages call the checkpoint.
    """
    trained, wanted = _names(_inner(_inner(content, 'meta'), 'dataset_meta')), _names({'classes': classes})
    if trained is None or wanted is None or trained == wanted or sorted(trained) != sorted(wanted):
        return None
    return (
        f'{checkpoint} was trained with the same classes in another order, {shown(trained, 10)}, but here they are '
        f'{shown(wanted, 10)}: its head is taken over and has to learn each label anew. Bring the classes and the data '
        'into its order to keep what it knows.'
    )


def _inner(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, Mapping) else None


def _names(content: Any) -> list[str] | None:
    names = _inner(content, 'classes')
    return [*map(str, names)] if isinstance(names, Sequence) and not isinstance(names, str) else None
