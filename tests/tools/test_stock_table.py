"""The table of the packages' own tools in docs/stock-tools.md: each is run on a few digits and ends as it says.

Those that take long are marked ``stock`` and left out of ``make test``.
"""

import importlib.util
import json
import os
import pickle
import re
from pathlib import Path
from typing import NamedTuple

import mmseg
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from PIL import Image
from processes import run_tool

from coc_core.mm.configs import load_config
from coc_core.mm.models import build_model

ROOT = Path(__file__).parents[2]
PAGE = ROOT / 'docs' / 'stock-tools.md'
DATA = {'mmpretrain': 'imagenet', 'mmdet': 'coco/', 'mmseg': 'ade20k'}
BASES = {
    'mmpretrain': 'classification/coc-tiny_1xb32-12e_digits.py',
    'mmdet': 'detection/mask-rcnn_coc-tiny-4_fpn_1xb4-8e_digits.py',
    'mmseg': 'segmentation/fpn_coc-tiny-4_1xb8-2k_digits.py',
}
OTHERS = {
    'mmpretrain': "param_scheduler = [dict(type='LinearLR', end=2, convert_to_iter_based=True)]\n"
    'train_cfg = dict(max_epochs=1)\n',
    'mmdet': "val_evaluator = test_evaluator = dict(ann_file='{data}annotations/instances_val2017.json')\n"
    'model = dict(backbone=dict(init_cfg=None))\n',
    'mmseg': 'model = dict(backbone=dict(init_cfg=None))\n',
}
# What upstream's family does with them nobody has written down.
pytestmark = pytest.mark.skipif(mmseg.__version__ == '1.2.2', reason='the table is of the OneDL family')
UNPICKLED = r'WeightsUnpickler error: Unsupported global'


class Case(NamedTuple):
    """A tool with arguments in which {cfg}, {data} and so on stand for the files of its package.

    Attributes:
        tool: The package, and the tool's file in its ``tools``.
        arguments: The arguments.
        error: What it ends with where it fails, a pattern; '' where it works.
        written: A file that it must have written, a pattern.
        slow: Whether it is left out of ``make test``.
    """

    tool: str
    arguments: str
    error: str = ''
    written: str = ''
    slow: bool = False


CASES = [
    Case('mmpretrain/analysis_tools/analyze_logs.py', 'plot_curve {log} --keys loss --out o.png', written='o.png'),
    Case('mmpretrain/analysis_tools/analyze_results.py', '{cfg} {pkl} --out-dir o --topk 2', written='o/*/*.png'),
    Case('mmpretrain/analysis_tools/confusion_matrix.py', '{cfg} {pkl} --show-path o.png', written='o.png'),
    Case('mmpretrain/analysis_tools/eval_metric.py', '{pkl} --metric type=Accuracy topk=1,2'),
    Case('mmpretrain/analysis_tools/get_flops.py', '{cfg} --shape 64 64', slow=True),
    Case(
        'mmpretrain/visualization/browse_dataset.py', '{cfg} -o o --not-show -n 2 --mode original -p val',
        written='o/*.png',
    ),
    Case(
        'mmpretrain/visualization/browse_dataset.py', '{cfg} -o o --not-show -n 2', r'adjust_bbox\(\) missing',
        slow=True,
    ),
    Case('mmpretrain/visualization/vis_cam.py', '{image} {cfg} {ckpt} --save-path o.png', written='o.png'),
    Case('mmpretrain/visualization/vis_scheduler.py', '{cfg} --not-show -s o.png -d 64', written='o.png'),
    Case(
        'mmpretrain/visualization/vis_tsne.py',
        '{cfg} --checkpoint {ckpt} --work-dir o --perplexity 5 --max-num-samples 8 --device cpu --vis-stage backbone',
        written='o/*/*.png', slow=True,
    ),
    Case('mmpretrain/misc/print_config.py', '{cfg}', slow=True),
    Case('mmpretrain/misc/verify_dataset.py', '{cfg} --out-path o.log --phase test', slow=True),
    Case('mmpretrain/kfold-cross-valid.py', '{cfg} --num-splits 2 --fold 0 --work-dir o', slow=True),
    Case('mmpretrain/model_converters/publish_model.py', '{ckpt} o.pth', UNPICKLED),
    Case('mmdet/analysis_tools/analyze_logs.py', 'plot_curve {log} --keys loss --out o.png', "'dark' is not a valid"),
    Case(
        'mmdet/analysis_tools/analyze_logs.py', 'plot_curve {log} --keys loss --style dark_background --out o.png',
        written='o.png',
    ),
    Case('mmdet/analysis_tools/analyze_results.py', '{cfg} {pkl} o --topk 1', written='o/good/*.jpg', slow=True),
    Case(
        'mmdet/analysis_tools/benchmark.py', '{cfg} --task dataset --max-iter 3 --num-warmup 1 --dataset-type val',
        slow=True,
    ),
    Case('mmdet/analysis_tools/coco_error_analysis.py', '{json} o --ann {ann}', written='o/bbox/*.png', slow=True),
    Case('mmdet/analysis_tools/confusion_matrix.py', '{cfg} {pkl} o', written='o/confusion_matrix.png'),
    Case('mmdet/analysis_tools/eval_metric.py', '{cfg} {pkl}'),
    Case(
        'mmdet/analysis_tools/optimize_anchors.py',
        '{cfg} --algorithm k-means --input-shape 192 192 --device cpu --output-dir o', "no attribute 'bbox_head'",
        slow=True,
    ),
    Case('mmdet/analysis_tools/test_robustness.py', '{cfg} {ckpt} --out o.pkl', 'No module named .tools'),
    Case('mmdet/misc/print_config.py', '{cfg}', slow=True),
    Case('mmdet/misc/get_image_metas.py', '{cfg} --out o.pkl', 'must be csv or txt', slow=True),
    Case(
        'mmdet/misc/split_coco.py', '--data-root {data} --out-dir o --labeled-percent 50 --fold 1', written='o/*.json'
    ),
    Case('mmdet/model_converters/publish_model.py', '{ckpt} o.pth', UNPICKLED),
    Case('mmseg/analysis_tools/analyze_logs.py', '{log} --keys loss --out o.png', "No module named 'seaborn'"),
    Case('mmseg/analysis_tools/benchmark.py', '{cfg} {ckpt} --log-interval 1', slow=True),
    Case('mmseg/analysis_tools/confusion_matrix.py', '{cfg} {maps} o', "KeyError: 'classes'"),
    Case(
        'mmseg/analysis_tools/confusion_matrix.py', '{own} {maps} o', written='o/confusion_matrix.png', slow=True
    ),
    Case(
        'mmseg/analysis_tools/visualization_cam.py',
        '{image} {cfg} {ckpt} --target-layers backbone.outputs["3"] --category-index 4 --device cpu', 'use_cuda',
        slow=True,
    ),
    Case('mmseg/misc/browse_dataset.py', '{cfg} --output-dir o --not-show', 'class information is not provided'),
    Case('mmseg/misc/print_config.py', '{cfg}', slow=True),
    Case('mmseg/misc/publish_model.py', '{ckpt} o.pth', UNPICKLED),
    Case(
        'mmseg/deployment/pytorch2torchscript.py', '{cfg} --shape 96 96', 'test_cfg specified in both outer field',
        slow=True,
    ),
]  # fmt: skip
# By test_stock_tools.py and test_dense_tools.py.
TESTED_ELSEWHERE = {f'{package}/{name}.py' for package in DATA for name in ('train', 'test')} | {
    f'{package}/analysis_tools/{name}.py' for package in ('mmdet', 'mmseg') for name in ('get_flops', 'browse_dataset')
}


