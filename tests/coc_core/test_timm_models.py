"""timm users get the same models: what timm's own tests ask of every model, and its ways of loading and sharing.

TorchScript is left out: the operator and `checkpoint_seq` are plain Python; `torch.export` is the way.
"""

import json
import os
import subprocess
import sys

import pytest
import safetensors.torch
import timm
import torch
from timm.models import adapt_input_conv, create_feature_extractor, group_parameters, load_checkpoint, save_for_hf
from timm.optim import param_groups_layer_decay
from torch.testing import assert_close

import coc_core
from coc_core.checkpoints import CheckpointError, to_official
from coc_core.layers import ClusterMixer

NAMES = list(coc_core.VARIANTS)
SMALL = dict(depths=(1, 1, 2, 1), dims=(8, 12, 16, 20), heads=2, head_dim=4)


class TwiceAsSimilar(ClusterMixer):
    def similarity(self, points_GND, centers_GMD):
        return 2 * super().similarity(points_GND, centers_GMD)


def small(name='coc_tiny', **options):
    torch.manual_seed(0)
    return timm.create_model(name, **SMALL, **options).eval()


@pytest.fixture
def shared(tmp_path):
    """A model saved as timm saves one for the Hub, and its folder."""
    model = small(num_classes=7)
    save_for_hf(model, tmp_path / 'shared', safe_serialization=True)
    return model, tmp_path / 'shared'


def test_every_variant_is_registered_with_its_configuration():
    assert set(timm.list_models('coc_*')) == set(NAMES)
    for name in NAMES:
        cfg = timm.get_pretrained_cfg(name)
        assert cfg.input_size == (3, 224, 224) and cfg.crop_pct == 0.9 and cfg.interpolation == 'bicubic'
        assert cfg.first_conv == 'stem' and cfg.classifier == 'head' and cfg.num_classes == 1000


def test_import_is_enough():
    code = "import coc_core, timm; print(sum(p.numel() for p in timm.create_model('coc_medium').parameters()))"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '29290520'


