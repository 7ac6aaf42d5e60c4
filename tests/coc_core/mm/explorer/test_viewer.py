"""Models of every image task on pictures of any size."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from coc_core import VARIANTS, ContextCluster, create_model
from coc_core.errors import UserError
from coc_core.mm.explorer.viewer import ClusterViewer
from coc_core.mm.option_values import OptionText

CONFIGS = Path(__file__).parents[4] / 'configs'
PICTURE = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ('config', 'seen'),
    [
        # 50x90 fitted into 192x192, padded to 128x192 by the data preprocessor.
        ('detection/mask-rcnn_coc-tiny-4_fpn_1xb4-8e_digits.py', (107, 192)),
        # Fitted into 144x144, padded by the backbone.
        ('segmentation/fpn_coc-tiny-4_1xb8-2k_digits.py', (80, 144)),
    ],
)
def test_dense_models_see_what_their_pipeline_makes(tmp_path, config, seen):
    cfg = Config.fromfile(CONFIGS / config)
    init_default_scope(cfg.default_scope)
    torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, tmp_path / 'model.pth')
    viewer = ClusterViewer.from_config(str(CONFIGS / config), str(tmp_path / 'model.pth'))
    view = viewer.look(PICTURE, stages=[0, 2])
    assert view.image.shape == (*seen, 3) and view.prediction is None
    for layer in view.layers:
        assert layer.image_size == seen
        assert layer.assignment.shape[:2] == tuple(math.ceil(n / layer.stride) for n in seen)
        assert all(n % (32 // layer.stride) == 0 for n in layer.map_size)


def test_a_variant_by_name_has_the_classes_of_its_checkpoint(tmp_path):
    model = create_model('coc_tiny', num_classes=1000)
    model.head.bias.data[284] = 50.0
    torch.save(model.state_dict(), tmp_path / 'model.pth')
    viewer = ClusterViewer.from_name('coc_tiny', str(tmp_path / 'model.pth'), {'center_grid': OptionText('3')})
    view = viewer.look(PICTURE, stages=[-1])
    assert view.image.shape == (224, 403, 3)
    assert view.prediction.startswith('Siamese cat')
    assert view.layers[0].centers == 9
    with pytest.raises(UserError, match='would see 99999x20 pixels, and 4096 on a side is the most'):
        viewer.look(PICTURE, size=(99999, 20))
    with pytest.raises(UserError, match="--model coc_tiny: CoCConfig has no field 'centre_grid'"):
        ClusterViewer.from_name('coc_tiny', str(tmp_path / 'model.pth'), {'centre_grid': OptionText('3')})


def test_a_config_and_a_name_see_the_same(tmp_path):
    torch.manual_seed(0)
    torch.save(create_model('coc_tiny', num_classes=10, layer_scale_init=0.1).state_dict(), tmp_path / 'model.pth')
    config = CONFIGS / 'classification' / 'coc-tiny_1xb32-12e_digits.py'
    viewers = (
        ClusterViewer.from_config(str(config), str(tmp_path / 'model.pth')),
        ClusterViewer.from_name('coc_tiny', str(tmp_path / 'model.pth')),
    )
    one, other = (viewer.look(PICTURE, size=(64, 64)) for viewer in viewers)
    assert one.prediction.split('(')[1] == other.prediction.split('(')[1]
    for a, b in zip(one.layers, other.layers, strict=True):
        assert (a.assignment == b.assignment).mean() > 0.99


def test_a_class_has_the_name_that_the_checkpoint_learned_or_is_refused(tmp_path, caplog):
    model = create_model('coc_tiny', num_classes=10)
    model.head.bias.data[7] = 50.0
    names = [f'number {digit}' for digit in range(10)]
    path, config = str(tmp_path / 'model.pth'), str(CONFIGS / 'classification' / 'coc-tiny_1xb32-12e_digits.py')
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': names}}}, path)
    option = 'test_dataloader.dataset.metainfo'
    viewer = ClusterViewer.from_config(config, path, {option: None})
    assert viewer.look(PICTURE, stages=[0]).prediction == 'number 7 (1.00)' and not caplog.records
    viewer = ClusterViewer.from_config(config, path)
    assert viewer.look(PICTURE, stages=[0]).prediction == '7 (1.00)'
    assert 'model.pth was trained with the classes number 0, ' in caplog.text
    with pytest.raises(UserError, match='model.pth was trained with the classes number 0, .* from label 0 on'):
        ClusterViewer.from_config(config, path, {f'{option}.classes': names[::-1]})
    # Names of another number of classes are those of something else.
    viewer.classes = names[:9]
    assert viewer.look(PICTURE, stages=[0]).prediction == 'class 7 (1.00)'


def test_a_picture_is_read_as_the_configs_pipeline_reads_it(tmp_path):
    torch.save(create_model('coc_tiny', num_classes=10).state_dict(), tmp_path / 'model.pth')
    config = str(CONFIGS / 'classification' / 'coc-tiny_1xb32-12e_digits.py')
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(tmp_path / 'photo.png', exif=exif)
    stored = {'test_dataloader.dataset.pipeline.0.color_type': 'color_ignore_orientation'}
    for options, seen in (({}, np.rot90(PICTURE, -1)), (stored, PICTURE)):
        viewer = ClusterViewer.from_config(config, str(tmp_path / 'model.pth'), options)
        assert np.array_equal(viewer.read(tmp_path / 'photo.png'), seen)
    viewer = ClusterViewer.from_name('coc_tiny', str(tmp_path / 'model.pth'))
    assert np.array_equal(viewer.read(tmp_path / 'photo.png'), np.rot90(PICTURE, -1))


def test_a_dense_checkpoint_by_name_predicts_nothing(tmp_path):
    model = ContextCluster(VARIANTS['coc_tiny'], dense_indices=(0, 1, 2, 3))
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in model.state_dict().items()}}, tmp_path / 'model.pth')
    view = ClusterViewer.from_name('coc_tiny', str(tmp_path / 'model.pth')).look(PICTURE)
    assert view.prediction is None and len(view.layers) == 14


def test_a_model_without_clusters_is_told():
    with pytest.raises(UserError, match='resnet: Linear has no Context Cluster in it'):
        ClusterViewer(torch.nn.Linear(2, 2), 'resnet')
