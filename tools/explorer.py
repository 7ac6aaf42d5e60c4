#!/usr/bin/env python
"""A page to explore clusters in the browser: `python tools/explorer.py --images data/digits/imagenet/val`.

Pick or upload an image, pick a model and a checkpoint, and a second one to compare; click on a point to see its cluster
and what is similar to it. The page is served to this machine alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coc_core.mm.entry import start

ADDRESS = '127.0.0.1'


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description='Explore the clusters of one or two checkpoints in the browser.')
    parser.add_argument('--images', type=Path, nargs='+', default=[], help='images to pick from: files or folders')
    parser.add_argument(
        '--checkpoints', type=Path, nargs='+', default=[Path('work_dirs')], help='files or folders (default: work_dirs)'
    )
    parser.add_argument('--model', help='config or variant that the page starts with (default: that of the checkpoint)')
    parser.add_argument('--port', type=int, default=7860, help='port on 127.0.0.1 (default: 7860)')
    parser.add_argument('--debug', action='store_true', help='show stack traces instead of one sentence')
    return parser.parse_args()


def serve(args: argparse.Namespace) -> None:
    """Serves the page until it is interrupted."""
    from coc_core.mm.cluster_explorer import find_checkpoints
    from coc_core.mm.errors import LaunchError

    try:
        import gradio
    except ModuleNotFoundError as error:
        raise LaunchError(f'{error.name} is not installed: run `make setup`, or `pip install gradio`.') from error
    from coc_core.mm.explorer_page import MAX_UPLOAD, build_page

    with tempfile.TemporaryDirectory(prefix='clusters-') as folder:
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
            raise LaunchError(f'--port {args.port} cannot be used ({error}): name another one.') from error
        print(f'http://{ADDRESS}:{args.port} (Ctrl-C ends it)', flush=True)
        page.block_thread()


def find_images(places: list[Path]) -> list[str]:
    """Returns the image files that are named or lie in folders; raises LaunchError where there are none."""
    from coc_core.mm.errors import LaunchError
    from coc_core.visualization.files import list_images

    found = []
    for place in places:
        if not place.exists():
            raise LaunchError(f'--images {place} does not exist.')
        try:
            found += [str(path) for path in (list_images(place) if place.is_dir() else [place])]
        except ValueError as error:
            raise LaunchError(str(error)) from error
    return found


if __name__ == '__main__':
    sys.exit(start(serve, parse_args))
