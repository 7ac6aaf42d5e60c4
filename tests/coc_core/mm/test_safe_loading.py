from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from coc_core.mm.errors import LaunchError
from coc_core.mm.safe_loading import install_safe_loader, load_weights_only
from coc_core.mm.strict_loading import state_difference, weights_of


@pytest.fixture(autouse=True)
def safe_loader() -> None:
    install_safe_loader()


class Malicious:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.target,)


class Sneaky(Malicious):
    """Asks for an attribute of a class that is allowed."""

    def __reduce__(self) -> tuple[object, ...]:
        return getattr, (HistoryBuffer, '__init__')


def load(path: Path) -> object:
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


def test_mmengine_contents_survive(tmp_path: Path) -> None:
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    content = {
        'state_dict': nn.Linear(2, 3).state_dict(),
        'message_hub': {'log_scalars': {'loss': buffer}, 'runtime_info': {'best_score': np.float64(0.5)}},
        'args': argparse.Namespace(model='coc_tiny', lr=0.1),
        'arrays': [np.array([0, 1, 1], dtype=kind) for kind in ('int64', 'float32', 'bool', 'uint8')],
        'scalars': [np.float32(1.5), np.int64(7)],
    }
    torch.save(content, tmp_path / 'a.pth')
    loaded = load(tmp_path / 'a.pth')
    assert loaded['message_hub']['log_scalars']['loss'].mean() == 2.0
    assert loaded['message_hub']['runtime_info'] == {'best_score': 0.5}
    assert loaded['args'] == content['args']
    for mine, theirs in zip(loaded['arrays'], content['arrays'], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert loaded['scalars'] == [1.5, 7]


def test_arrays_of_either_numpy(tmp_path: Path) -> None:
    torch.save({'array': np.arange(3)}, tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
    data = (tmp_path / 'a.pth').read_bytes()
    other = {b'numpy._core.multiarray': b'numpy.core.multiarray', b'numpy.core.multiarray': b'numpy._core.multiarray'}
    for old, new in other.items():
        if old in data:
            (tmp_path / 'b.pth').write_bytes(data.replace(old, new))
            break
    np.testing.assert_array_equal(load(tmp_path / 'b.pth')['array'], np.arange(3))


@pytest.mark.parametrize('kind', [Malicious, Sneaky])
def test_malicious_pickle_does_not_run(tmp_path: Path, kind: type[Malicious]) -> None:
    path, target = tmp_path / 'evil.pth', tmp_path / 'was here'
    torch.save({'state_dict': {}, 'extra': kind(str(target))}, path)
    with pytest.raises(LaunchError, match='evil.pth holds more than weights and was not read'):
        load(path)
    with pytest.raises(LaunchError):
        load_checkpoint(nn.Linear(1, 1), str(path))
    assert not target.exists()


@pytest.mark.parametrize(
    'damage',
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-30],
        lambda data: bytes(len(data)),
        lambda data: b'',
        lambda data: b'hello, I am a text',
        lambda data: data[:200] + bytes(400) + data[600:],
    ],
)
def test_damaged_files_are_named(tmp_path: Path, damage: object) -> None:
    path = tmp_path / 'torn.pth'
    torch.save(nn.Linear(16, 16).state_dict(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(LaunchError, match='torn.pth') as caught:
        load(path)
    assert 'weights_only' not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match='nothing.pth does not exist'):
        load_weights_only(tmp_path / 'nothing.pth')


def test_difference_of_states() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = model.state_dict()
    assert state_difference(model, state) == ''
    without = {key: value for key, value in state.items() if 'num_batches' not in key}
    assert state_difference(model, without) == ''
    without['2.weight'] = without.pop('0.weight')
    assert state_difference(model, without) == '1 keys are missing (0.weight) and 1 keys are unexpected (2.weight)'
    assert '0.bias with [5] where the model has [3]' in state_difference(model, {**state, '0.bias': torch.zeros(5)})


def test_weights_of() -> None:
    weights = {'module.a': torch.zeros(1)}
    assert list(weights_of({'state_dict': weights}, 'a.pth')) == ['a']
    assert list(weights_of(weights, 'a.pth')) == ['a']
    for content in ([], {'meta': 1}, {'state_dict': {}}):
        with pytest.raises(LaunchError, match='a.pth holds no weights'):
            weights_of(content, 'a.pth')
