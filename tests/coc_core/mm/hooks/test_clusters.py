"""The hook in real runs of the digits config on a few images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from coc_core.errors import UserError
from coc_core.mm.hooks.clusters import ClusterVisualizationHook
from coc_core.visualization.files import read_frames

ROOT = Path(__file__).parents[4]
DIGITS = ROOT / 'configs' / 'classification' / 'coc-tiny_1xb32-12e_digits.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('digits')
    random = np.random.default_rng(0)
    for part, count in (('train', 3), ('val', 2)):
        for label in '012345':
            (folder / part / label).mkdir(parents=True)
            for i in range(count):
                small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
                small.resize((64, 64)).save(folder / part / label / f'{i}.png')
    return folder


def train(data, work_dir, hook, epochs=1, resume=False):
    """Six iterations an epoch."""
    cfg = Config.fromfile(DIGITS)
    for phase in ('train', 'val', 'test'):
        loader = cfg[f'{phase}_dataloader']
        loader.update(batch_size=3, num_workers=0, persistent_workers=False, collate_fn=dict(type='default_collate'))
        loader.dataset.update(data_root=str(data), metainfo=dict(classes=list('012345')))
    cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = 6
    cfg.custom_hooks = [] if hook is None else [dict(type='ClusterVisualizationHook', **hook)]
    cfg.train_cfg.max_epochs = epochs
    cfg.work_dir = str(work_dir)
    cfg.resume = resume
    cfg.experiment_name = f'{work_dir.name}_{epochs}_{resume}'
    torch.manual_seed(0)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def watched(data, tmp_path_factory):
    """A run of one epoch with a picture every three iterations, of two samples at 96 pixels."""
    work_dir = tmp_path_factory.mktemp('work') / 'watched'
    hook = dict(samples=2, interval=3, by_epoch=False, size=96)
    return train(data, work_dir, hook), work_dir, hook


def titles(gif):
    """The pictures' numbers cannot be read; that they differ can be seen."""
    return [frame[:40].tobytes() for frame in read_frames(gif)]


def test_pictures_go_through_the_visualizer_and_films_show_every_step(watched):
    _, work_dir, _ = watched
    (folder,) = work_dir.glob('*/vis_data/vis_image')
    assert sorted(path.name for path in folder.iterdir()) == [f'clusters_{step}.png' for step in (0, 3, 6)]
    films = sorted(path.name for path in (work_dir / 'clusters').glob('*.gif'))
    assert films == ['stage0_block2.gif', 'stage1_block3.gif', 'stage2_block4.gif', 'stage3_block1.gif']
    for name in films:
        assert len(set(titles(work_dir / 'clusters' / name))) == 3, 'each frame has its own step number'
    sheet = np.asarray(Image.open(work_dir / 'clusters' / 'contact_sheet.png'))
    assert sheet.shape[0] > 14 * 112 and sheet.shape[1] > 9 * 112


def test_training_is_the_same_without_it(watched, data, tmp_path):
    runner, _, _ = watched
    plain = train(data, tmp_path / 'plain', None)
    for (name, a), b in zip(runner.model.state_dict().items(), plain.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert not (tmp_path / 'plain' / 'clusters').exists()


def test_a_training_that_goes_on_keeps_its_film(watched, data):
    """But for a picture of another size, and one that was lost with the iterations after the checkpoint."""
    _, work_dir, hook = watched
    history = work_dir / 'clusters' / 'history'
    other = {f'image{i}_layer{layer}': np.zeros((2, 2, 4), np.int16) for i in range(2) for layer in range(4)}
    np.savez(history / '00000004.npz', **other)
    np.savez(history / '00000007.npz', **other)
    train(data, work_dir, hook, epochs=2, resume=True)
    assert sorted(int(path.stem) for path in history.iterdir()) == [0, 3, 4, 6, 9, 12]
    assert len(set(titles(work_dir / 'clusters' / 'stage3_block1.gif'))) == 5


def test_pictures_that_cannot_be_written_do_not_end_a_training(data, tmp_path):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work' / 'clusters').write_text('a file in the way')
    train(data, tmp_path / 'work', dict(samples=1, interval=6, by_epoch=False))
    assert (tmp_path / 'work' / 'epoch_1.pth').is_file()
    (log,) = (tmp_path / 'work').glob('*/*.log')
    assert 'stage0_block2.gif cannot be written' in log.read_text()


def test_by_epochs_and_chosen_layers_on_the_main_process_alone(data, tmp_path, monkeypatch):
    hook = dict(samples=[5], interval=1, layers=[(-1, 0)])
    train(data, tmp_path / 'epochs', hook)
    clusters = tmp_path / 'epochs' / 'clusters'
    assert sorted(path.name for path in clusters.iterdir()) == ['contact_sheet.png', 'history', 'stage3_block0.gif']
    assert sorted(path.stem for path in (clusters / 'history').iterdir()) == ['00000000', '00000006']
    monkeypatch.setattr('coc_core.mm.hooks.clusters.is_main_process', lambda: False)
    train(data, tmp_path / 'other', hook)
    assert not (tmp_path / 'other' / 'clusters').exists()


@pytest.mark.parametrize(
    ('hook', 'sentence'),
    [
        (dict(samples=[12]), 'sample 12 does not exist: the validation data has 12 images'),
        (dict(layers=[(4, 0)]), 'stage 4 does not exist: the model has the stages 0 to 3'),
    ],
)
def test_what_does_not_exist_is_told_before_training(data, tmp_path, hook, sentence):
    with pytest.raises(UserError, match=sentence):
        train(data, tmp_path / 'work', hook)


def test_impossible_numbers_are_told():
    with pytest.raises(ValueError, match='interval=0'):
        ClusterVisualizationHook(interval=0)
