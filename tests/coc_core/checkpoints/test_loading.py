"""Checkpoints of every origin load completely and give their numbers, or stop with a sentence."""

import argparse
import re

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch.testing import assert_close

import pointcloud
from coc_core import CoCConfig, ContextCluster, create_model
from coc_core.checkpoints import CheckpointError, from_official, load, load_content, to_official
from coc_core.checkpoints.conversion import in_library_names

TOY = CoCConfig(depths=(1, 2), dims=(8, 12), mlp_ratios=2, heads=2, head_dim=4, center_grid=2, region_grid=1)


def toy(num_classes=3, dense=(), **overrides):
    torch.manual_seed(0)
    return ContextCluster(TOY.override(**overrides), num_classes=num_classes, dense_indices=dense)


def renamed(state, old, new):
    return {key.replace(old, new): value for key, value in state.items()}


def with_projections_of_the_point_code(state):
    for old, new in (('mixer.f.', 'mixer.fc1.'), ('mixer.v.', 'mixer.fc_v.'), ('mixer.proj.', 'mixer.fc2.')):
        state = renamed(state, old, new)
    return state


def flat(state):
    return {key: value.flatten(1) if 'mixer' in key and value.ndim == 4 else value for key, value in state.items()}


CLASSIFIER_FILES = {
    'plain': lambda state: state,
    'state_dict': lambda state: {'state_dict': state, 'epoch': 300, 'arch': 'coc_tiny'},
    'model': lambda state: {'model': state, 'optimizer': {'state': {}}, 'args': argparse.Namespace(lr=1e-3)},
    'average alone': lambda state: {'state_dict_ema': state},
    'data parallel': lambda state: {'state_dict': {f'module.{key}': value for key, value in state.items()}},
    'projections as matrices': flat,
    'projections of the point code': with_projections_of_the_point_code,
    'both': lambda state: flat(with_projections_of_the_point_code(state)),
    'a part of another model': lambda state: {f'encoder.net.{key}': value for key, value in state.items()},
}


@pytest.mark.parametrize('kind', CLASSIFIER_FILES)
def test_published_classifiers_give_their_logits(golden, tmp_path, kind):
    case = golden('classify_coc_tiny')
    torch.save(CLASSIFIER_FILES[kind](case.published_state_dict('coc_tiny')), tmp_path / 'a.pth')
    model = create_model('coc_tiny').double().eval()
    report = load(model, tmp_path / 'a.pth')
    with torch.no_grad():
        assert_close(model(case.image()), case.expected['logits'], rtol=0, atol=1e-10)
    assert report.origin == 'published classification checkpoint' and not report.fresh and not report.unused
    assert report.denominator == 'similarity' and report.evidence.startswith('assumed')
    assert 'published classification checkpoint\n  loaded: 236 tensors' in str(report)


def test_first_generation_is_seen_from_its_mlps(golden, tmp_path):
    case = golden('classify_v1_coc_tiny')
    state = case.published_state_dict('coc_tiny')
    first = {k: v[..., None, None] if '.mlp.' in k and v.ndim == 2 else v for k, v in state.items()}
    torch.save(first, tmp_path / 'a.pth')
    model = create_model('coc_tiny', denominator='count').double().eval()
    report = load(model, tmp_path / 'a.pth')
    with torch.no_grad():
        assert_close(model(case.image()), case.expected['logits'], rtol=0, atol=1e-10)
    assert report.denominator == 'count' and '4-D' in report.evidence
    with pytest.raises(CheckpointError, match="trained with denominator='count' .*4-D.*: build it with denominator='c"):
        load(create_model('coc_tiny'), tmp_path / 'a.pth')


def test_for_two_dimensional_mlps_the_caller_says_the_denominator(golden, tmp_path):
    case = golden('classify_v1_coc_tiny')
    torch.save(case.published_state_dict('coc_tiny'), tmp_path / 'a.pth')
    model = create_model('coc_tiny', denominator='count').double().eval()
    report = load(model, tmp_path / 'a.pth')
    with torch.no_grad():
        assert_close(model(case.image()), case.expected['logits'], rtol=0, atol=1e-10)
    assert report.denominator == 'count' and report.evidence.startswith('assumed, as the model was built')


