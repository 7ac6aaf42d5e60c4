"""tools/new_config.py on data as users have it: what it finds, writes and refuses."""

import argparse
import importlib.util
import json
import re
from pathlib import Path

import h5py
import numpy as np
import own_data
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from coc_core import create_model
from coc_core.errors import UserError
from coc_core.mm.models import build_model

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location('new_config', ROOT / 'tools' / 'new_config.py')
new_config = importlib.util.module_from_spec(spec)
spec.loader.exec_module(new_config)

ARCHS = {'pointcloud': 'pointmlp_elite'}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a config as the tool does, in this process; return it as it is read. Data are checked on demand."""
    monkeypatch.chdir(tmp_path)
    real_check = new_config.check

    def run(task, data, *, check=False, **options):
        monkeypatch.setattr(new_config, 'check', real_check if check else lambda config: None)
        given = dict(arch=ARCHS.get(task, 'coc_tiny'), checkpoint=None, classes=None, overwrite=False, debug=False)
        out = options.pop('out', Path('configs/mine.py'))
        new_config.new_config(argparse.Namespace(task=task, data=Path(data), out=out, **(given | options)))
        return Config.fromfile(out, import_custom_modules=False)

    return run


def listed(path):
    return Path(path).read_text().splitlines()


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


class TestClassification:
    def test_class_folders_are_split_by_lists(self, tmp_path, write):
        own_data.class_folders(tmp_path / 'data' / 'my zoo')
        before = everything(tmp_path / 'data')
        cfg = write('classification', 'data/my zoo')
        train, val = (listed(cfg[f'{phase}_dataloader'].dataset.ann_file) for phase in ('train', 'val'))
        assert (len(train), len(val)) == (12, 4) and not set(train) & set(val)
        assert sum(line.endswith(' 1') for line in val) == 2
        assert everything(tmp_path / 'data') == before
        assert cfg.model.head.num_classes == 2
        assert list(cfg.train_dataloader.dataset.metainfo.classes) == ['Bär', 'zwei Hunde']
        assert cfg.image_size == 64 == cfg.train_pipeline[1].scale == cfg.test_pipeline[2].crop_size
        assert cfg.test_pipeline[1].scale == 71
        assert cfg.optim_wrapper.type == 'OptimWrapper' and cfg.model.train_cfg is None
        assert cfg.train_dataloader.drop_last is False and 1 <= cfg.train_dataloader.batch_size <= 2

    def test_training_and_validation_folders_are_taken_as_they_are(self, tmp_path, write):
        for phase, count in (('Train', 6), ('valid', 2), ('test', 3)):
            own_data.class_folders(tmp_path / 'data' / phase, count)
        cfg = write('classification', 'data')
        found = [cfg[f'{phase}_dataloader'].dataset for phase in ('train', 'val', 'test')]
        assert [dataset.data_prefix for dataset in found] == ['data/Train', 'data/valid', 'data/test']
        assert not any('ann_file' in dataset for dataset in found)
        assert not (tmp_path / 'configs' / 'mine').exists()

    def test_a_class_may_be_called_train(self, tmp_path, write):
        own_data.class_folders(tmp_path / 'data', classes=('bus', 'train'))
        assert write('classification', 'data').classes == ['bus', 'train']

    def test_one_line_sets_the_size_and_one_the_length(self, tmp_path, write):
        own_data.class_folders(tmp_path / 'data')
        write('classification', 'data')
        text = Path('configs/mine.py').read_text()
        for name, value in (('image_size', 224), ('epochs', 7)):
            text = re.sub(rf'^{name} = \d+', f'{name} = {value}', text, flags=re.MULTILINE)
        Path('configs/mine.py').write_text(text)
        cfg = Config.fromfile('configs/mine.py')
        base = Config.fromfile(ROOT / 'configs' / '_base_' / 'finetune_classification.py')
        assert cfg.train_dataloader.dataset.pipeline == base.train_pipeline
        assert cfg.val_dataloader.dataset.pipeline == base.test_pipeline
        assert cfg.train_cfg.max_epochs == 7 and all('T_max' not in step for step in cfg.param_scheduler)

    def test_weights_start_the_backbone_and_shorten_the_training(self, tmp_path, write):
        own_data.class_folders(tmp_path / 'data')
        torch.save(create_model('coc_tiny', num_classes=7, denominator='count').state_dict(), 'coc_tiny.pth')
        cfg = write('classification', 'data', checkpoint='coc_tiny.pth')
        fresh = write('classification', 'data', out=Path('configs/fresh.py'))
        assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='coc_tiny.pth')
        assert 'layer_scale_init' not in cfg.model.backbone and cfg.optim_wrapper.paramwise_cfg.layer_decay_rate < 1
        assert fresh.epochs > cfg.epochs and fresh.optim_wrapper.paramwise_cfg.layer_decay_rate == 1
        assert fresh.model.backbone.layer_scale_init == 0.1
        assert 'github.com/ma-xu/Context-Cluster' in Path('configs/fresh.py').read_text()

    @pytest.mark.parametrize(
        ('change', 'sentence'),
        [
            (dict(data='nowhere'), '--data nowhere does not exist: name a folder with a folder of images for each'),
            (dict(data='data/one'), 'data/one has one folder, cat: a classification needs a folder of images for each'),
            (dict(data='data/bare'), 'data/bare has no images in its 2 folders'),
            (dict(data='data/file.txt'), '--data data/file.txt is a file: name a folder'),
            (dict(data='data/late'), '--data data/late has val but no folder train'),
            (dict(classes=['a']), '--classes: a classification takes its classes from the names of the folders'),
            (dict(arch='coc_tiiny'), "Unknown variant 'coc_tiiny'. Did you mean"),
            (dict(checkpoint='no.pth'), 'no.pth does not exist'),
            (dict(checkpoint='small.pth'), '--checkpoint small.pth does not start a backbone of --arch coc_tiny'),
            (dict(out=Path('configs/mine')), '--out configs/mine: a config is a file of Python'),
        ],
    )  # fmt: skip
    def test_a_mistake_is_a_sentence_and_writes_nothing(self, tmp_path, write, change, sentence):
        own_data.class_folders(tmp_path / 'data' / 'zoo', 2)
        for name in ('one/cat', 'bare/cat', 'bare/dog', 'late/val/cat'):
            (tmp_path / 'data' / name).mkdir(parents=True)
        (tmp_path / 'data' / 'file.txt').touch()
        torch.save(create_model('coc_small', num_classes=2).state_dict(), tmp_path / 'small.pth')
        with pytest.raises(UserError) as raised:
            write('classification', **({'data': 'data/zoo'} | change))
        assert sentence in str(raised.value)
        assert not (tmp_path / 'configs').exists()

    def test_an_earlier_config_stays_unless_it_shall_be_replaced(self, tmp_path, write):
        own_data.class_folders(tmp_path / 'data')
        write('classification', 'data')
        before = everything(tmp_path)
        with pytest.raises(UserError, match=r'configs/mine.py exists already: .* --overwrite'):
            write('classification', 'data', arch='coc_small')
        assert everything(tmp_path) == before
        assert write('classification', 'data', arch='coc_small', overwrite=True).arch == 'coc_small'

    def test_errors_in_the_data_are_listed_and_nothing_is_written(self, tmp_path, write, capsys):
        own_data.class_folders(tmp_path / 'data')
        torn = next((tmp_path / 'data' / 'Bär').iterdir())
        torn.write_bytes(torn.read_bytes()[:200])
        with pytest.raises(UserError, match='The data has 1 errors') as raised:
            write('classification', 'data', check=True)
        assert raised.value.exit_code == 1 and str(torn.name) in capsys.readouterr().out
        assert not (tmp_path / 'configs').exists()


class TestDetection:
    def test_one_file_is_split_by_images(self, tmp_path, write, capsys):
        own_data.coco(tmp_path / 'data' / 'shapes')
        before = everything(tmp_path / 'data')
        cfg = write('detection', 'data/shapes/labels.json')
        parts = [json.loads(Path(cfg[f'{p}_dataloader'].dataset.ann_file).read_text()) for p in ('train', 'val')]
        assert [len(part['images']) for part in parts] == [6, 2]
        for part in parts:
            assert {entry['image_id'] for entry in part['annotations']} == {image['id'] for image in part['images']}
        assert {entry['category_id'] for entry in parts[1]['annotations']} == {7, 9}
        assert cfg.val_dataloader.dataset.data_prefix.img == 'data/shapes/Bilder ü/'
        assert cfg.classes == ['circle', 'square']
        assert 'categories without an object are left out: shapes' in capsys.readouterr().out
        heads = cfg.model.roi_head
        assert heads.bbox_head.num_classes == heads.mask_head.num_classes == 2
        assert cfg.train_pipeline[2].scale == (96, 96) and everything(tmp_path / 'data') == before

    @pytest.mark.parametrize('layout', ['coco', 'roboflow'])
    def test_files_of_phases_are_found_with_their_images(self, tmp_path, write, layout):
        for phase, seeds in (('train', range(6)), ('val', range(6, 8)), ('test', range(8, 10))):
            names = (f'annotations/instances_{phase}2017.json', f'{phase}2017')
            if layout == 'roboflow':
                names = (f'{phase}/_annotations.coco.json', phase)
            own_data.coco(tmp_path / 'data', seeds, names[0], images=names[1])
        (tmp_path / 'data' / 'readme.json').write_text('{}')
        cfg = write('detection', 'data')
        for phase, evaluated in (('train', False), ('val', True), ('test', True)):
            dataset = cfg[f'{phase}_dataloader'].dataset
            assert phase in dataset.ann_file and phase in dataset.data_prefix.img
            assert not evaluated or cfg[f'{phase}_evaluator'].ann_file == dataset.ann_file

    @pytest.mark.parametrize('folders', ['{}2017', 'images/{}'])
    def test_images_that_are_called_alike_in_every_phase_are_not_mixed_up(self, tmp_path, write, capsys, folders):
        for phase, seeds in (('train', range(6)), ('val', range(3)), ('test', range(2))):
            file = f'annotations/instances_{phase}2017.json'
            own_data.coco(tmp_path / 'data', seeds, file, images=folders.format(phase))
        cfg = write('detection', 'data', check=True)
        for phase in ('train', 'val', 'test'):
            assert cfg[f'{phase}_dataloader'].dataset.data_prefix.img == f'data/{folders.format(phase)}/'
        assert 'in common with the training data' not in capsys.readouterr().out

    def test_images_in_a_folder_of_another_phase_are_found_where_they_are_in_no_other(self, tmp_path, write):
        for phase, seeds in (('train', range(6)), ('val', range(6, 8))):
            own_data.coco(tmp_path / 'data', seeds, f'annotations/{phase}.json', images='train')
        assert write('detection', 'data').val_dataloader.dataset.data_prefix.img == 'data/train/'

    def test_objects_without_segmentation_are_boxes(self, tmp_path, write):
        own_data.coco(tmp_path / 'data', masks=False)
        cfg = write('detection', 'data')
        assert cfg.model.roi_head.mask_head is None and cfg.val_evaluator.metric == ['bbox']
        assert not any(step.get('with_mask') for step in cfg.train_pipeline + cfg.test_pipeline)

    @pytest.mark.parametrize(
        ('damage', 'sentence'),
        [
            ('move images', r'The images of data/labels.json \(the first is 0 a.jpg\) are nowhere in data'),
            ('{', 'has no COCO annotation file among its 1 .json files'),
            ('another', 'data/labels.json and data/more.json are both for train'),
            ('rename', 'data/val.json but no file for training'),
            ({'images': []}, 'data/labels.json has no images'),
            ({'images': [{'id': 1}]}, 'has one of its images without file_name'),
        ],
    )
    def test_a_mistake_is_a_sentence(self, tmp_path, write, damage, sentence):
        data = tmp_path / 'data'
        own_data.coco(data)
        if damage == 'move images':
            (data / 'Bilder ü').rename(tmp_path / 'away')
        elif damage == 'another':
            own_data.coco(data, name='more.json')
        elif damage == 'rename':
            (data / 'labels.json').rename(data / 'val.json')
        else:
            content = {'images': [], 'annotations': [], 'categories': []}
            text = damage if isinstance(damage, str) else json.dumps(content | damage)
            (data / 'labels.json').write_text(text)
        with pytest.raises(UserError, match=sentence):
            write('detection', 'data')
        assert not (tmp_path / 'configs').exists()


class TestSegmentation:
    def test_images_and_maps_are_split_whatever_their_endings(self, tmp_path, write):
        own_data.label_maps(tmp_path / 'data')
        (tmp_path / 'data' / 'classes.txt').write_text('background\ncircle\nsquare\n')
        before = everything(tmp_path / 'data')
        cfg = write('segmentation', 'data')
        parts = {phase: cfg[f'{phase}_dataloader'].dataset.datasets for phase in ('train', 'val')}
        assert [part.img_suffix for part in parts['train']] == ['.JPG', '.jpg']
        names = {phase: {n for part in found for n in listed(part.ann_file)} for phase, found in parts.items()}
        assert len(names['train']) == 6 and len(names['val']) == 2 and not names['train'] & names['val']
        assert not parts['train'][0].reduce_zero_label and cfg.model.decode_head.num_classes == 3
        assert cfg.model.data_preprocessor.size == (64, 64) == cfg.train_pipeline[3].crop_size
        assert everything(tmp_path / 'data') == before

    @pytest.mark.parametrize('nested', [True, False])
    def test_phases_are_found_in_the_folders_or_around_them(self, tmp_path, write, nested):
        for phase, seeds in (('train', range(6)), ('val', range(6, 8))):
            place = tmp_path / 'data' / phase if nested else tmp_path / 'data'
            own_data.label_maps(place, seeds, '' if nested else phase, suffixes=('.jpg',))
        cfg = write('segmentation', 'data', classes=['nothing', 'circle', 'square'])
        prefix = cfg.val_dataloader.dataset.data_prefix
        assert prefix.img_path == ('data/val/images' if nested else 'data/images/val')
        assert listed(cfg.val_dataloader.dataset.ann_file) == ['ö 6', 'ö 7']

    def test_maps_that_begin_at_one_leave_zero_to_what_has_no_class(self, tmp_path, write, capsys):
        own_data.label_maps(tmp_path / 'data', suffixes=('.jpg',))
        cfg = write('segmentation', 'data', classes=['circle', 'square'])
        assert cfg.train_dataloader.dataset.reduce_zero_label and cfg.model.decode_head.num_classes == 2
        assert 'the labels go to 2, the number of classes, so that 0 counts for nothing' in capsys.readouterr().out

    def test_a_whole_model_of_the_task_is_taken_over_and_another_only_for_its_backbone(self, tmp_path, write):
        own_data.label_maps(tmp_path / 'data', suffixes=('.jpg',))
        classes = ['nothing', 'circle', 'square']
        model = build_model(write('segmentation', 'data', classes=classes), 'mine')
        torch.save({'state_dict': model.state_dict()}, 'whole.pth')
        cfg = write('segmentation', 'data', classes=classes, checkpoint='whole.pth', overwrite=True)
        assert cfg.load_from == 'whole.pth' and cfg.model.backbone.init_cfg is None
        torch.save(create_model('coc_tiny', num_classes=7).state_dict(), 'classifier.pth')
        cfg = write('segmentation', 'data', classes=classes, checkpoint='classifier.pth', overwrite=True)
        assert cfg.load_from is None and cfg.model.backbone.init_cfg.checkpoint == 'classifier.pth'

    def test_images_without_a_map_are_left_out(self, tmp_path, write, capsys):
        own_data.label_maps(tmp_path / 'data')
        (tmp_path / 'data' / 'masks' / 'ö 3.PNG').unlink()
        write('segmentation', 'data', classes=['a', 'b', 'c'])
        assert '1 images in data/images have no label map and are left out (first ö 3.JPG)' in capsys.readouterr().out

    @pytest.mark.parametrize(
        ('classes', 'sentence'),
        [
            (None, 'hold 0, 1, 2: name the classes in this order with --classes, or in data/classes.txt'),
            (['a'], r'hold 0, 1, 2, but there are 1 classes \(a\): name one for each label'),
        ],
    )
    def test_classes_that_nobody_names_are_asked_for(self, tmp_path, write, classes, sentence):
        own_data.label_maps(tmp_path / 'data')
        with pytest.raises(UserError, match=sentence):
            write('segmentation', 'data', classes=classes)

    @pytest.mark.parametrize(
        ('content', 'sentence'),
        [
            (None, 'data has no folders of images and label maps .* It has images, what'),
            (b'x', 'The label map data/masks/ö 0.PNG cannot be read'),
            (Image.new('RGB', (9, 9)), 'ö 0.PNG has 3 channels: a label map has one'),
            (Image.fromarray(np.eye(9, dtype=np.uint8) * 255), 'hold 0, 255, where 255 counts for nothing'),
            ('other names', 'No image in data/images has a label map in data/masks'),
        ],
    )
    def test_maps_that_cannot_be_used_are_a_sentence(self, tmp_path, write, content, sentence):
        data = tmp_path / 'data'
        own_data.label_maps(data, range(2))
        for path in list((data / 'masks').iterdir()):
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif isinstance(content, Image.Image):
                own_data.save(content, path)
            elif content:
                path.rename(path.with_name(f'm{path.name}'))
        if content is None:
            (data / 'masks').rename(data / 'what')
        with pytest.raises(UserError, match=sentence):
            write('segmentation', 'data', classes=['a', 'b', 'c'])
        assert not (tmp_path / 'configs').exists()


class TestPointCloud:
    def test_a_file_is_split_by_its_classes(self, tmp_path, write):
        own_data.hdf5(tmp_path / 'clouds.h5')
        cfg = write('pointcloud', 'clouds.h5', classes=['cube', 'sphere'])
        assert cfg.train_dataloader.dataset.validation.keep == 'train' and cfg.classes == ['cube', 'sphere']
        assert cfg.num_points == 256 == cfg.train_pipeline[1].num_points == cfg.tta_pipeline[1].num_points
        assert cfg.model.backbone.anchors == (128, 64, 32, 16)

    def test_files_never_lie_among_the_data(self, tmp_path, write):
        own_data.point_files(tmp_path / 'data', 2)
        before = everything(tmp_path)
        with pytest.raises(
            UserError, match='--out data.py: its files would lie in data, among your data: name another'
        ):
            write('pointcloud', 'data', out=Path('data.py'))
        assert everything(tmp_path) == before

    def test_files_of_training_and_test_are_a_pair(self, tmp_path, write):
        own_data.hdf5(tmp_path / 'h5' / 'training_objects.h5')
        own_data.hdf5(tmp_path / 'h5' / 'test_objects.h5', 6)
        cfg = write('pointcloud', 'h5')
        assert cfg.val_dataloader.dataset.ann_file == 'h5/test_objects.h5' and cfg.classes == ['0', '1']

    def test_point_files_become_a_file_of_centered_clouds(self, tmp_path, write):
        from pointcloud.dataset import read

        own_data.point_files(tmp_path / 'data')
        before = everything(tmp_path / 'data')
        cfg = write('pointcloud', 'data')
        assert everything(tmp_path / 'data') == before and cfg.classes == ['Kugel', 'würfel']
        points, labels = read(Path(cfg.train_dataloader.dataset.ann_file))
        assert points.shape == (12, 300, 3) and sorted(labels) == [0] * 6 + [1] * 6
        np.testing.assert_allclose(np.linalg.norm(points, axis=2).max(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(points.max(axis=1) + points.min(axis=1), 0, atol=0.3)

    def test_labels_below_zero_are_an_error(self, tmp_path, write):
        own_data.hdf5(tmp_path / 'clouds.h5')
        with h5py.File(tmp_path / 'clouds.h5', 'r+') as file:
            file['label'][0] = -1
        with pytest.raises(UserError, match=r'clouds.h5 has the label -1: number classes 0, 1, 2, \.\.\.$'):
            write('pointcloud', 'clouds.h5')

    def test_weights_of_another_number_of_classes_are_started_from(self, tmp_path, write):
        import pointcloud

        own_data.hdf5(tmp_path / 'clouds.h5')
        torch.save(pointcloud.create_model('pointmlp_elite', num_classes=5).state_dict(), 'points.pth')
        assert write('pointcloud', 'clouds.h5', checkpoint='points.pth').load_from == 'points.pth'
        with pytest.raises(UserError, match='--checkpoint points.pth does not start a model of --arch pointmlp_coc'):
            write('pointcloud', 'clouds.h5', checkpoint='points.pth', arch='pointmlp_coc', overwrite=True)

    @pytest.mark.parametrize(
        ('name', 'content', 'sentence'),
        [
            ('teil 0.npy', b'x', 'The point file data/Kugel/teil 0.npy cannot be read'),
            ('teil 0.ply', b'ply', 'The point file data/Kugel/teil 0.ply cannot be read'),
            ('teil 0.xyz', b'1 2 3\n1 2 3\n', 'teil 0.xyz shows no shape: all its points are the same'),
            ('teil 0.xyz', b'1 2 3\nnan 2 3\n', 'teil 0.xyz has coordinates that are no numbers'),
        ],
    )
    def test_a_damaged_file_is_a_sentence(self, tmp_path, write, name, content, sentence):
        own_data.point_files(tmp_path / 'data', 2)
        (tmp_path / 'data' / 'Kugel' / name).write_bytes(content)
        with pytest.raises(UserError, match=sentence):
            write('pointcloud', 'data')
        assert not (tmp_path / 'configs').exists()

    def test_too_few_names_are_a_sentence(self, tmp_path, write):
        own_data.hdf5(tmp_path / 'clouds.h5')
        with pytest.raises(UserError, match='--classes names 1 classes, but the labels go to 1: name 2'):
            write('pointcloud', 'clouds.h5', classes=['cube'])
