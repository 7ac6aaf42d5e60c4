#!/usr/bin/env python
"""Write a trained model for other runtimes: `python tools/deployment/export_onnx.py CONFIG CHECKPOINT --out FILE`.

FILE.onnx is checked against PyTorch with ONNX Runtime and timed; FILE.pt2 is a program of `torch.export`. Classifiers
and segmenters are exported whole, of a detector the backbone: how many boxes it finds depends on the image, which
mmdet decides in Python. The batch is dynamic, image size and number of points are fixed. The graph holds plain
operators only.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from coc_core.mm.requirements import require

require('mmengine', 'onnx', 'onnxscript', 'onnxruntime')

import onnx
import onnxruntime
import torch

from coc_core import checkpoints
from coc_core.errors import UserError, during
from coc_core.files import replacing
from coc_core.mm.cli.options import add_config_options
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.models import build_model
from coc_core.mm.task import task_of
from coc_core.ops import set_implementation

TOLERANCE = 1e-4


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Export a trained model.')
    parser.add_argument('config', help='the config file')
    parser.add_argument('checkpoint', help='the checkpoint file, of this project or a published one')
    parser.add_argument('--out', required=True, type=Path, help='the new file: .onnx or .pt2 (torch.export)')
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        metavar='N',
        help='height and width of the images, or one number for both; number of points of a cloud '
        "(default: the config's test pipeline; detection and segmentation have none)",
    )
    parser.add_argument('--backbone', action='store_true', help='the backbone alone, with its maps as outputs')
    parser.add_argument('--opset', type=int, default=20, help='version of the ONNX operators (default: 20)')
    add_config_options(parser)
    return parser.parse_args()


def export(args: argparse.Namespace) -> None:
    """Export, check, time, and say what was written."""
    if args.out.suffix not in ('.onnx', '.pt2') or not args.out.parent.is_dir() or args.out.is_dir():
        raise UserError(f'--out {args.out}: name a .onnx or .pt2 file in a folder that exists.')
    cfg = load_config(args.config, args.cfg_options)
    task = task_of(cfg)
    shape = task.input_shape(cfg, args.size)
    model = build_model(cfg, args.config).eval()
    print(checkpoints.load(model, args.checkpoint))
    set_implementation(model, 'plain')
    module, names = task.backbone_part(model) if args.backbone else task.exported_part(model)
    torch.manual_seed(0)
    # It tells what it could not simplify.
    logging.getLogger('onnxscript').setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings(), replacing(args.out) as beside:
        warnings.simplefilter('ignore')
        with during(f'running the model on an input of shape {[1, *shape]} (--size changes it)'):
            outputs = module(torch.randn(1, *shape))
        if isinstance(outputs, (list, tuple)) and len(outputs) != len(names):
            # Not every backbone says which of its maps it returns.
            names = [f'map{place}' for place in range(len(outputs))]
        lines = write(module, names, shape, beside, args)
    print('\n'.join([f'{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB', *(f'  {line}' for line in lines)]))


def write(module: Any, names: list[str], shape: tuple[int, ...], path: Path, args: argparse.Namespace) -> list[str]:
    """Write the file; returns what is to be said of it."""
    batch = {0: torch.export.Dim('batch')}
    examples = torch.randn(2, *shape)
    if args.out.suffix == '.pt2':
        program = torch.export.export(module, (examples,), dynamic_shapes=(batch,), strict=False)
        # In memory first: writing to a full disk it fails in words of its own.
        stream = io.BytesIO()
        torch.export.save(program, stream)
        path.write_bytes(stream.getbuffer())
        with path.open('rb') as stream:
            loaded = torch.export.load(stream).module()
        return [f'input: [batch, {", ".join(map(str, shape))}]', compare(module, loaded, shape)]
    program = torch.onnx.export(
        module,
        (examples,),
        dynamo=True,
        dynamic_shapes=(batch,),
        input_names=['points' if len(shape) == 2 else 'images'],
        output_names=names,
        opset_version=args.opset,
        verbose=False,
    )
    program.save(path, external_data=False)
    return describe(module, names, shape, path, args.opset)


def describe(module: Any, names: list[str], shape: tuple[int, ...], path: Path, wanted: int) -> list[str]:
    """Read an ONNX file back, compares it with PyTorch and times both."""
    graph = onnx.load(path)
    domains = Counter(node.domain or 'ai.onnx' for node in graph.graph.node)
    if set(domains) != {'ai.onnx'}:
        raise UserError(f'The graph has operators that are not of ONNX: {", ".join(sorted(domains))}.')
    opset = next(entry.version for entry in graph.opset_import if entry.domain in ('', 'ai.onnx'))
    if opset != wanted:
        raise UserError(
            f'--opset {wanted} cannot be written: the exporter gives {opset}. Leave it out, or name {opset}.'
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    entry = session.get_inputs()[0].name

    def run(examples: Any) -> Any:
        found = [torch.from_numpy(output) for output in session.run(None, {entry: examples.numpy()})]
        return found[0] if len(found) == 1 else tuple(found)

    return [
        f'opset {opset}, {sum(domains.values())} nodes, plain ONNX operators only',
        f'input: {entry} [batch, {", ".join(map(str, shape))}], as the data preprocessor gives it; batch is dynamic, '
        'the rest is fixed',
        f'outputs: {", ".join(names)}',
        compare(module, run, shape),
        speeds(module, run, shape),
    ]


def compare(module: Any, run: Callable[[Any], Any], shape: tuple[int, ...]) -> str:
    """Compare with PyTorch on several inputs, the last of them a batch of three.

    A point that is as near to one center as to another may join the other one where sums are rounded differently, and
    changes its whole cluster: some inputs may differ by more, but a wrong graph agrees on none.

    Raises:
        UserError: On no input do all outputs agree to TOLERANCE of the largest value.
    """
    differences = []
    for batch in (1, 1, 1, 1, 3):
        examples = torch.randn(batch, *shape)
        outputs = (out if isinstance(out, tuple) else (out,) for out in (module(examples), run(examples)))
        pairs = zip(*outputs, strict=True)
        differences.append(max(float((a - b).abs().max() / a.abs().max().clamp_min(1.0)) for a, b in pairs))
    agree = [difference for difference in differences if difference <= TOLERANCE]
    if not agree:
        raise UserError(
            f'The export is wrong: it differs from PyTorch by {min(differences):.1e} or more; allowed: {TOLERANCE:.0e}.'
        )
    told = f'agrees with PyTorch to {max(agree):.1e} on {len(agree)} of {len(differences)} random inputs'
    return f'{told} (allowed: {TOLERANCE:.0e}, relative where outputs exceed 1)' + (
        '' if len(agree) == len(differences) else f'; to {max(differences):.1e} where a point changed its cluster'
    )


def speeds(module: Any, run: Callable[[Any], Any], shape: tuple[int, ...], repeats: int = 10) -> str:
    """Time both, in turns, on one input."""
    examples = torch.randn(1, *shape)
    times: dict[str, list[float]] = {'PyTorch': [], 'ONNX Runtime': []}
    for _ in range(repeats):
        for name, call in (('PyTorch', module), ('ONNX Runtime', run)):
            start = time.perf_counter()
            call(examples)
            times[name].append(time.perf_counter() - start)
    eager, other = (statistics.median(values) * 1e3 for values in times.values())
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    busy = (
        f'; load {load:.1f}: others compute here too, so this says little' if load > 0.7 * (os.cpu_count() or 1) else ''
    )
    return (
        f'one input, CPU, {threads} threads: PyTorch {eager:.1f} ms, ONNX Runtime {other:.1f} ms '
        f'({eager / other:.2f}x{busy})'
    )


if __name__ == '__main__':
    sys.exit(run_tool(export, parse_args()))