@pytest.mark.parametrize(
    ('config', 'needed'),
    [
        ("model = dict(backbone=dict(arch='coc_tiny', type='ContextCluster'))", 'similarity'),
        ("backbone=dict(denominator='count', type='ContextCluster')", 'count'),
    ],
)
def test_the_config_in_a_file_of_mmengine_tells_the_denominator(config, needed):
    model = toy(denominator=needed)
    checkpoint = {'state_dict': model.state_dict(), 'meta': {'cfg': config}}
    assert load_content(model, checkpoint, 'a.pth').evidence == "the training's config in the file says so"
    other = {'count': 'similarity', 'similarity': 'count'}[needed]
    with pytest.raises(CheckpointError, match=f"build it with denominator='{needed}'"):
        load_content(toy(denominator=other), checkpoint, 'a.pth')


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_published_dense_checkpoints_start_a_backbone(golden, tmp_path, task):
    case = golden('dense_coc_small_4')
    state = {f'backbone.{key}': value for key, value in case.published_state_dict('dense_coc_small').items()}
    head = {'detection': 'roi_head.bbox_head.fc_cls.weight', 'segmentation': 'decode_head.conv_seg.weight'}[task]
    state |= {'neck.lateral_convs.0.conv.weight': torch.zeros(1), head: torch.zeros(1)}
    torch.save({'meta': {'mmdet_version': '2.27.0'}, 'state_dict': state, 'optimizer': {}}, tmp_path / 'a.pth')
    model = ContextCluster(create_model('coc_small').config, dense_indices=(0, 1, 2, 3)).double().eval()
    report = load(model, tmp_path / 'a.pth')
    with torch.no_grad():
        for i, output in enumerate(model.forward_dense(case.image())):
            assert_close(output, case.expected[f'stage{i}'].double(), rtol=0, atol=1e-6)
    assert report.origin.startswith(f'published {task} checkpoint')
    assert set(report.unused) == {'neck.lateral_convs.0.conv.weight', head} and not report.fresh


@pytest.mark.parametrize('name', ['pointmlp_coc', 'pointmlp', 'pointmlp_elite'])
def test_published_point_models_give_their_logits(golden, tmp_path, name):
    case = golden(f'points_{name}')
    state = {
        f'module.{key}': value.long() if key.endswith('num_batches_tracked') else value
        for key, value in case.published_state_dict(name).items()
    }
    torch.save({'net': state, 'acc': 86.2, 'epoch': 249, 'optimizer': {}}, tmp_path / 'best.pth')
    model = pointcloud.create_model(name).double().eval()
    report = load(model, tmp_path / 'best.pth')
    with torch.no_grad():
        assert_close(model(case.points()), case.expected['logits'], rtol=0, atol=1e-10)
    assert report.origin == 'published point-cloud checkpoint' and report.denominator is None


def test_a_classifier_starts_a_dense_backbone():
    classifier, dense = toy(), toy(dense=(1,))
    before = dense.dense_norms['1'].weight.clone()
    report = load_content(dense, classifier.state_dict(), 'a.pth')
    assert report.fresh == ('dense_norms.1.weight', 'dense_norms.1.bias')
    assert set(report.unused) == {'norm.weight', 'norm.bias', 'head.weight', 'head.bias'}
    assert torch.equal(dense.dense_norms['1'].weight, before) and torch.equal(dense.stem.weight, classifier.stem.weight)


def test_stages_that_are_not_built_are_not_used():
    dense = toy(dense=(0,))
    report = load_content(dense, {f'backbone.{k}': v for k, v in toy(num_classes=0).state_dict().items()}, 'a.pth')
    assert {name for name in report.unused if not name.startswith('norm.')} == {
        name for name in toy().state_dict() if name.startswith('stages.1.')
    }


def test_averaged_weights_are_taken_where_asked_for():
    first, second = toy().state_dict(), {k: v + 1 for k, v in toy().state_dict().items()}
    model = toy()
    load_content(model, {'state_dict': first, 'state_dict_ema': second}, 'a.pth')
    assert torch.equal(model.stem.weight, first['stem.weight'])
    load_content(model, {'state_dict': first, 'state_dict_ema': second}, 'a.pth', ema=True)
    assert torch.equal(model.stem.weight, second['stem.weight'])
    with pytest.raises(CheckpointError, match='holds no averaged weights'):
        load_content(model, {'state_dict': first}, 'a.pth', ema=True)


def test_a_head_of_other_classes_says_what_to_do():
    with pytest.raises(CheckpointError) as caught:
        load_content(toy(num_classes=5), toy().state_dict(), 'a.pth')
    assert str(caught.value) == (
        'a.pth (classification checkpoint of this project) does not fit the model: 2 of another shape (head.weight '
        '[3, 12] where the model has [5, 12], head.bias [3] where the model has [5]). To mend it, build it with '
        'num_classes=3, or with num_classes=0 and call reset_classifier after loading.'
    )


def test_weights_that_are_not_finite_are_refused():
    state = toy().state_dict()
    state['stem.weight'] = state['stem.weight'].clone().fill_(float('nan'))
    with pytest.raises(CheckpointError, match=r'1 not finite \(stem.weight\)'):
        load_content(toy(), state, 'a.pth')


