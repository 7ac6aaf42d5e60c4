"""Files are read without running anything in them, and damaged ones are named."""

import argparse
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from coc_core.checkpoints import CheckpointError, read


def test_what_published_files_hold_beyond_tensors_survives(tmp_path):
    content = {
        'state_dict': nn.Linear(2, 3).state_dict(),
        'args': argparse.Namespace(model='coc_tiny', lr=0.1),
        'arrays': [np.array([0, 1, 1], dtype=kind) for kind in ('int64', 'float32', 'bool', 'uint8')],
        'metric': np.float64(78.1),
        'scalars': [np.float32(1.5), np.int64(7)],
    }
    torch.save(content, tmp_path / 'a.pth')
    loaded = read(tmp_path / 'a.pth')
    assert loaded['args'] == content['args'] and loaded['metric'] == 78.1 and loaded['scalars'] == [1.5, 7]
    for mine, theirs in zip(loaded['arrays'], content['arrays'], strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize('zipped', [True, False])
def test_files_of_either_torch_format(tmp_path, zipped):
    torch.save({'a': torch.arange(3)}, tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
    assert torch.equal(read(tmp_path / 'a.pth')['a'], torch.arange(3))


def test_safetensors_are_known_by_their_content(tmp_path):
    safetensors.torch.save_file({'a': torch.arange(3)}, tmp_path / 'a.pth', metadata={'denominator': 'count'})
    loaded = read(tmp_path / 'a.pth')
    assert torch.equal(loaded['state_dict']['a'], torch.arange(3)) and loaded['meta'] == {'denominator': 'count'}


def test_arrays_of_either_numpy(tmp_path):
    torch.save({'array': np.arange(3)}, tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
    data = (tmp_path / 'a.pth').read_bytes()
    new, old = b'numpy._core.multiarray', b'numpy.core.multiarray'
    assert new in data or old in data
    (tmp_path / 'b.pth').write_bytes(data.replace(new, old) if new in data else data.replace(old, new))
    np.testing.assert_array_equal(read(tmp_path / 'b.pth')['array'], np.arange(3))


def test_a_file_of_mmengine_is_read_where_mmengine_is_not_loaded(tmp_path):
    from mmengine.logging import HistoryBuffer

    torch.save({'message_hub': HistoryBuffer([1.0, 3.0], [1, 1]), 'a': torch.ones(1)}, tmp_path / 'a.pth')
    code = 'import sys; from coc_core.checkpoints import read; print(read(sys.argv[1])["a"], "mmengine" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', code, tmp_path / 'a.pth'], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['tensor([1.])', 'False']


@pytest.mark.parametrize('zipped', [True, False])
def test_malicious_pickle_does_not_run(tmp_path, malicious, zipped):
    path, target = tmp_path / 'evil.pth', tmp_path / 'was here'
    content = {'state_dict': {}, 'extra': malicious(target)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match='evil.pth'):
        read(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists(), 'the file is not malicious: the test proves nothing'


class Sneaky:
    """Asks for an attribute of a class that is allowed."""

    def __reduce__(self):
        return getattr, (np.ndarray, '__init__')


def test_getattr_is_for_statistics_alone(tmp_path):
    torch.save({'extra': Sneaky()}, tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='evil.pth holds more than weights and was not read'):
        read(tmp_path / 'evil.pth')


DAMAGES = {
    'half': lambda data: data[: len(data) // 2],
    'end': lambda data: data[:-30],
    'zeros': lambda data: bytes(len(data)),
    'empty': lambda data: b'',
    'text': lambda data: b'hello, I am a text',
    'zeros within the names': lambda data: data[:200] + bytes(400) + data[600:],
    'zeros within the weights': lambda data: data[:4500] + bytes(400) + data[4900:],
    'last part zeros': lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
}


@pytest.mark.parametrize('damage', DAMAGES, ids=str)
def test_damaged_torch_files_are_named(tmp_path, damage):
    path = tmp_path / 'torn.pth'
    torch.save({'a': torch.randn(4000)}, path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(CheckpointError, match='torn.pth') as caught:
        read(path)
    assert 'weights_only' not in str(caught.value)


@pytest.mark.parametrize('damage', ['half', 'end', 'zeros', 'zeros within the names'])
def test_damaged_safetensors_are_named(tmp_path, damage):
    path = tmp_path / 'torn.safetensors'
    safetensors.torch.save_file({f'a name of a tensor {i}': torch.randn(100) for i in range(20)}, path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(CheckpointError, match=r'torn.safetensors is no checkpoint, or is damaged'):
        read(path)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(CheckpointError, match='nothing.pth does not exist'):
        read(tmp_path / 'nothing.pth')
    with pytest.raises(CheckpointError, match='is a folder'):
        read(tmp_path)


class Objects:
    """An array of pointers that the file makes up."""

    def __reduce__(self):
        return np.ndarray, ((1,), np.dtype('O'), b'A' * 8)


class Huge:
    def __reduce__(self):
        return np.ndarray, ((1 << 44,),)


@pytest.mark.parametrize('content', [Objects(), Huge(), np.array([{}], dtype=object), np.dtype('O')])
def test_numpy_contents_other_than_numbers_are_refused(tmp_path, content):
    torch.save({'extra': content}, tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='evil.pth holds more than weights and was not read'):
        read(tmp_path / 'evil.pth')


def test_arrays_that_were_read_are_saved_as_ordinary_ones(tmp_path):
    torch.save({'a': np.arange(6.0).reshape(2, 3).T}, tmp_path / 'a.pth')
    torch.save(read(tmp_path / 'a.pth'), tmp_path / 'b.pth')
    again = torch.load(tmp_path / 'b.pth', weights_only=False)['a']
    assert type(again) is np.ndarray
    np.testing.assert_array_equal(again, np.arange(6.0).reshape(2, 3).T)


def test_a_part_marked_as_a_folder_and_a_torn_directory_are_noticed(tmp_path):
    torch.save({'a': torch.randn(100)}, tmp_path / 'a.pth')
    data = (tmp_path / 'a.pth').read_bytes()
    entry = data.find(b'PK\x01\x02')
    for place, byte in ((entry + 38, 0x10), (entry, 0)):
        (tmp_path / 'torn.pth').write_bytes(data[:place] + bytes([byte]) + data[place + 1 :])
        with pytest.raises(CheckpointError, match='torn.pth is no checkpoint, or is damaged'):
            read(tmp_path / 'torn.pth')
