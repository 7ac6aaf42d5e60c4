"""Predictions of files: what testing predicts of the same pictures, written once, whoever stops and shares the work."""

import json
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from processes import run_tool
from pycocotools.coco import COCO

from coc_core.mm.configs import load_config
from coc_core.mm.models import build_model
from coc_core.mm.option_values import OptionText

ROOT = Path(__file__).parents[2]
CONFIGS = {
    'mmpretrain': ROOT / 'configs' / 'classification' / 'coc-tiny_1xb32-12e_digits.py',
    'mmdet': ROOT / 'configs' / 'detection' / 'mask-rcnn_coc-tiny-4_fpn_1xb4-8e_digits.py',
    'mmseg': ROOT / 'configs' / 'segmentation' / 'fpn_coc-tiny-4_1xb8-2k_digits.py',
    'pointcloud': ROOT / 'configs' / 'pointcloud' / 'pointmlp-coc_1xb16-12e_digits.py',
}
# Height and width as they are loaded: the second is stored lying down.
SIZES = {'deep.png': (48, 64), 'turned.jpg': (80, 56), 'wide.png': (40, 90)}
SMALL_CLOUDS = [
    'model.backbone.embed_dim=4', 'model.backbone.anchors=(24,16,12,8)', 'model.backbone.neighbors=6',
    'test_dataloader.dataset.pipeline.0.num_points=32',
]  # fmt: skip


def run(tool, *arguments, expect=0):
    done = run_tool(ROOT / 'tools' / tool, *arguments, env={'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == expect, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stderr


def rows_of(out, name='predictions'):
    return [json.loads(line) for line in (out / f'{name}.jsonl').read_text().splitlines()]


def save_model(scope, path, options=()):
    torch.manual_seed(0)
    given = {key: OptionText(text) for key, _, text in (option.partition('=') for option in options)}
    model = build_model(load_config(str(CONFIGS[scope]), given), scope)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)
    return model


def draw_pictures(folder):
    """A picture of 16 bits, one that its EXIF orientation turns, and a plain one."""
    random = np.random.default_rng(0)
    coarse = {name: random.integers(0, 256, (4, 5, 3), dtype=np.uint8) for name in SIZES}
    for name, (height, width) in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(coarse[name]).resize((width, height))
        if name == 'turned.jpg':
            exif = Image.Exif()
            exif[0x0112] = 6
            image.transpose(Image.Transpose.ROTATE_90).save(folder / name, exif=exif, quality=95)
        elif name == 'deep.png':
            gray = np.asarray(image.convert('L')).astype(np.uint16) * 257 - 100
            Image.fromarray(gray).save(folder / name)
        else:
            image.save(folder / name)


class Data:
    """The same pictures in the layouts of three tasks, some clouds, and untrained checkpoints."""

    def __init__(self, folder):
        self.folder = folder
        self.pictures = folder / 'ade20k' / 'images' / 'validation'
        draw_pictures(self.pictures)
        self._write_classes()
        self._write_coco()
        for name, size in SIZES.items():
            path = folder / 'ade20k' / 'annotations' / 'validation' / f'{Path(name).stem}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ones(size, np.uint8)).save(path)
        self.clouds = folder / 'points' / 'main_split' / 'test_objectdataset_augmentedrot_scale75.h5'
        self.clouds.parent.mkdir(parents=True)
        with h5py.File(self.clouds, 'w') as file:
            file['data'] = np.random.default_rng(0).normal(size=(5, 40, 3)).astype(np.float32)
            file['label'] = np.arange(5)

    def _write_classes(self):
        names = [*SIZES, *(f'{number}.png' for number in range(3, 10))]
        for label, name in enumerate(names):
            path = self.folder / 'imagenet' / 'val' / str(label) / name
            path.parent.mkdir(parents=True)
            if name in SIZES:
                path.write_bytes((self.pictures / name).read_bytes())
            else:
                Image.new('RGB', (20, 20)).save(path)

    def _write_coco(self):
        images = [dict(id=i + 1, file_name=name, height=h, width=w) for i, (name, (h, w)) in enumerate(SIZES.items())]
        square = dict(bbox=[5, 5, 20, 20], area=400, iscrowd=0, segmentation=[[5, 5, 25, 5, 25, 25, 5, 25]])
        annotations = [dict(square, id=i + 1, image_id=i + 1, category_id=i + 1) for i in range(3)]
        categories = [dict(id=i + 1, name=str(i)) for i in range(10)]
        self.annotations = self.folder / 'annotations.json'
        self.annotations.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))

    def options(self, scope):
        dataset = 'test_dataloader.dataset'
        options = {
            'mmpretrain': [f'{dataset}.data_root={self.folder}/imagenet'],
            'mmdet': [
                f'{dataset}.data_root={self.folder}', f'{dataset}.ann_file=annotations.json',
                f'{dataset}.data_prefix.img=ade20k/images/validation', f'test_evaluator.ann_file={self.annotations}',
            ],
            'mmseg': [f'{dataset}.data_root={self.folder}/ade20k'],
            'pointcloud': [f'{dataset}.data_root={self.folder}/points', *SMALL_CLOUDS],
        }[scope]  # fmt: skip
        workers = ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']
        if scope == 'mmseg':
            # mmseg looks for pictures of one ending, and takes those of a batch only if they have one size.
            options += [f'{dataset}.img_suffix=.png', 'test_dataloader.batch_size=1']
        return ['--cfg-options', *options, *workers]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return Data(tmp_path_factory.mktemp('predict'))


