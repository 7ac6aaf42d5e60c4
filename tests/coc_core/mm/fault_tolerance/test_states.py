"""Which training state a run goes on from, and what of the run must be as it was."""

import os
import re
import shutil
import zipfile

import pytest
import torch
from mmengine.config import Config

from coc_core.checkpoints import CheckpointError
from coc_core.errors import UserError
from coc_core.mm.fault_tolerance.states import find_start, find_state, keep_run, read_state, remove_earlier

RUN = dict(processes=2, batch_size=8, accumulative_counts=1, samples=100, threads=1)


def save(path, iteration, **more):
    content = {
        'state_dict': {'weight': torch.arange(50_000.0) + iteration},
        'optimizer': {},
        'meta': dict(epoch=0, iter=iteration, seed=5, run=RUN),
    } | more
    torch.save(content, path)


@pytest.fixture
def work(tmp_path):
    """Three states; the newest by its content is not the newest by its date."""
    for iteration, name in ((10, 'epoch_1.pth'), (20, 'epoch_2.pth'), (25, 'rescue_25.pth')):
        save(tmp_path / name, iteration)
        os.utime(tmp_path / name, (100 - iteration, 100 - iteration))
    torch.save({'state_dict': {}, 'meta': dict(epoch=3, iter=30)}, tmp_path / 'best_accuracy_top1_epoch_3.pth')
    (tmp_path / 'last_checkpoint').write_text('/moved/away/epoch_1.pth')
    return tmp_path


def test_the_newest_state_is_taken_whatever_the_pointer_and_the_dates_say(work):
    assert find_state(str(work)).path.name == 'rescue_25.pth'
    (work / 'rescue_25.pth').unlink()
    assert find_state(str(work)).path.name == 'epoch_2.pth'
    assert find_state(str(work / 'nothing')) is None


def test_the_pointer_finds_a_state_elsewhere(work, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    shutil.move(work / 'rescue_25.pth', elsewhere / 'epoch_9.pth')
    (work / 'last_checkpoint').write_text(str(elsewhere / 'epoch_9.pth'))
    assert find_state(str(work)).path == elsewhere / 'epoch_9.pth'


@pytest.mark.parametrize(
    'content', [b'\xff\xfe\x00/x', b'', b'/', b'a\x00b', b'/proc/self/mem', b'.\n..\n', b'a' * 5000]
)
def test_a_damaged_pointer_is_only_a_hint(work, content):
    (work / 'last_checkpoint').write_bytes(content)
    assert find_state(str(work)).path.name == 'rescue_25.pth'


def flip(where):
    def damage(path):
        data = bytearray(path.read_bytes())
        place = int(where * len(data)) if where >= 0 else len(data) + int(where)
        data[place] ^= 4
        path.write_bytes(data)

    return damage


def zero(where, size=4096):
    def damage(path):
        data = bytearray(path.read_bytes())
        place = int(where * len(data))
        data[place : place + size] = bytes(len(data[place : place + size]))
        path.write_bytes(data)

    return damage


def cut(where):
    return lambda path: path.write_bytes(path.read_bytes()[: int(where * path.stat().st_size)])


def without(part):
    def damage(path):
        with zipfile.ZipFile(path) as archive:
            kept = {info: archive.read(info) for info in archive.infolist() if not info.filename.endswith(part)}
        with zipfile.ZipFile(path, 'w') as archive:
            for info, data in kept.items():
                archive.writestr(info, data)

    return damage


DAMAGES = {
    'empty': lambda path: path.write_bytes(b''),
    'zeros': lambda path: path.write_bytes(bytes(path.stat().st_size)),
    'text': lambda path: path.write_text('not found'),
    'cut after a tenth': cut(0.1),
    'cut in the middle': cut(0.5),
    'cut before its end': cut(0.999),
    'its head is zero': zero(0, 64),
    'its first page is zero': zero(0),
    'a page is zero': zero(0.5),
    'its last page is zero': zero(0.99),
    'a bit of a weight': flip(0.5),
    'a bit of its start': flip(0.0),
    'a bit of its table': flip(-150),
    'a weight is missing': without('data/0'),
    'its record is missing': without('data.pkl'),
    'twice': lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] * 2),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_state_is_passed_over_and_named(work, damage):
    DAMAGES[damage](work / 'rescue_25.pth')
    state = find_state(str(work))
    assert state.path.name == 'epoch_2.pth'
    assert len(state.notes) == 1 and 'rescue_25.pth' in state.notes[0]
    with pytest.raises(CheckpointError, match=r'rescue_25\.pth'):
        read_state(work / 'rescue_25.pth')


def test_where_none_is_whole_nothing_starts_afresh(work):
    for path in work.glob('*_*.pth'):
        path.write_bytes(b'')
    with pytest.raises(CheckpointError, match=r'No whole training state is in .*epoch_1.*--overwrite starts'):
        find_state(str(work))


