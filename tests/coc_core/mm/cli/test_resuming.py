"""Which checkpoint a training goes on from."""

import os

import pytest
import torch

from coc_core.errors import UserError
from coc_core.mm.cli.resuming import resume_from


def test_resume_takes_newest_whole_checkpoint(tmp_path):
    assert resume_from('auto', str(tmp_path)) is None
    for epoch in (1, 2):
        torch.save({}, tmp_path / f'epoch_{epoch}.pth')
        os.utime(tmp_path / f'epoch_{epoch}.pth', (epoch, epoch))
    (tmp_path / 'last_checkpoint').write_text('/moved/away/epoch_1.pth')
    assert resume_from('auto', str(tmp_path)) == tmp_path / 'epoch_1.pth'
    (tmp_path / 'last_checkpoint').write_text('/moved/away/epoch_0.pth')
    assert resume_from('auto', str(tmp_path)) == tmp_path / 'epoch_2.pth'
    torn = (tmp_path / 'epoch_2.pth').read_bytes()[:-100]
    (tmp_path / 'epoch_2.pth').write_bytes(torn)
    assert resume_from('auto', str(tmp_path)) == tmp_path / 'epoch_1.pth'
    with pytest.raises(UserError, match='does not exist'):
        resume_from(str(tmp_path / 'epoch_9.pth'), str(tmp_path))
