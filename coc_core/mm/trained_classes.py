"""The classes that a checkpoint was trained with: a model knows labels by their places alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from coc_core.checkpoints import CheckpointError
from coc_core.mm.data_checks.inspection import shown


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