def compare_classes(tested, rows):
    """The scores of the test are those of the table, by the pictures' names."""
    scores = {Path(sample['img_path']).name: sample['pred_score'] for sample in tested}
    for row in rows:
        expected = scores[Path(row['path']).name].sort(descending=True)
        assert [entry['label'] for entry in row['top']] == expected.indices[:5].tolist()
        assert [entry['score'] for entry in row['top']] == pytest.approx(expected.values[:5].tolist(), abs=2e-6)
        assert row['class'] == row['top'][0]['class'] == str(row['label'])


def compare_objects(tested, rows):
    """Boxes, masks, scores and labels are those of the test, in their order."""
    found = {Path(sample['img_path']).name: sample['pred_instances'] for sample in tested}
    for row in rows:
        expected = found[Path(row['path']).name]
        assert row['count'] == len(expected['scores']) == len(row['objects']) > 0
        assert sum(row['classes'].values()) == row['count']
        for place, entry in enumerate(row['objects']):
            assert entry['label'] == expected['labels'][place] and entry['class'] == str(entry['label'])
            assert entry['score'] == pytest.approx(float(expected['scores'][place]), abs=2e-6)
            assert entry['box'] == pytest.approx(expected['bboxes'][place].tolist(), abs=2e-3)
            assert entry['mask']['counts'].encode() == expected['masks'][place]['counts']


