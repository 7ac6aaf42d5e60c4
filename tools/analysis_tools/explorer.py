#!/usr/bin/env python
"""A page to explore clusters in the browser.

python tools/analysis_tools/explorer.py --images data/digits/imagenet/val

Pick or upload an image, pick a model and a checkpoint, and a second one to compare; click on a point to see its cluster
and what is similar to it. The page is served to this machine alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from coc_core.mm.requirements import require

require('mmengine', 'gradio')

import gradio

from coc_core.errors import UserError
from coc_core.files import ending_in_order
from coc_core.mm.cli.options import add_debug_option
from coc_core.mm.cli.start import run_tool
from coc_core.mm.explorer.answers import find_checkpoints
from coc_core.mm.explorer.page import MAX_UPLOAD, build_page
from coc_core.visualization.files import list_images

ADDRESS = '127.0.0.1'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Explore the clusters of one or two checkpoints in the browser.')
    parser.add_argument('--images', type=Path, nargs='+', default=[], help='images to pick from: files or folders')
    parser.add_argument(
        '--checkpoints', type=Path, nargs='+', default=[Path('work_dirs')], help='files or folders (default: work_dirs)'
    )
    parser.add_argument('--model', help='config or variant to start with (default: the config beside the checkpoint)')
    parser.add_argument('--port', type=int, default=7860, help='port on 127.0.0.1 (default: 7860)')
    add_debug_option(parser)
    return parser.parse_args()


def serve(args: argparse.Namespace) -> None:
    """Serve the page until it is interrupted."""
    if not 0 < args.port < 65536:
        raise UserError(f'--port {args.port} must be from 1 to 65535.')
    # Gradio asks its own server whether it answers, which no proxy can tell it.
    for name in ('no_proxy', 'NO_PROXY'):
        os.environ[name] = ','.join(filter(None, [os.environ.get(name), ADDRESS]))
    with ending_in_order(), tempfile.TemporaryDirectory(prefix='clusters-') as folder:
        page = build_page(find_checkpoints(args.checkpoints), find_images(args.images), args.model, Path(folder))
        try:
            page.launch(
                server_name=ADDRESS,
                server_port=args.port,
                max_file_size=MAX_UPLOAD,
                share=False,
                ssr_mode=False,
                enable_monitoring=False,
                footer_links=[],
                quiet=True,
                prevent_thread_lock=True,
                # The default one would be fetched from the web.
                theme=gradio.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['monospace']),
            )
        except OSError as error:
            raise UserError(f'--port {args.port} cannot be used ({error}): name another one.') from error
        print(f'http://{ADDRESS}:{args.port} (Ctrl-C ends it)', flush=True)
        page.block_thread()


def find_images(places: list[Path]) -> list[str]:
    """Return the image files that are named or lie in folders; raises UserError where there are none."""
    found = []
    for place in places:
        if not place.exists():
            raise UserError(f'--images {place} does not exist.')
        found += [str(path) for path in (list_images(place) if place.is_dir() else [place])]
    return found


if __name__ == '__main__':
    sys.exit(run_tool(serve, parse_args()))
