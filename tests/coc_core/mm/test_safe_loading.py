"""mmengine reads checkpoints by this project's reader, from a disk and from the web."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from coc_core import create_model
from coc_core.checkpoints import CheckpointError, load_content
from coc_core.layers import ClusterMixer
from coc_core.mm.safe_loading import install_safe_loader


@pytest.fixture(autouse=True)
def safe_loader():
    install_safe_loader()


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Where the files of ``tmp_path / 'served'`` can be had."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    (tmp_path / 'served').mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / 'served')
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_what_mmengine_saves_survives(tmp_path):
    content = {
        'state_dict': nn.Linear(2, 3).state_dict(),
        'message_hub': {
            'log_scalars': {'loss': HistoryBuffer([1.0, 3.0], [1, 1])},
            'runtime_info': {'best_score': np.float64(0.5)},
        },
    }
    torch.save(content, tmp_path / 'a.pth')
    for loaded in (CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth')), torch.load(tmp_path / 'a.pth')):
        assert loaded['message_hub']['log_scalars']['loss'].mean() == 2.0
        assert loaded['message_hub']['runtime_info'] == {'best_score': 0.5}


class Sneaky:
    """Asks for a method of a class that is allowed."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def test_malicious_pickle_does_not_run(tmp_path, malicious):
    for content in (malicious(tmp_path / 'was here'), Sneaky()):
        torch.save({'state_dict': {}, 'extra': content}, tmp_path / 'evil.pth')
        with pytest.raises(CheckpointError, match='evil.pth holds more than weights and was not read'):
            load_checkpoint(nn.Linear(1, 1), str(tmp_path / 'evil.pth'))
    assert not (tmp_path / 'was here').exists()


def test_downloads_are_read_as_safely(tmp_path, malicious, address):
    weights = nn.Linear(2, 3).state_dict()
    torch.save({'state_dict': weights}, tmp_path / 'served' / 'good.pth')
    loaded = CheckpointLoader.load_checkpoint(f'{address}/good.pth')
    assert torch.equal(loaded['state_dict']['weight'], weights['weight'])
    torch.save({'extra': malicious(tmp_path / 'was here')}, tmp_path / 'served' / 'evil.pth')
    with pytest.raises(CheckpointError, match='evil.pth holds more than weights'):
        CheckpointLoader.load_checkpoint(f'{address}/evil.pth')
    assert not (tmp_path / 'was here').exists()


def test_mmengine_gets_no_program_and_the_record_of_the_training_stays(tmp_path):
    """It was dropped, and a test took a soft mixer's weights for the stock layer's."""

    class Soft(ClusterMixer):
        def assign(self, z_GMN):
            return z_GMN.softmax(dim=1)

    stock, soft = (create_model('coc_tiny', num_classes=3, mixer=mixer) for mixer in (None, Soft))
    config = "model = dict(backbone=dict(arch='coc_tiny', mixer=dict(type='Soft'), type='ContextCluster'))"
    path = str(tmp_path / 'soft.pth')
    torch.save({'state_dict': soft.state_dict(), 'meta': {'cfg': config, 'epoch': 1}}, path)
    content = CheckpointLoader.load_checkpoint(path)
    assert content['meta']['epoch'] == 1 and not {'cfg', 'config'} & content['meta'].keys()
    assert load_content(soft, content, path).denominator == 'similarity'
    with pytest.raises(CheckpointError, match='was trained with the mixer Soft, but the model was built with Cluster'):
        load_content(stock, content, path)
    assert 'by the mixer Soft where this model' in str(load_content(stock, content, path, strict=False))
