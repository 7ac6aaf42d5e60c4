"""The site: Markdown pages, and an API reference made from the docstrings. `make docs` builds it."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.inspect import signature as sphinx_signature
from sphinx.util.inspect import stringify_signature

ROOT = Path(__file__).resolve().parents[1]
OURS = ('coc_core', 'mmpretrain_plugin', 'mmdet_plugin', 'mmseg_plugin', 'pointcloud')

project = 'Context Cluster for OpenMMLab'
author = 'the contributors'
release = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
myst_heading_anchors = 4
# Blocks without a language are commands.
highlight_language = 'bash'

html_theme = 'furo'
html_title = 'Context Cluster'
html_show_copyright = False

# `name` in a docstring is a reference, ``text`` is not.
default_role = 'py:obj'
# Names are resolved in what imports; mmcv's compiled operators alone are not needed for that, so that a machine
# without a compiler builds the site.
autodoc_mock_imports = ['mmcv._ext']
autodoc_member_order = 'bysource'
# A name stands where it is defined, not again in the package that passes it on.
autodoc_default_options = {'members': True, 'ignore-module-all': True, 'show-inheritance': True}
# What is inherited from mmengine is documented there.
autodoc_inherit_docstrings = False
# The fields of a class are listed once, and what stands before a colon under "Returns:" is text.
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False


def find(path: str) -> Any:
    """Return what a dotted path names, imported where that is needed.

    Raises:
        ImportError: A module of that path does not import.
        AttributeError: The path names nothing.
    """
    parts = path.split('.')
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module('.'.join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AttributeError(path)


def resolve_as_python(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Resolve a name that Sphinx does not find: as seen from the module whose docstring has it, or from a package.

    A name of another project, or a private one, is shown without a link; one that is nowhere is a warning.
    """
    if node.get('refdomain') != 'py':
        return None
    target, module, owner = node['reftarget'], node.get('py:module'), node.get('py:class')
    if '[' in target:
        # Half a type: Sphinx cuts a signature at its commas where a dataclass makes a field's default by a function.
        return content
    scopes = [f'{module}.{owner}.', f'{module}.'] if module and owner else [f'{module}.'] if module else []
    for scope in (*scopes, '', 'builtins.'):
        try:
            found = find(scope + target)
        except (ImportError, AttributeError, ValueError):
            continue
        name = getattr(found, '__qualname__', None)
        home = getattr(found, '__module__', None)
        if name is None or home is None or name.startswith('_') or not home.startswith(OURS):
            return content
        return env.domains.python_domain.resolve_xref(
            env, node['refdoc'], app.builder, 'obj', f'{home}.{name}', node, content
        )
    return None


def skip_fields(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out fields of a named tuple, which its "Attributes:" tell of."""
    return True if (getattr(member, '__doc__', None) or '').startswith('Alias for field number') else None


def say_arguments(
    app: Sphinx, what: str, name: str, member: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Show the arguments of ``__init__`` where ``__new__`` keeps them, at which autodoc looks first."""
    # By name: what is imported before autodoc does it has no annotations of what type checkers alone import.
    if what != 'class' or 'KeepsArguments' not in {base.__name__ for base in member.__mro__[1:]}:
        return None
    return stringify_signature(sphinx_signature(member.__init__, bound_method=True)), returns


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    sys.path.insert(0, str(ROOT))
    app.connect('missing-reference', resolve_as_python)
    app.connect('autodoc-skip-member', skip_fields)
    app.connect('autodoc-process-signature', say_arguments)
