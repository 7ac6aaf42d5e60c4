"""What is exported gives the model's numbers in another runtime."""

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from processes import run_tool
from torch.testing import assert_close

import coc_core
import mmseg_plugin  # noqa: F401
import pointcloud
from coc_core.mm.models import replace_sync_batch_norm
from pointcloud.grouping import farthest_point_sample

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / 'configs'
CLASSIFIER = CONFIGS / 'classification' / 'coc-tiny_8xb128_in1k.py'
SEGMENTER = CONFIGS / 'segmentation' / 'fpn_coc-small-4_4xb4-80k_ade20k-512x512.py'
SHALLOW = ('--cfg-options', 'model.backbone.depths=1,1,1,1')
POINTS = CONFIGS / 'pointcloud' / 'pointmlp-coc_1xb16-12e_digits.py'


def run(*arguments, expect=0):
    script = ROOT / 'tools' / 'deployment' / 'export_onnx.py'
    done = run_tool(script, *arguments, env={'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == expect, done.stdout[-2000:] + done.stderr[-3000:]
    assert 'Traceback' not in done.stderr
    return done.stdout + done.stderr


def outputs(path, examples):
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return [torch.from_numpy(o) for o in session.run(None, {session.get_inputs()[0].name: examples.numpy()})]


def test_a_published_classifier_gives_its_golden_logits(golden, tmp_path):
    case = golden('classify_coc_tiny')
    torch.save(case.published_state_dict('coc_tiny'), tmp_path / 'published.pth')
    images = case.image().float()
    out = run(CLASSIFIER, tmp_path / 'published.pth', '--out', tmp_path / 'a.onnx', '--size', *images.shape[2:])
    assert {node.domain for node in onnx.load(tmp_path / 'a.onnx').graph.node} == {''}
    assert 'opset 20' in out and 'agrees with PyTorch to' in out and 'ONNX Runtime' in out
    (logits,) = outputs(tmp_path / 'a.onnx', images.repeat(3, 1, 1, 1))
    assert_close(logits.double(), case.expected['logits'].repeat(3, 1), rtol=0, atol=1e-4)


@pytest.fixture(scope='module')
def shallow(tmp_path_factory):
    """A classifier of one block in each stage, as exporting takes a second for each block, and its checkpoint."""
    torch.manual_seed(0)
    model = coc_core.create_model('coc_tiny', depths=(1, 1, 1, 1), layer_scale_init=1.0).eval()
    path = tmp_path_factory.mktemp('shallow') / 'shallow.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return model, path


def test_torch_export_gives_the_same(shallow, tmp_path):
    model, path = shallow
    run(CLASSIFIER, path, '--out', tmp_path / 'a.pt2', '--size', 64, 96, *SHALLOW)
    program = torch.export.load(tmp_path / 'a.pt2')
    targets = [str(node.target) for node in program.graph.nodes if node.op == 'call_function']
    assert not [name for name in targets if not name.startswith(('aten.', '<built-in', 'getitem'))]
    images = torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        assert_close(program.module()(images), model(images), rtol=0, atol=1e-4)


@pytest.fixture(scope='module')
def segmenter(tmp_path_factory):
    """A Semantic FPN of one block in each stage, and its checkpoint."""
    cfg = Config.fromfile(SEGMENTER)
    init_default_scope('mmseg')
    cfg.merge_from_dict({'model.backbone.init_cfg': None, 'model.backbone.depths': (1, 1, 1, 1)})
    replace_sync_batch_norm(cfg.model)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    path = tmp_path_factory.mktemp('segmenter') / 'a.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return model, path


def test_a_dense_backbone_gives_its_maps(segmenter, tmp_path):
    model, path = segmenter
    out = run(SEGMENTER, path, '--out', tmp_path / 'a.onnx', '--size', 64, 96, '--backbone', *SHALLOW)
    assert 'agrees with PyTorch to' in out
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert_close(outputs(tmp_path / 'a.onnx', images), list(model.backbone(images)), rtol=1e-4, atol=1e-4)


def test_a_segmenter_gives_the_logits_of_every_pixel(segmenter, tmp_path):
    model, path = segmenter
    out = run(SEGMENTER, path, '--out', tmp_path / 'a.onnx', '--size', 64, 96, *SHALLOW)
    assert 'outputs: logits' in out
    images = torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        expected = model.encode_decode(images, [dict(img_shape=(64, 96))] * 3)
    (logits,) = outputs(tmp_path / 'a.onnx', images)
    assert logits.shape == (3, 150, 64, 96)
    assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_point_cloud_model_is_exported_for_a_fixed_number_of_points(tmp_path):
    config = Config.fromfile(POINTS)
    torch.manual_seed(0)
    options = dict(config.model.backbone, anchors=(32, 16, 16, 16), neighbors=8)
    options.pop('type')
    model = pointcloud.create_model(options.pop('arch'), num_classes=config.model.head.num_classes, **options).eval()
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'a.pth')
    overrides = ('model.backbone.anchors=32,16,16,16', 'model.backbone.neighbors=8')
    out = run(POINTS, tmp_path / 'a.pth', '--out', tmp_path / 'a.onnx', '--size', 64, '--cfg-options', *overrides)
    assert 'points [batch, 64, 3]' in out
    points = torch.randn(3, 64, 3)
    with torch.no_grad():
        assert_close(outputs(tmp_path / 'a.onnx', points), [model(points)], rtol=0, atol=1e-4)


class Sampler(torch.nn.Module):
    def forward(self, points):
        return farthest_point_sample(points, 20)


def test_exported_sampling_picks_the_same_points_also_on_ties():
    points = torch.randn(4, 50, 3)
    points[1] = points[1].round()
    points[2, 15:] = points[2, :1]
    program = torch.export.export(Sampler(), (points,), dynamic_shapes=({0: torch.export.Dim('batch')},), strict=False)
    assert torch.equal(program.module()(points), farthest_point_sample(points, 20))


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (('a.txt',), 'name a .onnx or .pt2 file'),
        (('nowhere/a.onnx',), 'in a folder that exists'),
        (('a.onnx', '--size', '1', '2', '3'), '--size 1 2 3: give height and width'),
    ],
)
def test_impossible_wishes_are_one_sentence(tmp_path, arguments, sentence):
    out = tmp_path / arguments[0]
    assert sentence in run(CLASSIFIER, 'none.pth', '--out', out, *arguments[1:], expect=2)
    assert not list(tmp_path.iterdir())


def test_sizes_and_opsets_that_cannot_be_are_one_sentence(shallow, tmp_path):
    common = (CLASSIFIER, shallow[1], '--out', tmp_path / 'a.onnx', *SHALLOW)
    assert 'both sides must be at least 4' in run(*common, '--size', 2, expect=2)
    out = run(*common, '--size', 32, '--opset', 3, expect=2)
    assert '--opset 3 cannot be written: the exporter gives' in out
    assert not (tmp_path / 'a.onnx').exists()
