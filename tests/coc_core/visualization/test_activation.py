"""Grad-CAM of a classifier, and the place in the adapter where other tools take it from."""

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.utils.dl_utils import is_norm
from mmpretrain.registry import MODELS
from PIL import Image

import mmpretrain_plugin  # noqa: F401
from coc_core import create_model
from coc_core.errors import UserError
from coc_core.visualization.activation import check_library, class_activation, paint_activation
from coc_core.visualization.sheets import contact_sheet, paint, single_panel

LABEL = 3


@pytest.fixture
def grad_cam():
    return pytest.importorskip('pytorch_grad_cam')


@pytest.fixture
def classifier():
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    backbone = dict(
        type='ContextCluster', arch='coc_tiny', out_indices=(3,), output_norm='classification', layer_scale_init=0.5
    )
    head = dict(type='LinearClsHead', num_classes=10, in_channels=320)
    neck = dict(type='GlobalAveragePooling')
    return MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)).eval()


def images(*size):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


def grad_cam_of(grad_cam, model, layer, inputs, transform=None):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    camera = grad_cam.GradCAM(model, [layer], reshape_transform=transform)
    found = camera(inputs, [ClassifierOutputTarget(LABEL)])[0]
    camera.activations_and_grads.release()
    return found


def test_the_norm_that_vis_cam_chooses_has_the_map_as_it_expects_it(grad_cam, classifier):
    """As mmpretrain's vis_cam.py chooses: the last norm of the backbone, as it registers its modules."""
    name, layer = [pair for pair in classifier.backbone.named_modules() if is_norm(pair[1])][-1]
    assert name == 'outputs.3' and not list(layer.parameters()) and not layer.state_dict()
    inputs = images(96, 160)
    expected = grad_cam_of(
        grad_cam, classifier, classifier.backbone.norm, inputs, transform=lambda x: x.permute(0, 3, 1, 2)
    )
    found = grad_cam_of(grad_cam, classifier, layer, inputs)
    assert found.shape == (96, 160) and np.ptp(expected) > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # What it showed before: the channels of a row as its width.
    stripes = grad_cam_of(grad_cam, classifier, classifier.backbone.norm, inputs)
    assert np.abs(stripes - expected).mean() > 0.05
    np.testing.assert_allclose(class_activation(classifier, inputs, LABEL), expected, atol=1e-6)


def test_padding_is_no_part_of_the_map(grad_cam, classifier):
    inputs = images(70, 130)
    expected = grad_cam_of(grad_cam, classifier, classifier.backbone.outputs['3'], inputs)
    np.testing.assert_allclose(class_activation(classifier, inputs, LABEL), expected, atol=1e-6)
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_a_model_of_coc_core_has_the_same_map_by_hand(grad_cam):
    """Of a linear head on a mean, Grad-CAM is the map weighted by the head's row."""
    torch.manual_seed(0)
    model = create_model('coc_tiny', num_classes=10, layer_scale_init=0.5).eval()
    inputs = images(64, 96)
    with torch.no_grad():
        scores = torch.einsum('c,bchw->bhw', model.head.weight[LABEL], model.forward_features(inputs))[0].relu()
        found = class_activation(model, inputs, LABEL)
    assert found.shape == (64, 96) and found.min() >= 0 and found.max() <= 1
    rows, columns = divmod(int(scores.argmax()), 3)
    assert found[rows * 32 + 16, columns * 32 + 16] == pytest.approx(found.max(), abs=0.05)


def test_it_is_painted_and_stands_beside_the_clusters(grad_cam):
    model = create_model('coc_tiny', num_classes=10).eval()
    image = np.full((64, 96, 3), 200, np.uint8)
    activation = np.zeros((64, 96), np.float32)
    activation[:, 48:] = 1
    painted = paint_activation(image, activation)
    assert painted.shape == image.shape and painted.dtype == np.uint8
    assert painted[0, 0, 2] > painted[0, 0, 0] and painted[0, 95, 0] > painted[0, 95, 2]

    from coc_core.visualization import ClusterRecorder

    with torch.no_grad(), ClusterRecorder(model, stages=[3]) as recorder:
        model(images(64, 96))
    layers = recorder.clusters(0, (64, 96))
    single = paint(single_panel(image, layers[0], 0, activation=painted))
    assert single.shape == (64, 2 * 96 + 6, 3)
    np.testing.assert_array_equal(single[:, -96:], painted)
    plain = paint(contact_sheet([image], [layers]))
    sheet = paint(contact_sheet([image], [layers], activations=[painted]))
    assert sheet.shape[0] == plain.shape[0] + 112 + 6
    small = np.asarray(Image.fromarray(painted).resize((168, 112), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(sheet[12 : 12 + 112, 12 + 118 + 168 + 6 :][:, :168], small)


def test_a_missing_library_is_one_sentence(monkeypatch):
    monkeypatch.setattr('coc_core.visualization.activation.find_spec', lambda name: None)
    with pytest.raises(UserError, match='Grad-CAM needs the package grad-cam: run `pip install grad-cam`'):
        check_library()