@pytest.mark.parametrize('content', [[], {'meta': 1}, {'state_dict': {}}, {'layer1.weight': torch.zeros(1)}])
def test_files_without_a_context_cluster_are_named(content):
    with pytest.raises(CheckpointError, match=r'a.pth holds no (Context Cluster )?weights'):
        load_content(toy(), content, 'a.pth')


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (lambda value: value.to_sparse(), 'head.weight float32 sparse_coo where the model has float32'),
        (lambda value: value.to('meta'), 'head.weight float32 meta where the model has float32'),
        (lambda value: value.to(torch.complex64), 'head.weight complex64 where the model has float32'),
    ],
)
def test_tensors_of_other_kinds_are_refused(change, sentence):
    state = toy().state_dict()
    with pytest.raises(CheckpointError, match=sentence):
        load_content(toy(), {**state, 'head.weight': change(state['head.weight'])}, 'a.pth')


def test_a_model_without_memory_is_refused():
    with pytest.raises(CheckpointError, match='meta device: call model.to_empty first'):
        load_content(toy().to('meta'), toy().state_dict(), 'a.pth')


@pytest.mark.parametrize('wrap', [torch.nn.DataParallel, torch.compile])
def test_wrapped_models_and_their_checkpoints(wrap):
    model, other = toy(), toy()
    torch.nn.init.zeros_(model.stem.weight)
    load_content(wrap(model), wrap(other).state_dict(), 'a.pth')
    assert torch.equal(model.stem.weight, other.stem.weight)


def test_norms_of_outputs_that_are_not_asked_for_are_not_used():
    report = load_content(toy(dense=(1,)), toy(dense=(0, 1)).state_dict(), 'a.pth')
    assert report.unused == ('dense_norms.0.weight', 'dense_norms.0.bias')
    with pytest.raises(CheckpointError, match=r'2 missing \(dense_norms.0.weight \[8\]'):
        load_content(toy(dense=(0, 1)), toy(dense=(1,)).state_dict(), 'a.pth')


def test_a_denominator_that_does_not_exist_is_refused():
    with pytest.raises(CheckpointError, match="a.pth records the denominator 'sum': it is none of similarity, count"):
        load_content(toy(), {'state_dict': toy().state_dict(), 'meta': {'denominator': 'sum'}}, 'a.pth')


def test_without_strictness_what_fits_is_taken_and_the_rest_is_named():
    model = toy(num_classes=5)
    weights = {**toy().state_dict(), 'extra.weight': torch.zeros(2)}
    report = load_content(model, weights, 'a.pth', strict=False)
    assert torch.equal(model.stem.weight, weights['stem.weight'])
    assert 'head.weight [3, 12] where the model has [5, 12]' in str(report) and 'extra.weight [2]' in str(report)


