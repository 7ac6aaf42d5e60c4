"""An origin and a task's layout that this project has never heard of, defined here alone."""

import re

import pytest
import torch

from coc_core import CoCConfig, ContextCluster
from coc_core.checkpoints import CheckpointError, convert, forms, load, load_content
from coc_core.checkpoints.layouts import LAYOUTS, Layout, register_layout
from coc_core.checkpoints.origins import ORIGINS, Images, recognize, register_origin
from coc_core.errors import UserError


def toy(num_classes=3, dense=()):
    arch = dict(depths=(1, 1), dims=(8, 12), mlp_ratios=2, heads=2, head_dim=4, center_grid=2, region_grid=1)
    torch.manual_seed(num_classes)
    return ContextCluster(CoCConfig(**arch), num_classes=num_classes, dense_indices=dense)


class Transposed(Images):
    """Names in capitals under ``net/``, and every matrix the other way round."""

    names = re.compile(r'^()NET/STAGES\.\d+\.BLOCKS\.\d+\.GAMMA[12]$')
    form = 'transposed'
    title = 'transposed {task} checkpoint'

    def rename(self, weights):
        known = {key: value for key, value in weights.items() if key.startswith('NET/')}
        ours = {key[4:].lower(): value.T if value.ndim == 2 else value for key, value in known.items()}
        return ours, [key for key in weights if key not in known], ['capitals to small letters; matrices turned']

    def rename_back(self, weights, *, first_generation=False):
        return {f'NET/{key.upper()}': value.T if value.ndim == 2 else value for key, value in weights.items()}


@pytest.fixture
def transposed():
    origin = Transposed()
    register_origin(origin)
    yield origin
    ORIGINS.remove(origin)


def test_a_made_up_origin_loads_and_round_trips(transposed, tmp_path):
    state = toy().state_dict()
    theirs = transposed.rename_back(state)
    torch.save({'state_dict': theirs}, tmp_path / 'theirs.pth')
    model = toy(num_classes=3)
    for parameter in model.parameters():
        parameter.data.fill_(7)
    report = load(model, tmp_path / 'theirs.pth')
    assert report.origin == 'transposed classification checkpoint' and report.loaded == len(state)
    assert report.translated == ('capitals to small letters; matrices turned',)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())

    assert 'transposed' in forms()
    convert(tmp_path / 'theirs.pth', tmp_path / 'ours.pth', 'pth')
    convert(tmp_path / 'ours.pth', tmp_path / 'back.pth', 'transposed')
    back = torch.load(tmp_path / 'back.pth')['state_dict']
    assert back.keys() == theirs.keys() and all(torch.equal(back[key], theirs[key]) for key in theirs)
    convert(tmp_path / 'theirs.pth', tmp_path / 'published.pth', 'published')
    assert 'patch_embed.proj.weight' in torch.load(tmp_path / 'published.pth')['state_dict']


def test_a_made_up_origin_is_as_strict_as_the_others(transposed):
    theirs = transposed.rename_back(toy().state_dict())
    with pytest.raises(CheckpointError, match='1 missing .head.bias'):
        load_content(toy(), {k: v for k, v in theirs.items() if k != 'NET/HEAD.BIAS'}, 'a.pth')
    with pytest.raises(CheckpointError, match='1 unexpected .extra'):
        load_content(toy(), {**theirs, 'extra': torch.zeros(1)}, 'a.pth')


def test_without_its_origin_such_a_file_is_no_context_cluster():
    theirs = Transposed().rename_back(toy().state_dict())
    assert 'transposed' not in forms()
    with pytest.raises(CheckpointError, match='holds no Context Cluster weights: its first names are NET/'):
        load_content(toy(), theirs, 'a.pth')


@pytest.fixture
def depth():
    layout = Layout(task='depth', heads=r'depth_head\.', form='depth')
    register_layout(layout)
    yield layout
    del LAYOUTS['depth']


def test_a_made_up_layout_is_recognized_and_written(depth, tmp_path):
    backbone = {f'backbone.{key}': value for key, value in toy(dense=(0, 1)).state_dict().items()}
    weights = {**backbone, 'depth_head.weight': torch.ones(1, 12, 1, 1)}
    source = recognize({'state_dict': weights}, 'a.pth')
    assert (source.title, source.task, source.layout) == ('depth checkpoint of this project', 'depth', depth)
    report = load_content(toy(dense=(0, 1)), weights, 'a.pth')
    assert report.unused == ('depth_head.weight',)
    torch.save({'state_dict': weights}, tmp_path / 'depth.pth')
    convert(tmp_path / 'depth.pth', tmp_path / 'library.pth', 'depth')
    written = torch.load(tmp_path / 'library.pth')['state_dict']
    assert written.keys() == weights.keys() and all(torch.equal(written[key], weights[key]) for key in weights)


def test_names_that_are_not_ours_are_told():
    for origin in ORIGINS:
        if origin.form == 'published':
            with pytest.raises(UserError, match="'nonsense' is not a key of a"):
                origin.rename_back({'nonsense': torch.zeros(1)})
