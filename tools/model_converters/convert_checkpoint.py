#!/usr/bin/env python
"""Write a checkpoint in another form: `python tools/model_converters/convert_checkpoint.py IN OUT --to FORM`.

IN is a published Context Cluster of any generation and task, or one of this project, as a torch or safetensors file.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from coc_core.checkpoints import convert, forms
from coc_core.errors import UserError
from coc_core.ops.regions import DENOMINATORS

if find_spec('mmengine') is not None:
    # Point clouds have origins of their own, and need mmengine.
    import pointcloud  # noqa: F401


def main() -> int:
    """Run the tool; a mistake is told in one sentence, with exit code 2."""
    parser = argparse.ArgumentParser(description='Write a checkpoint in another form.')
    parser.add_argument('checkpoint', help='the checkpoint')
    parser.add_argument('out', help='the new file: .safetensors, or .pth for a torch file')
    parser.add_argument(
        '--to',
        choices=forms(),
        help="the form (default: safetensors or pth by OUT's name; both have this project's names)",
    )
    parser.add_argument(
        '--denominator',
        choices=DENOMINATORS,
        help="what the weights were trained with, where the file does not tell: 'count' for files of March 2023",
    )
    parser.add_argument('--ema', action='store_true', help='take the averaged weights that stand beside the others')
    parser.add_argument('--force', action='store_true', help='replace OUT where it exists')
    args = parser.parse_args()
    form = args.to or ('safetensors' if args.out.endswith('.safetensors') else 'pth')
    options = dict(denominator=args.denominator, ema=args.ema, overwrite=args.force)
    try:
        print(convert(args.checkpoint, args.out, form, **options))
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
