"""The metafiles: every config once, with the numbers that its docstring and the model itself have."""

import ast
import json
import re
from pathlib import Path

import mmpretrain
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from modelindex.load_model_index import load
from torch.testing import assert_close

import mmpretrain_plugin  # noqa: F401
from coc_core.mm.models import replace_sync_batch_norm

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs').glob('[!_]*/*.py'))


@pytest.fixture(scope='module')
def zoo(tmp_path_factory):
    """Every entry by its config, read as `mim` reads an index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        index = load('model-index.yml')
        index.build_models_with_collections()
    return {model.config: model for model in index.models}


def test_every_config_is_listed_once_under_its_name(zoo):
    assert sorted(zoo) == [str(path.relative_to(ROOT)) for path in CONFIGS]
    assert all(model.name == Path(config).stem for config, model in zoo.items())


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_numbers_are_those_of_the_config(zoo, path):
    entry = zoo[str(path.relative_to(ROOT))]
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    replace_sync_batch_norm(cfg.model)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert entry.metadata.parameters == sum(parameter.numel() for parameter in model.parameters())
    results = entry.results or []
    published = re.search(r'Published.*?: (?!none)(.*)', ast.get_docstring(ast.parse(path.read_text())))
    ours = any(data in path.stem for data in ('digits', 'stamps', 'fashion-mnist'))
    assert bool(results) == bool(published or ours)
    if results:
        source = entry.metadata.data['Source']
        assert source.startswith('measured by this project' if ours else 'published by the authors')
    if published:
        (result,) = results
        assert all(str(value) in published[1] for value in result.metrics.values())


def test_the_comparison_of_backbones_is_its_record(zoo):
    record = json.loads((ROOT / 'docs' / 'results' / 'fashion-mnist' / 'results.json').read_text())
    page = (ROOT / 'docs' / 'model-zoo.md').read_text()
    assert {model['config'] for model in record['models']} == {c for c in zoo if 'fashion-mnist' in c}
    for model in record['models']:
        result = model['metrics']['accuracy/top1']
        row = f'| `{model["config"]}` | {model["parameters"]:,} | {result["mean"]:.2f} ± {result["std"]:.2f} |'
        assert row in page
        (entry,) = zoo[model['config']].results
        assert entry.metrics == {'Top 1 Accuracy': round(result['mean'], 2)}
        assert len(result['values']) == len(set(model['checkpoints_sha256'])) == len(model['seeds']) == 3


def test_mmpretrain_finds_and_builds_the_classifiers():
    names = {path.stem for path in CONFIGS if path.parent.name == 'classification' and path.stem.startswith('coc')}
    assert set(mmpretrain.list_models('coc*')) == names
    model = mmpretrain.get_model('coc-small_8xb128_in1k')
    assert sum(p.numel() for p in model.parameters()) == 14657024


@pytest.mark.parametrize('published', [True, False])
def test_mmpretrain_loads_a_file_of_bare_names_into_them(golden, tmp_path, published):
    from coc_core.checkpoints import from_official

    case = golden('classify_coc_tiny')
    state = case.published_state_dict('coc_tiny')
    torch.save({'state_dict': state} if published else from_official(state), tmp_path / 'a.pth')
    model = mmpretrain.get_model('coc-tiny_8xb128_in1k', pretrained=str(tmp_path / 'a.pth')).eval()
    with torch.no_grad():
        assert_close(model(case.image().float()).double(), case.expected['logits'], rtol=0, atol=1e-4)
