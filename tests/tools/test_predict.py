"""Predictions of files: what testing predicts of the same pictures, written once, whoever stops and shares the work."""

import csv
import importlib.util
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from coc_core.mm.configs import load_config
from coc_core.mm.models import build_model
from coc_core.mm.option_values import OptionText
from coc_core.visualization.files import read_frames, write_film

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
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
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


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('predict', ROOT / 'tools' / 'predict.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.fixture
def predict(tool, certain, monkeypatch, capsys):
    """Call the tool in this process with the classifier that is certain; return what it says on stderr."""

    def call(*arguments, expect=0, config=CONFIGS['mmpretrain'], workers=0):
        common = ['--config', config, '--checkpoint', certain, '--workers', workers, '--no-pictures', '--batch-size', 4]
        monkeypatch.setattr(sys, 'argv', ['predict.py', *map(str, [*arguments, *common])])
        code = tool.main()
        told = capsys.readouterr()
        assert code == expect, told.err
        return told.out + told.err

    return call


@pytest.fixture(scope='module')
def certain(tmp_path_factory):
    """A classifier that gives every picture the same scores: 0.5 to class 3, 0.25 to class 1, little to the others."""
    path = tmp_path_factory.mktemp('certain') / 'model.pth'
    model = save_model('mmpretrain', path)
    scores = [0.25 / 8] * 10
    scores[3], scores[1] = 0.5, 0.25
    with torch.no_grad():
        model.head.fc.weight.zero_()
        model.head.fc.bias.copy_(torch.tensor([math.log(score) for score in scores]))
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Seven pictures in two folders, a film of six frames, and what is no picture."""
    folder = tmp_path / 'photos'
    random = np.random.default_rng(0)
    for place in range(7):
        path = folder / ('a' if place < 4 else 'b') / f'{place}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    write_film(folder / 'film.gif', [random.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(6)], rate=5)
    (folder / 'notes.md').write_text('notes')
    return folder


def test_the_table_by_hand(predict, folder, tmp_path):
    out = tmp_path / 'out'
    told = predict(
        folder / 'a' / '0.png', folder / 'film.gif', '--every', 3, '--top-k', 2, '--table', 'csv', '--out', out
    )
    assert f'3 predicted: {out / "predictions.jsonl"}, {out / "predictions.csv"}' in told
    common = {
        'class': '3', 'label': 3, 'score': 0.5,
        'top': [{'class': '3', 'label': 3, 'score': 0.5}, {'class': '1', 'label': 1, 'score': 0.25}],
    }  # fmt: skip
    film = {'path': str(folder / 'film.gif'), 'height': 16, 'width': 16, **common}
    expected = [
        {'path': str(folder / 'a' / '0.png'), 'frame': None, 'height': 20, 'width': 30, **common},
        {**film, 'frame': 0},
        {**film, 'frame': 3},
    ]
    assert rows_of(out) == expected
    with (out / 'predictions.csv').open(newline='') as file:
        cells = list(csv.DictReader(file))
    assert [(row['path'], row['frame'], row['score']) for row in cells] == [
        (row['path'], '' if row['frame'] is None else str(row['frame']), '0.5') for row in expected
    ]
    assert json.loads(cells[0]['top']) == common['top']


def test_what_is_done_is_not_done_again(predict, folder, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    (folder / 'b' / 'broken.png').write_bytes(b'\x89PNG\r\n\x1a\nnothing')
    told = predict(folder, '--out', out, expect=1, workers=2)
    assert 'Passed over as no images: 1 .md.' in told and '13 predicted, 1 could not be predicted' in told
    assert f'{folder / "b" / "broken.png"} cannot be read as an image' in told and 'error while' not in told
    table = out / 'predictions.jsonl'
    lines = table.read_bytes().splitlines(keepends=True)
    assert len(lines) == 13
    # What a kill leaves: the last lines are missing, and one is torn.
    table.write_bytes(b''.join(lines[:9]) + lines[9][:-20])
    Image.new('RGB', (8, 8)).save(folder / 'b' / 'broken.png')
    told = predict(folder, '--out', out)
    assert '5 predicted (9 were there before)' in told
    assert table.read_bytes().splitlines(keepends=True)[:9] == lines[:9]
    keys = [(row['path'], row['frame']) for row in rows_of(out)]
    assert len(keys) == len(set(keys)) == 14
    assert '0 predicted (14 were there before)' in predict(folder, '--out', out)


def test_other_settings_are_told_and_overwritten_on_demand(predict, folder, tmp_path):
    out = tmp_path / 'out'
    predict(folder / 'a', '--out', out)
    told = predict(
        folder / 'a', '--out', out, '--top-k', 3, '--cfg-options', 'model.backbone.denominator=count', expect=2
    )
    assert 'config was' in told and 'is another of that name; top_k was 5 and is 3)' in told and '--overwrite' in told
    told = predict(folder / 'a', '--out', out, '--num-shards', 2, '--shard', 0, expect=2)
    assert f'{out} holds predictions of 1 shard(s), but --num-shards is 2' in told
    assert '4 predicted:' in predict(folder / 'a', '--out', out, '--top-k', 3, '--overwrite')
    assert [len(row['top']) for row in rows_of(out)] == [3] * 4


def test_shards_have_everything_once(predict, folder, tmp_path):
    out = tmp_path / 'out'
    parts = []
    for shard in range(3):
        predict(folder, '--out', out, '--num-shards', 3, '--shard', shard, workers=shard)
        parts.append(rows_of(out, f'predictions-{shard:05d}-of-00003'))
    keys = [(row['path'], row['frame']) for part in parts for row in part]
    assert len(keys) == len(set(keys)) == 13
    assert {frame for path, frame in keys if path.endswith('.gif')} == set(range(6)) and all(parts)


def test_a_frame_is_predicted_as_its_picture(tool, data, folder, tmp_path):
    checkpoint = tmp_path / 'model.pth'
    save_model('mmpretrain', checkpoint)
    paths = [tmp_path / f'{place}.png' for place in range(6)]
    for path, frame in zip(paths, read_frames(folder / 'film.gif'), strict=True):
        Image.fromarray(frame).save(path)
    predictor = tool.Predictor.from_config(str(CONFIGS['mmpretrain']), str(checkpoint), device='cpu')
    film = predictor.rows([str(folder / 'film.gif')])
    assert [row['top'] for row in film] == [row['top'] for row in predictor.rows([str(path) for path in paths])]
    assert len({str(row['top']) for row in film}) == 6
    (lost,) = predictor.rows([str(tmp_path / 'lost.png')])
    assert lost['path'] == str(tmp_path / 'lost.png') and 'does not exist' in lost['problem']


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['nowhere'], 'The input nowhere does not exist.'),
        (['*.nothing'], 'The pattern *.nothing matches no file.'),
        (['{folder}/empty'], '/empty holds no images (.png, '),
        (['{folder}', '--num-shards', '2'], '--num-shards 2 needs --shard I, from 0 to 1.'),
        (['{folder}', '--num-shards', '2', '--shard', '2'], '--shard 2 must be from 0 to 1'),
        (['{folder}', '--every', '0'], '--every 0 must be at least 1.'),
        (['{folder}', '--top-k', '0'], '--top-k 0 must be at least 1.'),
        (['{folder}', '--score', '0.5'], '--score 0.5 is the least score of an object, and this model finds no'),
        (['{folder}', '--device', 'abacus'], '--device abacus cannot be used ('),
        (['{folder}', '--out', '{folder}/notes.md'], 'notes.md is a file: name a folder.'),
    ],
)
def test_usage_errors(predict, folder, tmp_path, arguments, sentence):
    (folder / 'empty').mkdir()
    told = predict(*(word.format(folder=folder) for word in ['--out', str(tmp_path / 'out'), *arguments]), expect=2)
    assert sentence in told and 'Traceback' not in told


def test_masks_are_not_averaged(predict, folder):
    told = predict(folder, '--tta', expect=2, config=CONFIGS['mmdet'])
    assert 'error: --tta: mmdet averages boxes but no masks' in told