def test_import_needs_no_mm_package():
    code = (
        "import coc_core, sys; print([m for m in sys.modules if m.split('.')[0] in ('mmengine', 'mmcv', 'mmpretrain')])"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


@pytest.mark.parametrize('name', NAMES)
def test_forward_pooling_and_classifier_as_timm_expects(name):
    """What timm's test of default configurations checks, on every variant's own layers."""
    model = small(name, num_classes=10)
    images = torch.randn(2, 3, 64, 96)
    assert model(images).shape == (2, 10)
    state = model.state_dict()
    assert 'head.weight' in state and 'stem.weight' in state and model.get_classifier() is model.head
    features = model.forward_features(images)
    pooled = model.forward_head(features, pre_logits=True)
    assert features.shape == (2, 20, 2, 3) and pooled.shape == (2, model.head_hidden_size) == (2, model.num_features)
    assert_close(model.forward_head(features), model(images))
    model.reset_classifier(0)
    assert_close(model(images), pooled)
    model.reset_classifier(0, '')
    assert_close(model(images), features)
    bare = small(name, num_classes=0, global_pool='')
    bare.load_state_dict(model.state_dict())
    assert_close(bare(images), features)
    model.reset_classifier(5, 'avg')
    assert model(images).shape == (2, 5) and model.num_classes == 5
    with pytest.raises(ValueError, match="global_pool='' leaves no vector for a head"):
        model.reset_classifier(5, '')


@pytest.mark.parametrize('mixer', [None, TwiceAsSimilar], ids=['stock', 'own'])
def test_fx_features_are_bit_by_bit_those_of_the_model(mixer):
    model = small(num_classes=4, mixer=mixer)
    images = torch.randn(2, 3, 64, 96)
    traced = create_feature_extractor(model, {'stages.1': 'early', 'stages.3': 'late', 'head': 'logits'})
    found = traced(images)
    _, (_, early, _, late) = model.forward_intermediates(images, output_fmt='NHWC')
    assert torch.equal(found['early'], early) and torch.equal(found['late'], late)
    assert torch.equal(found['logits'], model(images))


def test_fx_graphs_train():
    model = small(num_classes=4).train()
    traced = create_feature_extractor(model, ['head'])
    traced(torch.randn(2, 3, 64, 64))['head'].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_torchscript_is_refused_in_a_sentence():
    model = small()
    for scripted in (model, create_feature_extractor(model, ['head'])):
        with pytest.raises(
            RuntimeError, match=r'^torch\.jit\.script does not take a Context Cluster: use torch\.export'
        ):
            torch.jit.script(scripted)


def test_backward_reaches_every_parameter():
    model = small(num_classes=42).train()
    model(torch.randn(2, 3, 64, 64)).mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_features_only_pads_and_adds_coordinates():
    model = timm.create_model('coc_tiny', features_only=True, out_indices=(1, 3))
    features = model(torch.randn(1, 3, 97, 131))
    assert [tuple(f.shape[1:]) for f in features] == [(64, 13, 17), (320, 4, 5)]
    assert model.feature_info.channels() == [64, 320] and model.feature_info.reduction() == [8, 32]


def test_features_are_the_intermediates():
    model, images = small(num_classes=3), torch.randn(1, 3, 64, 64)
    wrapped = small(num_classes=3, features_only=True)
    wrapped.model.load_state_dict({k: v for k, v in model.state_dict().items() if k in wrapped.model.state_dict()})
    final, intermediates = model.forward_intermediates(images)
    assert_close(model.forward_features(images), final)
    assert_close(wrapped(images), intermediates)
    for output, info in zip(intermediates, model.feature_info, strict=True):
        assert output.shape == (1, info['num_chs'], 64 // info['reduction'], 64 // info['reduction'])
    only = model.forward_intermediates(images, indices=2, intermediates_only=True, output_fmt='NHWC')
    assert_close(only[0].permute(0, 3, 1, 2), intermediates[2])
    pruned = small(num_classes=3)
    pruned.load_state_dict(model.state_dict())
    assert pruned.prune_intermediate_layers([1]) == [1] and len(pruned.stages) == 2
    assert_close(pruned.forward_intermediates(images, indices=[1], intermediates_only=True)[0], intermediates[1])


def test_checkpointed_gradients_are_the_same():
    model, images = small(num_classes=3).train(), torch.randn(2, 3, 64, 64)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize('coarse', [False, True])
def test_every_parameter_belongs_to_a_layer_in_order(coarse):
    model = small(num_classes=3)
    groups = group_parameters(model, model.group_matcher(coarse=coarse))
    assert sorted(name for names in groups.values() for name in names) == sorted(n for n, _ in model.named_parameters())
    order = [next(i for i, names in groups.items() if name in names) for name, _ in model.named_parameters()]
    assert order == sorted(order) and len(groups) == (6 if coarse else 7)
    rates = [group['lr_scale'] for group in param_groups_layer_decay(model, layer_decay=0.5)]
    assert min(rates) == 0.5**6 and max(rates) == 1


def test_timm_arguments():
    model = timm.create_model('coc_tiny', num_classes=5, in_chans=1, drop_path_rate=0.1, center_grid=3)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 5)
    assert model.config.center_grid == (3, 3, 3, 3)
    with pytest.raises(ValueError, match="no field 'windows'"):
        timm.create_model('coc_tiny', windows=7)


def test_a_shared_folder_gives_the_same_model(shared):
    model, folder = shared
    images = torch.randn(1, 3, 64, 64)
    loaded = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    assert loaded.config == model.config and loaded.num_classes == 7
    assert_close(loaded(images), model(images))
    features = timm.create_model(f'local-dir:{folder}', pretrained=True, features_only=True).eval()
    assert_close(features(images), model.forward_intermediates(images)[1])


@pytest.mark.parametrize('channels', [1, 2, 5])
def test_the_stem_is_adapted_to_other_channels_and_keeps_the_coordinates(shared, channels):
    model, folder = shared
    loaded = timm.create_model(f'local-dir:{folder}', pretrained=True, in_chans=channels, num_classes=3).eval()
    weight = model.stem.weight
    assert_close(loaded.stem.weight, torch.cat([adapt_input_conv(channels, weight[:, :3]), weight[:, 3:]], dim=1))
    assert loaded(torch.randn(1, channels, 64, 64)).shape == (1, 3)
    assert_close(loaded.norm.weight, model.norm.weight)


def test_pretrained_weights_that_are_not_complete_are_refused_whatever_the_classes(shared):
    _, folder = shared
    state = safetensors.torch.load_file(folder / 'model.safetensors')
    state['stages.2.blocks.1.gamma3'] = state.pop('stages.2.blocks.1.gamma1')
    safetensors.torch.save_file(state, folder / 'model.safetensors')
    for classes in (7, 3):
        with pytest.raises(CheckpointError, match=r'1 missing \(stages.2.blocks.1.gamma1 \[16\]\); 1 unexpected'):
            timm.create_model(f'local-dir:{folder}', pretrained=True, num_classes=classes)


def test_a_published_file_is_pretrained_too(tmp_path):
    model = small(num_classes=3)
    torch.save({'state_dict': to_official(model.state_dict())}, tmp_path / 'published.pth')
    overlay = dict(file=str(tmp_path / 'published.pth'), num_classes=3)
    loaded = small(num_classes=3, pretrained=True, pretrained_cfg_overlay=overlay)
    assert_close(loaded.state_dict(), model.state_dict())
    first = to_official(model.state_dict(), first_generation=True)
    torch.save({'state_dict': first}, tmp_path / 'published.pth')
    with pytest.raises(CheckpointError, match="denominator='count'"):
        small(num_classes=3, pretrained=True, pretrained_cfg_overlay=overlay)


def test_timm_loads_checkpoints_of_its_own_training(tmp_path):
    model = small(num_classes=3)
    torch.save(
        {'state_dict': {f'module.{k}': v for k, v in model.state_dict().items()}, 'epoch': 1}, tmp_path / 'a.pth'
    )
    other = small(num_classes=3)
    torch.nn.init.zeros_(other.stem.weight)
    load_checkpoint(other, str(tmp_path / 'a.pth'))
    assert_close(other.state_dict(), model.state_dict())


def test_the_hub_gives_the_same_model(shared, tmp_path):
    """Without a network: the folder lies in the Hub's cache, as a download would have left it."""
    model, folder = shared
    snapshot = tmp_path / 'hub' / 'models--someone--coc' / 'snapshots' / ('0' * 40)
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (snapshot.parents[1] / 'refs').mkdir()
    (snapshot.parents[1] / 'refs' / 'main').write_text('0' * 40)
    code = (
        'import coc_core, timm, json, torch; torch.manual_seed(0);'
        "m = timm.create_model('hf_hub:someone/coc', pretrained=True).eval();"
        'print(json.dumps(m(torch.ones(1, 3, 64, 64)).tolist()))'
    )
    environment = {**os.environ, 'HF_HUB_OFFLINE': '1', 'HF_HUB_CACHE': str(tmp_path / 'hub')}
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True)
    assert_close(torch.tensor(json.loads(done.stdout)), model(torch.ones(1, 3, 64, 64)))


def test_a_recorded_denominator_is_looked_at(tmp_path):
    torch.save({'state_dict': small(num_classes=3).state_dict(), 'meta': {'denominator': 'count'}}, tmp_path / 'a.pth')
    overlay = dict(file=str(tmp_path / 'a.pth'), num_classes=3)
    with pytest.raises(CheckpointError, match="build it with denominator='count'"):
        small(num_classes=3, pretrained=True, pretrained_cfg_overlay=overlay)