def installed(package):
    return Path(importlib.util.find_spec(package).origin).parent / '.mim' / 'tools'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Configs on a few digits, checkpoints of fresh models, a log, and predictions that are the truth."""
    folder = tmp_path_factory.mktemp('stock')
    tool = ROOT / 'tools' / 'dataset_converters' / 'make_digits_data.py'
    layouts = ['imagenet', 'coco', 'ade20k']
    assert run_tool(tool, '--out', folder / 'data', '--layout', *layouts, '--scenes', '10', '4').returncode == 0
    data = {scope: f'{folder}/data/{name}' for scope, name in DATA.items()}
    for scope, base in BASES.items():
        indices = {'train': 64, 'val': 20, 'test': 20} if scope == 'mmpretrain' else {}
        lines = [f"_base_ = '{ROOT / 'configs' / base}'", 'custom_hooks = []', OTHERS[scope].format(data=data[scope])]
        for phase in ('train', 'val', 'test'):
            few = f', indices={indices[phase]}' if indices else ''
            dataset = f"dict(data_root='{data[scope]}'{few})"
            lines.append(f'{phase}_dataloader = dict(num_workers=0, persistent_workers=False, dataset={dataset})')
        (folder / f'{scope}_digits.py').write_text('\n'.join(lines))
    own = ["_base_ = './mmseg_digits.py'", "custom_imports = dict(imports=['mmseg_plugin', 'digit_scenes'])"]
    own += [f"{phase}_dataloader = dict(dataset=dict(type='DigitScenes'))" for phase in ('train', 'val', 'test')]
    (folder / 'own_digits.py').write_text('\n'.join(own))
    (folder / 'digit_scenes.py').write_text(
        'from mmseg.datasets import BaseSegDataset\nfrom mmseg.registry import DATASETS\n\n'
        '@DATASETS.register_module()\nclass DigitScenes(BaseSegDataset):\n'
        "    METAINFO = dict(classes=('background', *'0123456789'), palette=[[9 * i] * 3 for i in range(11)])\n"
    )
    write_predictions(folder, data)
    steps = [{'loss': 2.0 - i / 10, 'lr': 0.1, 'time': 0.1, 'epoch': 1, 'iter': i, 'step': i} for i in range(1, 6)]
    (folder / 'scalars.json').write_text(''.join(f'{json.dumps(step)}\n' for step in steps))
    return folder


def write_predictions(folder, data):
    images = sorted(Path(data['mmpretrain']).glob('val/*/*.png'))[:20]
    labels = [int(path.parent.name) for path in images]
    samples = []
    for i, (path, label) in enumerate(zip(images, labels, strict=True)):
        scores = torch.eye(10)[label if i else (label + 1) % 10] * 0.8 + 0.02
        sample = dict(sample_idx=i, img_path=str(path), gt_label=torch.tensor([label]), num_classes=10)
        samples.append({**sample, 'pred_score': scores, 'pred_label': scores.argmax()[None]})
    (folder / 'mmpretrain.pkl').write_bytes(pickle.dumps(samples))
    content = json.loads(Path(f'{data["mmdet"]}annotations/instances_val2017.json').read_text())
    samples, results = [], []
    for image in content['images']:
        own = [entry for entry in content['annotations'] if entry['image_id'] == image['id']]
        boxes = np.array([entry['bbox'] for entry in own], np.float32)
        found = dict(
            bboxes=torch.tensor(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)),
            labels=torch.tensor([entry['category_id'] - 1 for entry in own]),
            scores=torch.full((len(own),), 0.9),
            masks=[entry['segmentation'] for entry in own],
        )
        size = (image['height'], image['width'])
        path = f'{data["mmdet"]}val2017/{image["file_name"]}'
        samples.append(dict(img_id=image['id'], img_path=path, ori_shape=size, img_shape=size, pred_instances=found))
        results += [{k: entry[k] for k in ('image_id', 'category_id', 'bbox')} | {'score': 0.9} for entry in own]
    (folder / 'mmdet.pkl').write_bytes(pickle.dumps(samples))
    (folder / 'mmdet.json').write_text(json.dumps(results))


def checkpoint(folder, scope):
    """Return the checkpoint of a fresh model, with what a training saves beside the weights."""
    path = folder / f'{scope}.pth'
    if not path.exists():
        model = build_model(load_config(str(folder / f'{scope}_digits.py'), {}), scope)
        hub = dict(log_scalars={'train/loss': HistoryBuffer([1.0], [1])})
        torch.save(dict(state_dict=model.state_dict(), meta={}, message_hub=hub), path)
    return path


def arguments(case, folder):
    scope = case.tool.split('/')[0]
    data = f'{folder}/data/{DATA[scope]}'
    validation = {'mmpretrain': 'val/8', 'mmdet': 'val2017', 'mmseg': 'images/validation'}[scope]
    known = dict(
        cfg=folder / f'{scope}_digits.py', own=folder / 'own_digits.py', log=folder / 'scalars.json', data=data,
        pkl=folder / f'{scope}.pkl', json=folder / 'mmdet.json', maps=f'{data}/annotations/validation',
        ann=f'{data}annotations/instances_val2017.json', image=sorted(Path(data, validation).iterdir())[0],
        ckpt=checkpoint(folder, scope) if '{ckpt}' in case.arguments else '',
    )  # fmt: skip
    return [word.format(**known) for word in case.arguments.split()]


@pytest.mark.parametrize(
    'case',
    [
        pytest.param(case, id=f'{case.tool}{"-fails" * bool(case.error)}', marks=[pytest.mark.stock] * case.slow)
        for case in CASES
    ],
)
def test_a_tool_ends_as_the_table_says(case, files, tmp_path):
    if 'cam.py' in case.tool:
        pytest.importorskip('pytorch_grad_cam')
    package, tool = case.tool.split('/', 1)
    path = os.pathsep.join([str(ROOT), str(files), os.environ.get('PYTHONPATH', '')])
    variables = {'PYTHONPATH': path, 'MPLBACKEND': 'Agg', 'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'}
    done = run_tool(installed(package) / tool, *arguments(case, files), cwd=tmp_path, env=variables)
    told = done.stdout[-3000:] + done.stderr[-3000:]
    assert (done.returncode != 0) == bool(case.error), told
    assert re.search(case.error, told)
    if case.written:
        written = list(tmp_path.glob(case.written))
        assert written
        assert written[0].suffix != '.png' or np.asarray(Image.open(written[0])).std() > 5


def rows():
    """Return the rows of the page's tables: tools, and whether each is said to work."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if line.startswith('| `'):
            for tool in re.findall(r'`([^`]+)`', cells[0]):
                found[tool] = cells[1].split(':')[0].split(',')[0]
    return found


def test_every_row_is_run_and_every_case_has_a_row():
    said = rows()
    outcomes = {tool: {'works'} for tool in TESTED_ELSEWHERE}
    for case in CASES:
        outcomes.setdefault(case.tool, set()).add('fails' if case.error else 'works')
    # Where one way works and another fails, the row says what makes it work.
    expected = {tool: kinds.pop() if len(kinds) == 1 else 'works with a note' for tool, kinds in outcomes.items()}
    assert {tool: word for tool, word in said.items() if word != 'not run'} == expected
    for tool in said:
        package, name = tool.split('/', 1)
        assert (installed(package) / name).exists(), tool
