"""What an origin is asked for, and which one a checkpoint has."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from coc_core.checkpoints.layouts import Layout
from coc_core.checkpoints.reading import CheckpointError
from coc_core.model import ContextCluster
from coc_core.variants import get_config

_CONTAINERS = ('state_dict', 'model', 'net')
_AVERAGES = ('state_dict_ema', 'model_ema')
_WRAPPERS = ('module.', '_orig_mod.')


@dataclass(frozen=True)
class Denominator:
    """The denominator that weights were trained with.

    Attributes:
        name: Its name in `coc_core.ops.cluster`, or None where the file does not tell.
        evidence: What tells it.
        first_generation: Whether the MLPs were published as convolutions.
    """

    name: str | None = None
    evidence: str = ''
    first_generation: bool = False


@dataclass(frozen=True)
class Source:
    """What a checkpoint holds.

    Attributes:
        origin: What knows files of this kind.
        title: The origin in words, for messages.
        task: ``'classification'`` and other tasks of `coc_core.checkpoints.layouts`, ``'backbone'``, or the origin's.
        weights: Tensors by this project's names: an image model's trunk and ``norm`` and ``head`` of a classifier as
            in `coc_core.create_model`, other parts (``neck``, ``decode_head``) as their library calls them.
        unknown: What the checkpoint holds among its weights that is no known name, by its own name.
        translated: What was changed on the way, in words.
        layout: That of a whole model, or None.
        denominator: The one that the weights were trained with.
        mixer: The mixer that they were trained with: a name, or None where the file does not tell.
        backbone: The backbone in the config of their training, as far as that names values; {} where the file has none.
    """

    origin: Origin
    title: str
    task: str
    weights: dict[str, Tensor]
    unknown: dict[str, Any]
    translated: tuple[str, ...] = ()
    layout: Layout | None = None
    denominator: Denominator = Denominator()
    mixer: str | None = None
    backbone: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """What an origin translates.

    Attributes:
        name: What messages call the checkpoint.
        weights: Its tensors by their names, without what data-parallel training puts before them.
        others: What stands among them and is no tensor.
        meta: What the file records beside them.
        steps: What was changed already, in words.
        prefix: What precedes the backbone's names, where the caller says it.
    """

    name: str
    weights: Mapping[str, Tensor]
    others: dict[str, Any]
    meta: Mapping[str, Any]
    steps: tuple[str, ...]
    prefix: str | None = None


class Origin:
    """One kind of checkpoint; a subclass states its names.

    Attributes:
        names: The names that only this kind has, as a pattern whose first group is what precedes them.
        models: Its models in words; an origin without any holds no Context Cluster.
        family: Origins of one family hold the same models, and each can be written in the other's names.
        form: The name by which `coc_core.checkpoints.convert` writes this origin's names, where it has some of its own.
        finite: Whether weights that are no finite numbers are a fault: other models hold masks of infinity.
        has_denominator: Whether what it holds was trained with one of several denominators.
    """

    names = re.compile(r'(?!)()')
    models = ''
    family = ''
    form: str | None = None
    finite = True
    has_denominator = False

    def prefixes(self, weights: Mapping[str, Tensor]) -> Counter[str]:
        """Count this origin's names by what precedes them; none: the weights have another origin."""
        matches = (self.names.match(key) for key in weights)
        return Counter(match[1] for match in matches if match)

    def translate(self, content: Content) -> Source:
        """Return the weights by this project's names."""
        raise NotImplementedError

    def translate_back(self, source: Source) -> dict[str, Tensor]:
        """Return weights of this family by this origin's names: the inverse of `translate`."""
        return self.rename_back(source.weights)

    def rename(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str], list[str]]:
        """Return weights by this project's names and shapes, the names that are unknown, and the changes in words."""
        return dict(weights), [], []

    def rename_back(self, weights: Mapping[str, Tensor], *, first_generation: bool = False) -> dict[str, Tensor]:
        """Return weights by this origin's names and shapes: the inverse of `rename`.

        Raises:
            UserError: A name is not one of this project's models'.
        """
        return dict(weights)

    def why_unknown(self, name: str) -> str:
        """Return what is wrong with a name that `rename` does not know, as a sentence."""
        return f'{name!r} is not a key of a published {self.models} model.'

    def forms(self, source: Source) -> tuple[str, ...]:
        """Return the forms that a source can be written in."""
        return ('pth', 'safetensors', *written_forms(self.family))

    def in_form(self, source: Source, form: str) -> dict[str, Tensor]:
        """Return a source's weights by the names of a form."""
        writer = writer_of(form, self.family)
        return dict(source.weights) if writer is None else writer.translate_back(source)

    def library_form(self, source: Source) -> str | None:
        """Return the form that the libraries' own loaders take, or None: they get the file as it is."""
        return None

    def content_of_file(self, weights: Mapping[str, Tensor], meta: Mapping[str, str]) -> dict[str, Any]:
        """Return what a torch file in this origin's form holds."""
        return {'state_dict': dict(weights), 'meta': dict(meta)}

    def place(
        self, source: Source, own: Mapping[str, Tensor], trunk: ContextCluster | None
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Give weights the names of a model; return them and the names that have no place in it by design.

        Args:
            source: What a file holds.
            own: The model's state dict.
            trunk: The model's Context Cluster.
        """
        return dict(source.weights), ()

    def fresh(self, source: Source, own: Mapping[str, Tensor], placed: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Return the model's names that may keep their initial values."""
        return tuple(key for key in own if key not in placed and key.endswith('num_batches_tracked'))

    def variant(self, arch: Any) -> Any:
        """Return the architecture of this name, with ``override``; its fields are what a training may record.

        Raises:
            UserError: There is none.
        """
        return get_config(arch)

    def starts_a_backbone(self, source: Source) -> bool:
        """Whether these weights can start the backbone of a larger model."""
        return False

    def incompleteness(self, source: Source) -> Sequence[str]:
        """Return what keeps weights from being written in another form."""
        return ()

    def remarks(self, source: Source) -> Sequence[str]:
        """Return what else can be said of weights, for the summary of `coc_core.checkpoints.convert`."""
        return ()


class _OtherModels(Origin):
    """Weights of models that are no Context Cluster: loaded as they are, and never converted."""

    finite = False

    def translate(self, content: Content) -> Source:
        """Return the weights by their own names."""
        title = 'checkpoint without a Context Cluster'
        return Source(self, title, 'other', dict(content.weights), content.others, content.steps)

    def forms(self, source: Source) -> tuple[str, ...]:
        """Return no form."""
        return ()


ORIGINS: list[Origin] = []


def register_origin(origin: Origin) -> None:
    """Make a kind of checkpoint known; where two recognize as many names, the earlier one has the word."""
    ORIGINS.append(origin)


def writer_of(form: str, family: str) -> Origin | None:
    """Return the origin whose names a form has, for models of a family."""
    return next((origin for origin in ORIGINS if origin.form == form and origin.family == family), None)


def written_forms(family: str) -> tuple[str, ...]:
    """Return the forms in other names that models of a family can be written in."""
    return tuple(origin.form for origin in ORIGINS if origin.form is not None and origin.family == family)


def origin_of(weights: Mapping[str, Tensor]) -> Origin | None:
    """Return the origin that recognizes the most names, or None."""
    best = max(ORIGINS, key=lambda origin: origin.prefixes(weights).total())
    return best if best.prefixes(weights) else None


def recognize(checkpoint: Any, name: str, *, ema: bool = False, prefix: str | None = None) -> Source:
    """Find the weights in a checkpoint, name their origin and translate them.

    Args:
        checkpoint: What was read from a file.
        name: What messages call it.
        ema: Take the averaged weights that stand beside the others (``state_dict_ema``).
        prefix: What precedes the backbone's names; by default it is seen from them.

    Raises:
        CheckpointError: There are no weights, or none under the prefix.
    """
    found = _unwrap(checkpoint, name, ema)
    weights = {k: v for k, v in found.items() if isinstance(v, Tensor)}
    others = {k: v for k, v in found.items() if not isinstance(v, Tensor)}
    bare = without_wrapper(weights)
    steps = ("the wrapper's prefix of all names dropped",) if bare is not weights else ()
    meta = checkpoint.get('meta')
    origin = origin_of(bare)
    if origin is None and prefix:
        raise none_under(prefix, name, bare)
    meta = meta if isinstance(meta, Mapping) else {}
    return (origin or _OtherModels()).translate(Content(name, bare, others, meta, steps, prefix))


def _unwrap(checkpoint: Any, name: str, ema: bool) -> Mapping[str, Any]:
    """Return the mapping that holds the weights."""
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'{name} holds no weights: it is a {type(checkpoint).__name__}, not a mapping.')
    averages = [key for key in _AVERAGES if isinstance(checkpoint.get(key), Mapping)]
    containers = [key for key in _CONTAINERS if isinstance(checkpoint.get(key), Mapping)]
    if ema and not averages:
        raise CheckpointError(f'{name} holds no averaged weights ({" or ".join(_AVERAGES)}): load it with ema=False.')
    places = averages if ema else [*containers, *averages]
    found = checkpoint[places[0]] if places else checkpoint
    if not any(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f'{name} holds no weights (neither a `state_dict` nor named tensors).')
    return {str(key): value for key, value in found.items()}


def without_wrapper(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights without what data-parallel training and `torch.compile` put before every name."""
    for prefix in _WRAPPERS:
        if state_dict and all(key.startswith(prefix) for key in state_dict):
            return without_wrapper({key.removeprefix(prefix): value for key, value in state_dict.items()})
    return state_dict


def none_under(prefix: str, name: str, weights: Mapping[str, Tensor]) -> CheckpointError:
    """Return the error of a prefix under which there are no weights."""
    first = ', '.join(list(weights)[:3])
    return CheckpointError(
        f'{name} holds no Context Cluster weights under the prefix {prefix!r}: its first names are {first}.'
    )
