"""tools/new_config.py on data that can be read in two ways: it asks, and leaves nothing out without a word."""

import json
from pathlib import Path

import own_data
import pytest

import mmdet_plugin.own_data as detection
import mmpretrain_plugin.own_data as classification
import mmseg_plugin.own_data as segmentation
from coc_core.errors import UserError
from coc_core.mm.own_data.fitting import this_machine
from coc_core.mm.own_data.plan import DataRequest


def request_for(data):
    return DataRequest(Path(data), Path('configs/mine.py'), 'coc_tiny', None, None, this_machine())


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class TestDetection:
    @pytest.mark.parametrize('data', ['data', 'data/shapes.json'])
    @pytest.mark.parametrize('other', ['data/coco/train2017', 'data/augmented'])
    def test_images_of_the_same_names_in_two_folders_are_a_question(self, data, other):
        own_data.coco(Path('data'), name='shapes.json', images='images')
        own_data.coco(Path('more'), images=f'../{other}')
        with pytest.raises(
            UserError, match=rf'are in {other} and in data/images: move the file into the folder of its'
        ):
            detection.arranged(request_for(data))
        # As it says.
        Path('data/shapes.json').rename('data/images/shapes.json')
        assert detection.arranged(request_for('data/images/shapes.json')).folders['val'] == Path('data/images')

    def test_an_annotation_file_is_of_the_images_beside_it(self):
        for phase, seeds in (('train', range(6)), ('val', range(3))):
            own_data.coco(Path('data', phase), seeds, 'labels.json', images='.')
            own_data.coco(Path('data', phase), seeds, 'previews/no.txt', images='previews/train')
        assert detection.arranged(request_for('data')).folders == {p: Path('data', p) for p in ('train', 'val')}

    def test_a_link_to_the_same_images_is_no_other_folder(self):
        own_data.coco(Path('data'), images='images')
        Path('data/link').symlink_to('images')
        assert detection.arranged(request_for('data')).folders['train'].resolve() == Path('data/images').resolve()

    def test_of_several_files_for_validation_the_one_that_is_called_alike_is_meant(self):
        for phase, seeds in (('train', range(6)), ('val', range(6, 8))):
            for kind in ('instances', 'person_keypoints'):
                own_data.coco(Path('data'), seeds, f'annotations/{kind}_{phase}2017.json', images=f'{phase}2017')
        data = detection.arranged(request_for('data/annotations/person_keypoints_train2017.json'))
        assert data.ann_files['val'] == Path('data/annotations/person_keypoints_val2017.json')

    def test_a_size_in_quotes_is_a_sentence(self):
        own_data.coco(Path('data'))
        content = json.loads(Path('data/labels.json').read_text())
        content['images'][3]['width'] = '96'
        Path('data/labels.json').write_text(json.dumps(content))
        with pytest.raises(UserError, match="has the image 3 with the width '96': write a whole number of pixels.$"):
            detection.plan(request_for('data'))

    def test_a_category_with_objects_outside_of_training_alone_is_never_learned(self):
        own_data.coco(Path('data'), (0, 2, 4), 'train.json')
        own_data.coco(Path('data'), (6, 7), 'val.json')
        unused, unlearned = detection.plan(request_for('data')).notes
        assert unused == 'categories without an object are left out: shapes'
        assert unlearned.startswith('data/train.json has no object of square, which validation or test have: ')


class TestSegmentation:
    @pytest.mark.parametrize(
        ('folders', 'sentence'),
        [
            (['train', 'train_extra', 'val'], 'data/images has train and train_extra, both for train: keep one'),
            (['train_station', 'museum'], 'label maps outside of train_station, such as museum/ö 0: name all'),
            (['train', 'val', ''], 'label maps outside of train, val, such as ö 0: name all'),
        ],
    )
    def test_pairs_that_would_be_left_out_are_a_question(self, folders, sentence):
        for folder in folders:
            own_data.label_maps(Path('data'), range(2), folder)
        with pytest.raises(UserError, match=sentence):
            segmentation.folders_of(Path('data'))

    def test_images_without_maps_outside_of_the_phases_are_none_of_the_data(self):
        for phase in ('train', 'val'):
            own_data.label_maps(Path('data'), range(2), phase)
        own_data.label_maps(Path('data'), range(2), 'unlabeled', maps='../elsewhere')
        assert list(segmentation.folders_of(Path('data'))) == ['train', 'val']

    @pytest.mark.parametrize('nested', [True, False])
    def test_validation_images_without_maps_are_a_question(self, nested):
        for phase, maps in (('train', 'masks'), ('val', 'gt')):
            if nested:
                own_data.label_maps(Path('data', phase), range(2), maps=maps)
            else:
                own_data.label_maps(Path('data'), range(2), phase, maps=maps)
        sentence = (
            'data/val has no images and label maps, but gt, images' if nested else 'data/images/val has no folder'
        )
        with pytest.raises(UserError, match=sentence):
            segmentation.folders_of(Path('data'))

    def test_of_two_folders_that_can_be_the_maps_the_one_with_images_is(self):
        own_data.label_maps(Path('data'), range(2), images='JPEGImages', maps='SegmentationClass')
        Path('data/Annotations').mkdir()
        Path('data/Annotations/ö 0.xml').touch()
        assert segmentation.folders_of(Path('data'))['train'][1] == Path('data/SegmentationClass')
        own_data.label_maps(Path('data'), range(2), images='JPEGImages', maps='Masks')
        with pytest.raises(UserError, match='data has Masks and SegmentationClass, which can both be meant: keep one'):
            segmentation.folders_of(Path('data'))

    def test_maps_that_begin_at_1_for_training_and_at_0_for_validation_are_a_question(self):
        own_data.label_maps(Path('data'), range(4), 'train', first=1)
        own_data.label_maps(Path('data'), range(4), 'val', first=1)
        Path('data/classes.txt').write_text('nothing\ncircle\nsquare\n')
        segmentation.plan(request_for('data'))
        own_data.label_maps(Path('data'), range(4), 'val')
        with pytest.raises(UserError, match='data/masks/train begin at 1, but data/masks/val/ö 0.PNG holds 0: number'):
            segmentation.plan(request_for('data'))


class TestClassification:
    def test_folders_beside_those_of_phases_are_told(self):
        for phase in ('train', 'train2', 'val'):
            own_data.class_folders(Path('data', phase), 2)
        plan = classification.plan(request_for('data'))
        assert plan.notes == ['data has train2 beside its folders of phases, left out']
