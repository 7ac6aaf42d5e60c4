"""Every form that a checkpoint can be written in holds the same weights, and says what it is."""

import pytest
import timm
import torch
from torch.testing import assert_close

import pointcloud
from coc_core import ContextCluster, create_model
from coc_core.checkpoints import CheckpointError, convert, load, read


@pytest.fixture
def classifier(golden, tmp_path):
    path = tmp_path / 'published.pth'
    torch.save({'state_dict': golden('classify_coc_tiny').published_state_dict('coc_tiny'), 'args': {}}, path)
    return path


def first_generation(state):
    return {k: v[..., None, None] if '.mlp.' in k and v.ndim == 2 else v for k, v in state.items()}


@pytest.mark.parametrize(
    ('form', 'name'),
    [
        ('pth', 'a.pth'),
        ('safetensors', 'a.safetensors'),
        ('timm', 'a.safetensors'),
        ('timm', 'a.pth'),
        ('mmpretrain', 'a.pth'),
        ('published', 'a.pth'),
    ],
)
def test_a_classifier_gives_its_logits_from_every_form(golden, classifier, tmp_path, form, name):
    summary = convert(classifier, tmp_path / name, form, denominator='similarity')
    assert 'variants of these shapes: coc_tiny, coc_tiny2, coc_tiny_plain' in summary
    case, model = golden('classify_coc_tiny'), create_model('coc_tiny').double().eval()
    report = load(model, tmp_path / name)
    assert report.evidence == 'the file records it'
    with torch.no_grad():
        assert_close(model(case.image()), case.expected['logits'], rtol=0, atol=1e-10)


@pytest.mark.parametrize('name', ['a.safetensors', 'a.pth'])
def test_timm_itself_loads_its_form(golden, classifier, tmp_path, name):
    convert(classifier, tmp_path / name, 'timm')
    case = golden('classify_coc_tiny')
    model = timm.create_model('coc_tiny', checkpoint_path=str(tmp_path / name)).eval()
    with torch.no_grad():
        assert_close(model(case.image().float()).double(), case.expected['logits'], rtol=0, atol=1e-4)


@pytest.mark.parametrize('generation', [1, 2])
@pytest.mark.parametrize('form', ['pth', 'safetensors'])
def test_published_classifiers_come_back_as_they_were(golden, tmp_path, form, generation):
    state = golden('classify_coc_tiny').published_state_dict('coc_tiny')
    state = first_generation(state) if generation == 1 else state
    torch.save(state, tmp_path / 'in.pth')
    convert(tmp_path / 'in.pth', tmp_path / f'ours.{form}', form)
    convert(tmp_path / f'ours.{form}', tmp_path / 'back.pth', 'published')
    back = read(tmp_path / 'back.pth')['state_dict']
    assert set(back) == set(state)
    assert all(torch.equal(back[key], value) for key, value in state.items())