FORMS = {
    'ours': (toy, lambda state: {'state_dict': state}),
    'dense': (lambda: toy(dense=(0, 1)), lambda state: {'state_dict': {f'backbone.{k}': v for k, v in state.items()}}),
    'published': (toy, lambda state: {'model': to_official(state)}),
    'published first generation': (
        lambda: toy(denominator='count'),
        lambda state: to_official(state, first_generation=True),
    ),
}


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data(), form=st.sampled_from(sorted(FORMS)))
def test_no_corruption_passes(data, form):
    """Whatever is dropped, renamed, added or reshaped: an error, and the model is as it was."""
    build, wrap = FORMS[form]
    checkpoint = wrap(build().state_dict())
    container = next((v for v in checkpoint.values() if isinstance(v, dict)), checkpoint)
    key = data.draw(st.sampled_from(sorted(container)), label='key')
    value = container[key]
    kind = data.draw(st.sampled_from(['drop', 'rename', 'add', 'reshape', 'type', 'object']), label='kind')
    if kind in ('drop', 'rename'):
        del container[key]
    if kind == 'rename':
        place = data.draw(st.integers(0, len(key) - 1), label='place')
        container[key[:place] + data.draw(st.sampled_from('x0_7w')) + key[place:]] = value
    elif kind == 'add':
        container[f'{key}{data.draw(st.sampled_from(["2", ".copy", "_old"]))}'] = value.clone()
    elif kind == 'reshape':
        container[key] = torch.cat([value, value[:1]])
    elif kind == 'type':
        container[key] = value.to(torch.int64)
    elif kind == 'object':
        container[key] = value.tolist()
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r'a\.pth'):
        load_content(model, checkpoint, 'a.pth')
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize('form', FORMS)
def test_the_same_checkpoints_load_when_they_are_whole(form):
    build, wrap = FORMS[form]
    checkpoint, model = wrap(build().state_dict()), build()
    for parameter in model.parameters():
        parameter.data.fill_(7)
    load_content(model, checkpoint, 'a.pth')
    assert all(torch.equal(v, build().state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize('keys', ['coc_tiny', 'coc_medium', 'dense_coc_small', 'pointmlp_coc', 'pointmlp_elite'])
def test_translation_there_and_back_is_exact(golden, keys):
    name = 'points_' + keys if keys.startswith('point') else 'classify_coc_tiny'
    published = golden(name).published_state_dict(keys)
    back = to_official(from_official(published))
    assert set(back) == set(published)
    assert all(torch.equal(back[key], published[key]) for key in published)


@pytest.mark.parametrize('stray', ['stem.weight', 'stages.0.blocks.0.mlp.fc1.weight', 'head.weight'])
def test_no_tensor_replaces_another_of_its_name(stray):
    state = toy().state_dict()
    names = {k: k.replace('head.', 'head.fc.') if 'head' in k else f'backbone.{k}' for k in state}
    weights = {names[k]: v for k, v in state.items()} | {stray: torch.zeros_like(state[stray])}
    with pytest.raises(CheckpointError, match=f'1 unexpected .{stray}'):
        load_content(toy(), weights, 'a.pth')


def test_what_overflows_in_the_models_precision_is_refused():
    state = toy().state_dict()
    state['stem.bias'] = torch.full((8,), 1e300, dtype=torch.float64)
    with pytest.raises(CheckpointError, match=r'1 not finite \(stem.bias\)'):
        load_content(toy(), state, 'a.pth')


def test_without_strictness_what_does_not_fit_is_not_taken():
    model, state = toy(), toy().state_dict()
    before = model.stem.bias.clone()
    report = load_content(model, {**state, 'stem.bias': torch.full((8,), float('nan'))}, 'a.pth', strict=False)
    assert torch.equal(model.stem.bias, before) and '1 not finite (stem.bias)' in report.problems


def test_a_model_that_renames_its_weights_is_told_what_it_misses():
    init_default_scope('mmpretrain')
    entries = dict(type='TimmClassifier', model_name='test_resnet')
    model, other = (MODELS.build(dict(**entries, num_classes=classes)) for classes in (3, 5))
    with pytest.raises(CheckpointError, match=r'a.pth .* does not fit the model: .*fc.weight \[5, 96\] where'):
        load_content(model, {'state_dict': other.state_dict()}, 'a.pth')
    with pytest.raises(CheckpointError, match=r'\d+ missing \(model.conv1.0.weight'):
        load_content(model, {'state_dict': {'conv9.weight': torch.zeros(1)}}, 'a.pth')
    report = load_content(model, {'state_dict': other.state_dict()}, 'a.pth', strict=False)
    assert report.loaded == len(other.state_dict()) - 2
    taken = {key: value for key, value in model.state_dict().items() if 'fc' not in key}
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in taken.items())


@pytest.mark.parametrize('name', ['poolformer_s12', 'swin_tiny_patch4_window7_224', 'convnext_atto'])
def test_other_models_are_left_as_they_are(name):
    state = timm.create_model(name).state_dict()
    assert in_library_names(state, 'a.pth') is state
    backbone = {'state_dict': {f'backbone.{key}': value for key, value in state.items()}}
    assert in_library_names(backbone, 'a.pth') is backbone


@pytest.mark.parametrize(
    ('entries', 'difference'),
    [
        ("center_grid=3, type='ContextCluster'", r'center_grid=\(3, 3, 3, 3\) where this model has \(2, 2, 2, 2\)'),
        ("region_grid=[8, 4, 2, 2], type='ContextCluster'", r'region_grid=\(8, 4, 2, 2\) where'),
        ("type='Mine'", 'by the backbone Mine where this model has ContextCluster'),
        (
            "mixer=dict(type='ClusterMixer', x=[1.0, -2]), type='mmpretrain.ContextCluster'",
            r'with mixer.x=\(1.0, -2\) where this model has the default',
        ),
        ("type='ContextCluster'", None),
    ],
)
def test_what_a_training_had_otherwise_is_told(entries, difference):
    model = create_model('coc_tiny', num_classes=3)
    config = f"model = dict(backbone=dict(arch='coc_tiny', {entries}), head=dict(type='Head'))"
    report = load_content(model, {'state_dict': model.state_dict(), 'meta': {'cfg': config}}, 'a.pth')
    assert len(report.otherwise) == bool(difference)
    if difference:
        assert re.search(f'trained otherwise: .*{difference}', str(report))


def test_a_config_that_is_no_plain_text_tells_nothing():
    model = create_model('coc_tiny', num_classes=3)
    for config in ("model = dict(backbone=dict(arch=make(), type='ContextCluster'))", 'model = (', "backbone = 'mine'"):
        report = load_content(model, {'state_dict': model.state_dict(), 'meta': {'cfg': config}}, 'a.pth')
        assert not report.otherwise
