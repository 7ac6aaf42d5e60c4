#!/usr/bin/env python
"""Writes a trained model for other runtimes: `python tools/export_onnx.py CONFIG CHECKPOINT --out FILE`.

FILE.onnx is checked against PyTorch with ONNX Runtime and timed; FILE.pt2 is a program of `torch.export`. A classifier
is exported whole, of detection and segmentation the backbone. The batch is dynamic, image size and number of points
are fixed. The graph holds plain operators only.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coc_core.mm.entry import start

TOLERANCE = 1e-4


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    from coc_core.mm.launch import add_config_options

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
    parser.add_argument('--opset', type=int, default=20, help='version of the ONNX operators (default: 20)')
    add_config_options(parser)
    return parser.parse_args()


def export(args: argparse.Namespace) -> None:
    """Exports, checks, times, and says what was written."""
    import torch
    from mmengine.registry import MODELS, init_default_scope

    from coc_core import checkpoints
    from coc_core.mm.errors import LaunchError
    from coc_core.mm.launch import load_config, replace_sync_batch_norm

    if args.out.suffix not in ('.onnx', '.pt2') or not args.out.parent.is_dir() or args.out.is_dir():
        raise LaunchError(f'--out {args.out}: name a .onnx or .pt2 file in a folder that exists.')
    cfg = load_config(args.config, args.cfg_options)
    shape = input_shape(cfg, args.size)
    init_default_scope(cfg.default_scope)
    replace_sync_batch_norm(cfg.model)
    try:
        model = MODELS.build(cfg.model).eval()
    except (KeyError, TypeError, ValueError) as error:
        raise LaunchError(f'The model of {args.config} cannot be built: {error}') from error
    print(checkpoints.load(model, args.checkpoint))
    module, names = exported_part(model, cfg.default_scope)
    torch.manual_seed(0)
    # It tells what it could not simplify.
    logging.getLogger('onnxscript').setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix='.') as folder:
        beside = Path(folder) / args.out.name
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                module(torch.randn(1, *shape))
            except (ValueError, RuntimeError) as error:
                raise LaunchError(f'The model does not take an input of shape {[1, *shape]}: {error}') from error
            lines = write(module, names, shape, beside, args)
        os.replace(beside, args.out)
    print('\n'.join([f'{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB', *(f'  {line}' for line in lines)]))


def input_shape(cfg: Any, size: list[int] | None) -> tuple[int, ...]:
    """Returns the shape of one input, without the batch."""
    from coc_core.mm.errors import LaunchError

    points = cfg.default_scope == 'pointcloud'
    if size is None:
        pipeline = cfg.test_dataloader.dataset.pipeline
        found = [step.get(key) for step in pipeline for key in ('num_points', 'scale', 'crop_size')]
        # Detection and segmentation give a scale of two numbers, which images are fitted into.
        size = next(([number] for number in reversed(found) if isinstance(number, int)), None)
    if size is None:
        raise LaunchError(f'{cfg.default_scope} has no fixed image size: say it with --size HEIGHT WIDTH.')
    if len(size) > (1 if points else 2) or min(size) < 1:
        raise LaunchError(f'--size {" ".join(map(str, size))}: give {"one number" if points else "height and width"}.')
    channels = cfg.model.backbone.get('in_channels', 3)
    return (size[0], 3) if points else (channels, size[0], size[-1])


def exported_part(model: Any, scope: str) -> tuple[Any, list[str]]:
    """Returns what is exported of a model, with plain operators inside, and the names of its outputs."""
    from coc_core.ops import set_implementation

    set_implementation(model, 'plain')
    if scope in ('mmdet', 'mmseg'):
        return model.backbone, [f'stage{i}' for i in getattr(model.backbone, 'out_indices', range(4))]
    return model, ['logits']


def write(module: Any, names: list[str], shape: tuple[int, ...], path: Path, args: argparse.Namespace) -> list[str]:
    """Writes the file; returns what is to be said of it."""
    import torch

    batch = {0: torch.export.Dim('batch')}
    examples = torch.randn(2, *shape)
    if args.out.suffix == '.pt2':
        program = torch.export.export(module, (examples,), dynamic_shapes=(batch,), strict=False)
        with path.open('wb') as stream:
            torch.export.save(program, stream)
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
    """Reads an ONNX file back, compares it with PyTorch and times both."""
    import onnx
    import onnxruntime
    import torch

    from coc_core.mm.errors import LaunchError

    graph = onnx.load(path)
    domains = Counter(node.domain or 'ai.onnx' for node in graph.graph.node)
    if set(domains) != {'ai.onnx'}:
        raise LaunchError(f'The graph has operators that are not of ONNX: {", ".join(sorted(domains))}.')
    opset = next(entry.version for entry in graph.opset_import if entry.domain in ('', 'ai.onnx'))
    if opset != wanted:
        raise LaunchError(
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
    """Compares with PyTorch on several inputs, the last of them a batch of three.

    A point that is as near to one center as to another may join the other one where sums are rounded differently, and
    changes its whole cluster: some inputs may differ by more, but a wrong graph agrees on none.

    Raises:
        LaunchError: On no input do all outputs agree to TOLERANCE of the largest value.
    """
    import torch

    from coc_core.mm.errors import LaunchError

    differences = []
    for batch in (1, 1, 1, 1, 3):
        examples = torch.randn(batch, *shape)
        outputs = (out if isinstance(out, tuple) else (out,) for out in (module(examples), run(examples)))
        pairs = zip(*outputs, strict=True)
        differences.append(max(float((a - b).abs().max() / a.abs().max().clamp_min(1.0)) for a, b in pairs))
    agree = [difference for difference in differences if difference <= TOLERANCE]
    if not agree:
        raise LaunchError(
            f'The export is wrong: it differs from PyTorch by {min(differences):.1e} or more; allowed: {TOLERANCE:.0e}.'
        )
    told = f'agrees with PyTorch to {max(agree):.1e} on {len(agree)} of {len(differences)} random inputs'
    return f'{told} (allowed: {TOLERANCE:.0e}, relative where outputs exceed 1)' + (
        '' if len(agree) == len(differences) else f'; to {max(differences):.1e} where a point changed its cluster'
    )


def speeds(module: Any, run: Callable[[Any], Any], shape: tuple[int, ...], repeats: int = 10) -> str:
    """Times both, in turns, on one input."""
    import torch

    examples = torch.randn(1, *shape)
    times: dict[str, list[float]] = {'PyTorch': [], 'ONNX Runtime': []}
    for _ in range(repeats):
        for name, call in (('PyTorch', module), ('ONNX Runtime', run)):
            start = time.perf_counter()
            call(examples)
            times[name].append(time.perf_counter() - start)
    eager, other = (statistics.median(values) * 1e3 for values in times.values())
    threads = torch.get_num_threads()
    return (
        f'one input, CPU, {threads} threads: PyTorch {eager:.1f} ms, ONNX Runtime {other:.1f} ms ({eager / other:.2f}x)'
    )


if __name__ == '__main__':
    sys.exit(start(export, parse_args))
