"""How the tools start: what they need is checked before mmengine, or a package that may be missing, is imported."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from coc_core.mm.requirements import check_openmmlab


def start(
    tool: Callable[[argparse.Namespace], None], parse_args: Callable[[], argparse.Namespace], needs: str = 'mmengine'
) -> int:
    """Run a tool that needs this package; return its exit code, 2 after a mistake that is told in one sentence."""
    try:
        check_openmmlab(needs)
    except ImportError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    from coc_core.mm.launch import run_tool

    return run_tool(tool, parse_args())