def test_weights_alone_are_no_training(work):
    with pytest.raises(CheckpointError, match=r'best_accuracy_top1_epoch_3.pth holds weights alone.*load_from='):
        read_state(work / 'best_accuracy_top1_epoch_3.pth')


def test_another_training_is_not_overwritten_by_accident(work, tmp_path_factory):
    cfg = Config(dict(work_dir=str(work)))
    with pytest.raises(UserError, match=r'holds a training already .*--resume .* --work-dir .* --overwrite'):
        find_start(cfg, None, overwrite=False)
    with pytest.raises(UserError, match='name one of them'):
        find_start(cfg, 'auto', overwrite=True)
    assert find_start(cfg, 'auto', overwrite=False).path.name == 'rescue_25.pth'
    assert find_start(cfg, None, overwrite=True) is None
    (work / 'config.py').write_text('')
    remove_earlier(str(work))
    assert [path.name for path in work.iterdir()] == ['config.py']
    assert find_start(cfg, None, overwrite=False) is None


def save_elsewhere(tmp_path_factory):
    path = tmp_path_factory.mktemp('elsewhere') / 'epoch_1.pth'
    save(path, 5)
    return path


def test_a_state_is_not_gone_on_from_beside_what_a_resume_would_take_for_newer(work, tmp_path_factory):
    cfg = Config(dict(work_dir=str(work)))
    assert find_start(cfg, str(work / 'rescue_25.pth'), overwrite=False).meta['iter'] == 25
    with pytest.raises(UserError, match=r'holds rescue_25.pth, which .* for newer .*epoch_2.pth: --work-dir '):
        find_start(cfg, str(work / 'epoch_2.pth'), overwrite=False)
    elsewhere = save_elsewhere(tmp_path_factory)
    with pytest.raises(UserError, match=r'would take for newer .*--work-dir names another folder'):
        find_start(cfg, str(elsewhere), overwrite=False)


@pytest.mark.parametrize('name', ['TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT'])
def test_a_training_that_a_launcher_starts_again_goes_on(work, tmp_path_factory, monkeypatch, name):
    cfg = Config(dict(work_dir=str(work)))
    monkeypatch.setenv(name, '1')
    for overwrite in (False, True):
        assert find_start(cfg, None, overwrite=overwrite).path.name == 'rescue_25.pth'
    # It goes on from what it has reached, not again from what its first start was told.
    elsewhere = save_elsewhere(tmp_path_factory)
    assert find_start(cfg, str(elsewhere), overwrite=False).path.name == 'rescue_25.pth'
    empty = Config(dict(work_dir=str(elsewhere.parent / 'work')))
    assert find_start(empty, str(elsewhere), overwrite=False).path == elsewhere
    monkeypatch.setenv(name, '0')
    assert find_start(cfg, None, overwrite=True) is None


def config(batch_size, **more):
    return Config(dict(train_dataloader=dict(batch_size=batch_size), optim_wrapper=dict(), **more))


@pytest.mark.parametrize(
    ('processes', 'batch_size', 'becomes', 'note'),
    [
        (2, 8, 8, None),
        (1, 8, 16, r'Before: 2 process\(es\) with batches of 8; now: 1 with batches of 16'),
        (4, 8, 4, 'now: 4 with batches of 4'),
        (1, 16, 16, 'now: 1 with batches of 16'),
    ],
)
def test_the_global_batch_is_kept(work, processes, batch_size, becomes, note):
    cfg, state = config(batch_size), read_state(work / 'epoch_1.pth')
    keep_run(cfg, state, processes)
    assert cfg.train_dataloader.batch_size == becomes and cfg.randomness.seed == 5
    assert len(state.notes) == (note is not None)
    assert note is None or re.search(note, state.notes[0])


@pytest.mark.parametrize(
    ('processes', 'batch_size', 'sentence'),
    [
        (3, 8, '16 samples do not divide among 3 processes'),
        (2, 4, 'set train_dataloader.batch_size=8'),
    ],
)
def test_another_batch_is_refused(work, processes, batch_size, sentence):
    with pytest.raises(UserError, match=sentence):
        keep_run(config(batch_size), read_state(work / 'epoch_1.pth'), processes)


def test_other_accumulation_is_refused_and_another_seed_is_told(work):
    cfg, state = config(8, randomness=dict(seed=7, deterministic=True)), read_state(work / 'epoch_1.pth')
    keep_run(cfg, state, 2)
    assert cfg.randomness == dict(seed=5, deterministic=True) and 'The seed stays 5' in state.notes[0]
    cfg.optim_wrapper.accumulative_counts = 4
    with pytest.raises(UserError, match=r'set optim_wrapper.accumulative_counts=1'):
        keep_run(cfg, state, 2)


def test_a_state_of_an_earlier_version_is_told(work):
    save(work / 'epoch_3.pth', 30, meta=dict(epoch=3, iter=30))
    state = read_state(work / 'epoch_3.pth')
    keep_run(config(8), state, 1)
    assert 'does not say on how many processes' in state.notes[0]
