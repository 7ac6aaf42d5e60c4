"""The adapter that mmpretrain, mmdet and mmseg register."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch.testing import assert_close

import mmpretrain_plugin  # noqa: F401
from coc_core import VARIANTS, ContextCluster, create_model
from coc_core.checkpoints import from_official, load_content
from coc_core.errors import UserError
from coc_core.layers import ClusterMixer
from coc_core.mm.backbone import ContextClusterBackbone
from coc_core.mm.configs import load_config
from coc_core.variants import CoCConfig

TOY = dict(depths=(1, 1), dims=(8, 12), mlp_ratios=2, heads=2, head_dim=4, center_grid=2, region_grid=1)


def build(**options):
    init_default_scope('mmpretrain')
    return MODELS.build(dict(type='ContextCluster', **{'arch': TOY, 'out_indices': (0, 1), **options}))


def test_keys_are_those_of_the_core_model():
    names = set(create_model('coc_tiny', num_classes=0).state_dict())
    assert set(build(arch='coc_tiny', out_indices=(3,), output_norm='classification').state_dict()) == names


@pytest.mark.parametrize('centers', [2, 5, 7])
def test_dense_golden_cases_through_the_registry(golden, centers):
    case = golden(f'dense_coc_small_{centers**2}')
    model = build(arch='coc_small', center_grid=centers, out_indices=(0, 1, 2, 3)).double().eval()
    model.load_state_dict(from_official(case.published_state_dict('dense_coc_small')))
    with torch.no_grad():
        for i, output in enumerate(model(case.image())):
            assert_close(output, case.expected[f'stage{i}'].double(), rtol=0, atol=1e-6)


@pytest.mark.family
def test_classification_norm_is_the_classifiers(golden):
    case = golden('classify_coc_tiny')
    weights = from_official(case.published_state_dict('coc_tiny'))
    model = build(arch='coc_tiny', out_indices=(3,), output_norm='classification').double().eval()
    model.load_state_dict({k: v for k, v in weights.items() if not k.startswith('head.')})
    with torch.no_grad():
        (features,) = model(case.image())
    logits = features.mean((2, 3)) @ weights['head.weight'].T + weights['head.bias']
    assert_close(logits, case.expected['logits'], rtol=0, atol=1e-10)


@pytest.mark.parametrize(('frozen', 'expected'), [(-1, []), (0, ['stem']), (1, ['stem', 'stages.0'])])
def test_frozen_stages_get_no_gradient_and_stay_in_evaluation(frozen, expected):
    model = build(frozen_stages=frozen, drop_path_rate=0.5)
    assert model.train() is model
    sum(o.sum() for o in model(torch.randn(2, 3, 16, 16))).backward()
    frozen_names = {n for n, p in model.named_parameters() if p.grad is None}
    assert frozen_names == {n for n, _ in model.named_parameters() if any(n.startswith(e + '.') for e in expected)}
    assert model.stages[0].training is ('stages.0' not in expected) and model.stages[1].training


@pytest.mark.parametrize('wrap', ['plain', 'mmpretrain', 'published'])
def test_pretrained_trunk_loads_from_every_origin(tmp_path, golden, wrap):
    published = golden('classify_coc_small').published_state_dict('coc_small')
    ours = from_official(published)
    if wrap == 'plain':
        content = ours
    elif wrap == 'mmpretrain':
        content = {'state_dict': {f'backbone.{k}': v for k, v in ours.items() if not k.startswith('head.')}}
    else:
        content = {'state_dict': published}
    torch.save(content, tmp_path / 'weights.pth')
    model = build(
        arch='coc_small', out_indices=(1, 3), init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    )
    model.init_weights()
    for name, value in model.state_dict().items():
        if not name.startswith('dense_norms.'):
            assert torch.equal(value.double(), ours[name].float().double()), name


def test_pretrained_names_what_does_not_fit(tmp_path):
    weights = ContextCluster(build().config, num_classes=3).state_dict()
    weights['stages.0.blocks.0.mlp.fc3.weight'] = weights.pop('stages.0.blocks.0.mlp.fc1.weight')
    weights['stem.bias'] = torch.zeros(7)
    torch.save(weights, tmp_path / 'weights.pth')
    model = build(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=r'stem.bias \[7\] where the model has \[8\]'):
        model.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@MODELS.register_module(name='Warm')
class WarmMixer(ClusterMixer):
    def __init__(self, *args, warmth=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.warmth = torch.nn.Parameter(torch.tensor(warmth))


def test_a_mixer_starts_from_stock_weights_where_the_config_allows_it(tmp_path):
    path = str(tmp_path / 'stock.pth')
    stock = build(output_norm='classification')
    torch.save(stock.state_dict(), path)
    init = dict(type='Pretrained', checkpoint=path)
    own = dict(output_norm='classification', mixer=dict(type='Warm', warmth=2.0))
    with pytest.raises(ValueError, match=r'2 missing .*warmth.*fresh_mixers=True'):
        build(**own, init_cfg=init).init_weights()
    model = build(**own, init_cfg=dict(init, fresh_mixers=True))
    model.init_weights()
    for name, value in stock.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model.stages[0].blocks[0].mixer.warmth == 2


@pytest.mark.parametrize('kind', ['Warm', 'mmpretrain.Warm'])
def test_a_training_with_a_mixer_of_another_name_loads_its_own_checkpoint(tmp_path, kind):
    path = str(tmp_path / 'own.pth')
    mixer = dict(type=kind)
    config = f"model = dict(backbone=dict(mixer=dict(type='{kind}'), type='ContextCluster'))"
    torch.save({'state_dict': build(mixer=mixer).state_dict(), 'meta': {'cfg': config}}, path)
    build(mixer=mixer, init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()
    with pytest.raises(ValueError, match='was trained with the mixer Warm, but the model was built with ClusterMixer'):
        build(init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()


class OwnBackbone(ContextClusterBackbone):
    def __init__(self, *args, gate='silu', **others):
        super().__init__(*args, **others)


def test_an_argument_of_ones_own_backbone_is_told():
    model = OwnBackbone(TOY, out_indices=(0, 1), gate='gelu', frozen_stages=1)
    text = "model = dict(backbone=dict(type='OwnBackbone', arch='coc_tiny', gate='{}', out_indices=(1,)))"
    content = {'state_dict': model.state_dict(), 'meta': {'cfg': text.format('relu')}}
    told = load_content(model, content, 'epoch_1.pth').otherwise
    assert told[-1] == "with gate='relu' where this model has 'gelu'" and not any('frozen' in one for one in told)
    content['meta']['cfg'] = text.format('gelu')
    assert not any('gate' in one for one in load_content(model, content, 'epoch_1.pth').otherwise)


def test_pretrained_refuses_another_model(tmp_path):
    torch.save({'state_dict': {'layer1.weight': torch.zeros(1)}}, tmp_path / 'resnet.pth')
    with pytest.raises(ValueError, match=r'resnet.pth holds no Context Cluster weights'):
        build(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'resnet.pth'))).init_weights()


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'arch': 'coc_smal'}, "Unknown variant 'coc_smal'. Did you mean 'coc_small'"),
        ({'centre_grid': 5}, "no field 'centre_grid'. Did you mean 'center_grid'"),
        ({'output_norm': 'batch'}, "output_norm='batch' is unknown: choose one of dense, classification"),
        ({'out_indices': (0,), 'output_norm': 'classification'}, r'out_indices=\(0,\) must contain the last stage 1'),
        ({'out_indices': (0, 9)}, r'Stage indices \[0, 9\]'),
        ({'frozen_stages': 7}, 'frozen_stages=7 must lie between -1 and 2'),
        ({'arch': {'depths': (1,)}}, 'lacks the CoCConfig fields dims'),
        ({'mixer': 'Warm'}, r"mixer='Warm' names no mixer: say mixer=dict\(type='MyMixer'"),
        ({'mixer': {}}, r'mixer={} names no mixer'),
        ({'mixer': dict(type='Worm')}, "The mixer 'Worm' is in no registry"),
    ],
)
def test_wrong_arguments_are_errors_with_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ContextClusterBackbone(**{'arch': TOY, 'out_indices': (0, 1), **options})


def test_every_variant_builds():
    for name in VARIANTS:
        with torch.device('meta'):
            build(arch=name, out_indices=(0, 1, 2, 3))


def test_every_field_of_a_variant_is_a_cfg_option_and_a_misspelled_one_is_not():
    path = str(Path(__file__).parents[3] / 'configs' / 'classification' / 'coc-tiny_1xb32-12e_digits.py')
    for field in fields(CoCConfig):
        load_config(path, {f'model.backbone.{field.name}': 1})
    with pytest.raises(UserError, match=r"no key 'centre_grid'. Did you mean 'center_grid"):
        load_config(path, {'model.backbone.centre_grid': 3})
