"""The examples of docs/dense-tasks.md train on a data set of nobody's: circles and squares."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from processes import run_tool

ROOT = Path(__file__).parents[1]
EXAMPLES = dict(
    re.findall(
        r'<!-- example: (\w+) -->\n```python\n(.*?)```', (ROOT / 'docs' / 'dense-tasks.md').read_text(), re.DOTALL
    )
)
# A documented recipe on two cores: a smaller backbone's worth of blocks, small images, two steps.
SHORT = {
    'detection': [
        'train_cfg.max_epochs=1',
        'train_dataloader.dataset.pipeline.2.scale=(160,160)',
        'val_dataloader.dataset.pipeline.1.scale=(160,160)',
    ],
    'segmentation': [
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
        'train_dataloader.dataset.pipeline.2.scale=(128,128)',
        'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
        'val_dataloader.dataset.pipeline.1.scale=(128,128)',
        'model.data_preprocessor.size=(64,64)',
        'data_preprocessor.size=(64,64)',
    ],
}


def draw(seed):
    """An image with a circle and a square, and their label map (1 and 2)."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 60, (120, 160, 3), dtype=np.uint8))
    labels = Image.new('L', image.size)
    x, y = (int(v) for v in rng.integers(5, 40, 2))
    for label, box, color in (
        (1, (x, y, x + 45, y + 45), (230, 60, 60)),
        (2, (x + 60, y, x + 100, y + 40), (60, 90, 230)),
    ):
        for canvas, fill in ((image, color), (labels, label)):
            pen = ImageDraw.Draw(canvas)
            (pen.ellipse if label == 1 else pen.rectangle)(box, fill=fill)
    return image, labels


@pytest.fixture
def project(tmp_path):
    """A user's folder: configs/ with ours inside, and data/mine in both layouts."""
    configs = tmp_path / 'configs'
    configs.mkdir()
    for name in ('_base_', 'detection', 'segmentation'):
        (configs / name).symlink_to(ROOT / 'configs' / name)
    data = tmp_path / 'data' / 'mine'
    for split, seeds in (('train', range(4)), ('val', range(4, 6))):
        content = {
            'images': [],
            'annotations': [],
            'categories': [{'id': 7, 'name': 'circle'}, {'id': 9, 'name': 'square'}],
        }
        for seed in seeds:
            image, labels = draw(seed)
            for folder, picture, suffix in (
                ('images', image, 'jpg'),
                (f'images/{split}', image, 'jpg'),
                (f'maps/{split}', labels, 'png'),
            ):
                (data / folder).mkdir(parents=True, exist_ok=True)
                picture.save(data / folder / f'{seed}.{suffix}')
            content['images'].append({'id': seed, 'file_name': f'{seed}.jpg', 'height': 120, 'width': 160})
            for label in (1, 2):
                rows, cols = np.nonzero(np.asarray(labels) == label)
                x, y, w, h = (int(v) for v in (cols.min(), rows.min(), np.ptp(cols) + 1, np.ptp(rows) + 1))
                content['annotations'].append(
                    {
                        'id': 10 * seed + label,
                        'image_id': seed,
                        'category_id': 5 + 2 * label,
                        'bbox': [x, y, w, h],
                        'area': len(rows),
                        'iscrowd': 0,
                        'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    }
                )
        (data / f'{split}.json').write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_documented_config_checks_trains_and_evaluates(project, task):
    (project / 'configs' / 'mine.py').write_text(EXAMPLES[task])

    def run(tool, *arguments):
        script = ROOT / 'tools' / tool
        done = run_tool(script, 'configs/mine.py', *arguments, cwd=project, env={'CUDA_VISIBLE_DEVICES': ''})
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    assert 'No errors.' in run('dataset_converters/check_data.py')
    loaders = [f'{p}_dataloader.{k}' for p in ('train', 'val') for k in ('num_workers=0', 'persistent_workers=False')]
    out = run(
        'train.py',
        '--cfg-options',
        'model.backbone.init_cfg=None',
        'model.backbone.depths=(1,1,1,1)',
        *loaders,
        *SHORT[task],
    )
    if task == 'detection':
        assert 'coco/segm_mAP_50:' in out
    else:
        assert all(re.search(rf'\|\s+{name}\s+\|', out) for name in ('background', 'circle', 'square'))