def test_published_point_models_come_back_as_they_were(golden, tmp_path):
    state = golden('points_pointmlp_elite').published_state_dict('pointmlp_elite')
    state = {key: value.long() if key.endswith('num_batches_tracked') else value for key, value in state.items()}
    torch.save({'net': {f'module.{key}': value for key, value in state.items()}, 'acc': 1.0}, tmp_path / 'in.pth')
    convert(tmp_path / 'in.pth', tmp_path / 'ours.safetensors', 'safetensors')
    load(pointcloud.create_model('pointmlp_elite'), tmp_path / 'ours.safetensors')
    convert(tmp_path / 'ours.safetensors', tmp_path / 'back.pth', 'published')
    back = read(tmp_path / 'back.pth')['net']
    assert set(back) == set(state)
    assert all(torch.equal(back[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ('task', 'form', 'head'),
    [
        ('detection', 'mmdet', 'roi_head.bbox_head.fc_cls.weight'),
        ('segmentation', 'mmseg', 'decode_head.conv_seg.bias'),
    ],
)
def test_published_dense_checkpoints_come_back_as_they_were(golden, tmp_path, task, form, head):
    trunk = first_generation(golden('dense_coc_small_4').published_state_dict('dense_coc_small'))
    state = {**{f'backbone.{key}': value for key, value in trunk.items()}, head: torch.randn(3)}
    torch.save({'state_dict': state, 'meta': {'CLASSES': ('a', 'b')}}, tmp_path / 'in.pth')
    convert(tmp_path / 'in.pth', tmp_path / 'ours.pth', form)
    ours = read(tmp_path / 'ours.pth')
    assert ours['meta']['denominator'] == 'count' and ours['meta']['task'] == task
    assert 'backbone.dense_norms.3.weight' in ours['state_dict'] and torch.equal(ours['state_dict'][head], state[head])
    convert(tmp_path / 'ours.pth', tmp_path / 'back.pth', 'published')
    back = read(tmp_path / 'back.pth')['state_dict']
    assert set(back) == set(state) and all(torch.equal(back[key], value) for key, value in state.items())


def test_an_architecture_that_is_not_published_is_converted_too(tmp_path):
    config = create_model('coc_tiny').config.override(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), in_channels=1)
    model = ContextCluster(config, num_classes=2)
    torch.save(model.state_dict(), tmp_path / 'in.pth')
    assert 'none that is published' in convert(tmp_path / 'in.pth', tmp_path / 'out.safetensors', 'safetensors')
    load(model, tmp_path / 'out.safetensors')


def drop(state, key):
    del state[key]


@pytest.mark.parametrize(
    ('damage', 'sentence'),
    [
        (lambda s: drop(s, 'network.2.1.mlp.fc1.bias'), r"'stages.1.blocks.1.mlp.fc1.bias' is missing"),
        (lambda s: drop(s, 'norm.weight'), r"'norm.weight' is missing"),
        (lambda s: drop(s, 'patch_embed.proj.weight'), r"'stem.weight' is missing"),
        (lambda s: s.update({'network.0.0.extra': torch.zeros(1)}), r"'stages.0.blocks.0.extra' is unknown"),
        (lambda s: s.update({'layers.0.extra': torch.zeros(1)}), r"'layers.0.extra' is unknown"),
        (lambda s: s.update({'network.2.1.mlp.fc1.bias': torch.zeros(5)}), r'is \[5\] where \[512\] is expected'),
    ],
)
def test_what_is_not_complete_is_not_converted(golden, tmp_path, damage, sentence):
    state = golden('classify_coc_tiny').published_state_dict('coc_tiny')
    damage(state)
    torch.save(state, tmp_path / 'in.pth')
    with pytest.raises(CheckpointError, match=sentence):
        convert(tmp_path / 'in.pth', tmp_path / 'out.pth', 'pth')
    assert [path.name for path in tmp_path.iterdir()] == ['in.pth']


@pytest.mark.parametrize(
    ('form', 'name', 'options', 'sentence'),
    [
        ('mmdet', 'a.pth', {}, "has no form 'mmdet': it can become pth, safetensors, timm, mmpretrain, published"),
        ('onnx', 'a.pth', {}, "The form 'onnx' is unknown"),
        ('safetensors', 'a.pth', {}, r'let its name end in .safetensors'),
        ('mmpretrain', 'a.safetensors', {}, r'let its name end in .pth'),
        ('pth', 'nowhere/a.pth', {}, 'there is no folder'),
        ('pth', 'published.pth', {}, 'exists already'),
    ],
)
def test_impossible_wishes_are_refused(classifier, tmp_path, form, name, options, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        convert(classifier, tmp_path / name, form, **options)
    assert [path.name for path in tmp_path.iterdir()] == ['published.pth']


def test_a_folder_or_an_unknown_denominator_is_refused(classifier, tmp_path):
    (tmp_path / 'a.pth').mkdir()
    with pytest.raises(CheckpointError, match='is a folder: name a file'):
        convert(classifier, tmp_path / 'a.pth', 'pth', overwrite=True)
    with pytest.raises(ValueError, match="denominator='sum' is unknown"):
        convert(classifier, tmp_path / 'b.pth', 'pth', denominator='sum')


def test_a_denominator_that_the_file_contradicts_is_refused(golden, tmp_path):
    state = golden('classify_coc_tiny').published_state_dict('coc_tiny')
    torch.save(first_generation(state), tmp_path / 'in.pth')
    with pytest.raises(CheckpointError, match="trained with denominator='count': its MLP weights are 4-D"):
        convert(tmp_path / 'in.pth', tmp_path / 'out.pth', 'pth', denominator='similarity')


def test_a_file_beside_the_new_one_stays(classifier, tmp_path):
    source = classifier.rename(tmp_path / 'out.pth.part')
    convert(source, tmp_path / 'out.pth', 'pth')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['out.pth', 'out.pth.part']


@pytest.mark.parametrize('form', ['pth', 'safetensors'])
@pytest.mark.parametrize('step', ['os.replace', 'Path.write_bytes'])
def test_a_disk_that_takes_no_more_is_told_as_a_checkpoint_error(classifier, tmp_path, monkeypatch, form, step):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(f'coc_core.files.{step}', full)
    with pytest.raises(CheckpointError, match=f'out.{form} cannot be written: No space left on device'):
        convert(classifier, tmp_path / f'out.{form}', form)
    assert [path.name for path in tmp_path.iterdir()] == ['published.pth']