def compare_clouds(tested, rows):
    for row, sample in zip(rows, tested, strict=True):
        assert row['label'] == int(sample['pred_scores'].argmax()) and row['points'] == 40
        assert row['score'] == pytest.approx(float(sample['pred_scores'].max()), abs=2e-6)
    assert [row['frame'] for row in rows] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ('scope', 'compare'),
    [('mmpretrain', compare_classes), ('mmdet', compare_objects), ('pointcloud', compare_clouds)],
)
def test_it_predicts_what_testing_predicts(data, scope, compare, tmp_path):
    checkpoint, options = tmp_path / 'model.pth', data.options(scope)
    save_model(scope, checkpoint, SMALL_CLOUDS if scope == 'pointcloud' else ())
    run(
        'test.py',
        CONFIGS[scope],
        checkpoint,
        '--work-dir',
        tmp_path / 'work',
        '--out',
        tmp_path / 'tested.pkl',
        *options,
    )
    source = data.clouds if scope == 'pointcloud' else data.pictures
    more = ['--score', '0'] if scope == 'mmdet' else []
    out = tmp_path / 'out'
    common = ['--config', CONFIGS[scope], '--checkpoint', checkpoint, '--out', out, '--workers', '1']
    run('predict.py', source, *common, '--batch-size', '3', *more, *options)
    rows = rows_of(out)
    compare(pickle.loads((tmp_path / 'tested.pkl').read_bytes()), rows)
    assert len({row['picture'] for row in rows}) == len(rows)
    assert all(np.asarray(Image.open(out / row['picture'])).std() > 5 for row in rows)
    if scope != 'pointcloud':
        assert {Path(row['path']).name: (row['height'], row['width']) for row in rows} == SIZES
        assert all(row['frame'] is None and row['path'].startswith('/') for row in rows)
    if scope == 'mmdet':
        compare_with_coco(out, rows)


def compare_with_coco(out, rows):
    """COCO's own tools read the results, and find every object."""
    images = COCO(str(out / 'predictions.coco-images.json'))
    results = images.loadRes(str(out / 'predictions.coco-results.json'))
    names = {image['id']: image['file_name'] for image in images.loadImgs(images.getImgIds())}
    assert sorted(names.values()) == sorted(row['path'] for row in rows)
    for row in rows:
        (number,) = (number for number, name in names.items() if name == row['path'])
        found = results.loadAnns(results.getAnnIds(imgIds=[number]))
        assert len(found) == row['count']
        left, top, right, bottom = row['objects'][0]['box']
        assert found[0]['bbox'] == pytest.approx([left, top, right - left, bottom - top], abs=2e-3)
        category = images.loadCats(found[0]['category_id'])[0]['name']
        assert category == row['objects'][0]['class']
        assert results.annToMask(found[0]).shape == (row['height'], row['width'])


def test_label_maps_are_those_of_testing_in_the_colors_of_the_data(data, tmp_path):
    checkpoint, options = tmp_path / 'model.pth', data.options('mmseg')
    save_model('mmseg', checkpoint)
    tested, out = tmp_path / 'tested', tmp_path / 'out'
    run('test.py', CONFIGS['mmseg'], checkpoint, '--work-dir', tmp_path / 'work', '--out', tested, *options)
    torn = tmp_path / 'torn.jpg'
    torn.write_bytes((data.pictures / 'turned.jpg').read_bytes()[:-200])
    common = ['--config', CONFIGS['mmseg'], '--checkpoint', checkpoint, '--out', out, '--workers', '0']
    told = run('predict.py', torn, data.pictures, *common, '--batch-size', '3', *options, expect=1)
    assert f'{torn} cannot be read as an image (it is truncated): replace or remove it.' in told
    assert 'Traceback' not in told and 'error while' not in told
    rows = rows_of(out)
    assert [Path(row['path']).name for row in rows] == sorted(SIZES)
    palette = load_config(str(CONFIGS['mmseg'])).palette
    for row in rows:
        labels = Image.open(out / row['label_map'])
        values = np.asarray(labels)
        assert values.shape == SIZES[Path(row['path']).name]
        same = tested / f'{Path(row["path"]).stem}.png'
        assert not same.exists() or np.array_equal(values, np.asarray(Image.open(same)))
        # In its files, the data set's labels begin at 1.
        label = row['classes'][0]['label']
        assert (values == label + 1).sum() == row['classes'][0]['pixels']
        assert row['classes'][0]['share'] == pytest.approx(row['classes'][0]['pixels'] / values.size, abs=1e-6)
        assert labels.getpalette()[3 * (label + 1) : 3 * (label + 2)] == palette[label]
        assert sum(entry['pixels'] for entry in row['classes']) == values.size
    assert len(list(tested.iterdir())) == 2
