"""The explorer's page in a real browser."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from browsers import open_browser, setup_browser
from PIL import Image

from coc_core import create_model
from coc_core.errors import UserError
from coc_core.mm.explorer.answers import find_checkpoints, model_of

ROOT = Path(__file__).parents[3]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'explorer.py'


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def start(*options):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    return subprocess.Popen(
        [sys.executable, TOOL, *map(str, options)], text=True, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Two checkpoints, an image to pick, one to upload, and three that cannot be used."""
    folder = tmp_path_factory.mktemp('explorer')
    (folder / 'checkpoints').mkdir()
    for seed, name in enumerate(('first', 'second')):
        torch.manual_seed(seed)
        torch.save(create_model('coc_tiny', num_classes=5).state_dict(), folder / 'checkpoints' / f'{name}.pth')
    random = np.random.default_rng(0)
    for name, size in (('picked.png', (96, 96)), ('uploaded.jpg', (60, 120))):
        coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize(size[::-1]).save(folder / name)
    (folder / 'corrupt.png').write_bytes((folder / 'picked.png').read_bytes()[:900])
    Image.new('L', (9000, 9000)).save(folder / 'giant.png')
    (folder / 'heavy.png').write_bytes(random.bytes(21 * 2**20))
    return folder


@pytest.fixture(scope='module')
def server(files):
    """The address of a running explorer and its process."""
    port = free_port()
    process = start('--images', files / 'picked.png', '--checkpoints', files / 'checkpoints', '--model', 'coc_tiny',
                    '--port', port)  # fmt: skip
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith('http://'):
            break
    else:
        pytest.fail(''.join(lines))
    assert line == f'http://127.0.0.1:{port} (Ctrl-C ends it)\n'
    yield line.split()[0], process
    process.terminate()
    process.communicate(timeout=60)


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp('profile'), viewport={'width': 1400, 'height': 1000}) as context:
        yield context


class Page:
    """The page as a user handles it."""

    def __init__(self, browser, address):
        self.page = browser.new_page()
        self.hosts = set()
        self.page.on('request', lambda request: self.hosts.add(re.sub(r'^\w+://([^/]*)/.*', r'\1', request.url)))
        self.page.goto(address)
        self.page.wait_for_selector('#clusters-A img')

    def source(self, name='clusters-A'):
        """The picture's address, which is made of its content."""
        return self.page.locator(f'#{name} img').get_attribute('src')

    def changes(self, action, name='clusters-A'):
        before = self.source(name)
        action()
        self.page.wait_for_function(
            "([id, src]) => { const i = document.querySelector(id + ' img'); return i && i.src && i.src != src }",
            arg=[f'#{name}', before],
        )

    def slide(self, label, value):
        number = self.page.get_by_label(f'number input for {label}')
        number.fill(str(value))
        number.press('Enter')

    def bound(self, label):
        return int(self.page.get_by_label(f'range slider for {label}').get_attribute('max'))

    def upload(self, path):
        self.page.locator('input[type=file]').first.set_input_files(path)

    def says(self, text, where='#message'):
        self.page.locator(where, has_text=text).first.wait_for()


@pytest.fixture
def page(browser, server):
    page = Page(browser, server[0])
    yield page
    page.page.close()


def test_sliders_change_the_picture_within_the_models_bounds(page):
    assert (page.bound('Stage'), page.bound('Block'), page.bound('Head')) == (3, 2, 3)
    page.changes(lambda: page.slide('Stage', 2))
    page.says('stage 2, block 0, head 0: 4 regions of 4 centers')
    page.page.wait_for_function("document.querySelector('[aria-label=\"range slider for Head\"]').max == '7'")
    assert (page.bound('Block'), page.bound('Head')) == (4, 7)
    page.changes(lambda: page.slide('Head', 6))
    page.changes(lambda: page.slide('Opacity', 0.2))
    page.slide('Stage', 3)
    page.says('stage 3, block 0, head 6: 1 regions of 4 centers')


def test_upload_click_compare_and_download(page, files, tmp_path):
    page.changes(lambda: page.upload(files / 'uploaded.jpg'))
    page.says('224x448 pixels seen')
    page.slide('Stage', 2)
    page.says('stage 2')
    page.page.locator('#clusters-A img').click(position={'x': 60, 'y': 40})
    page.page.wait_for_selector('#point-A img')
    page.says('its cosine with the center is')
    page.changes(lambda: page.page.locator('#clusters-A img').click(position={'x': 200, 'y': 90}), 'point-A')
    page.page.get_by_label('Compare with checkpoint').click()
    page.page.get_by_role('option', name=re.compile('second.pth')).click()
    page.page.wait_for_selector('#point-B img')
    assert page.source('clusters-A') != page.source('clusters-B')
    page.says('class')
    with page.page.expect_download() as download:
        page.page.get_by_text('Download the picture').click()
    download.value.save_as(tmp_path / 'picture.png')
    assert download.value.suggested_filename == 'uploaded_stage2_block0_head0.png'
    width, height = Image.open(tmp_path / 'picture.png').size
    # Two models beside one another, each with the detail of the point, two pictures wide, below.
    assert width > 4 * 448 * 2 * 0.9 and height > 2 * 224 * 2 * 0.9


def test_unusable_uploads_are_told_on_the_page(page, files):
    page.upload(files / 'corrupt.png')
    page.says('corrupt.png cannot be read as an image')
    assert '/' not in page.page.locator('#message').inner_text()
    page.page.get_by_label('Clear').first.click()
    page.says('stage 0')
    page.upload(files / 'giant.png')
    page.says('The image giant.png has 9000x9000 pixels, more than 40 million: make it smaller.')
    page.page.get_by_label('Clear').first.click()
    page.says('stage 0')
    page.upload(files / 'heavy.png')
    page.says('File(s) exceed the maximum allowed size of 20.0 Mb: "heavy.png"', where='body')


def test_it_talks_to_this_machine_alone(page, server):
    address, process = server
    listening = [c.laddr.ip for c in psutil.Process(process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening == ['127.0.0.1']
    assert page.hosts == {address.removeprefix('http://')}


def test_a_port_in_use_is_one_sentence(files, server):
    port = server[0].rpartition(':')[2]
    process = start('--checkpoints', files / 'checkpoints', '--port', port)
    told, _ = process.communicate(timeout=200)
    assert process.returncode == 2 and f'error: --port {port} cannot be used' in told and 'Traceback' not in told


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (['--port', '65536'], '--port 65536 must be from 1 to 65535.'),
        (['--model', 'nothing.py'], '--model nothing.py is unknown: name a config file, or one of configs/'),
    ],
)
def test_what_cannot_be_served_is_one_sentence(files, options, sentence):
    process = start('--checkpoints', files / 'checkpoints', *options)
    told, _ = process.communicate(timeout=200)
    assert process.returncode == 2 and f'error: {sentence}' in told and 'Traceback' not in told


def test_it_starts_behind_a_proxy_and_leaves_nothing(files, tmp_path, monkeypatch):
    for name in ('http_proxy', 'HTTP_PROXY'):
        monkeypatch.setenv(name, 'http://127.0.0.1:9')
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    process = start('--checkpoints', files / 'checkpoints', '--port', free_port())
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith('http://'):
            break
    assert lines[-1].startswith('http://127.0.0.1:'), ''.join(lines)
    assert list(tmp_path.glob('clusters-*'))
    process.terminate()
    process.communicate(timeout=60)
    assert not list(tmp_path.glob('clusters-*'))


def test_without_a_browser_it_is_said_how_to_get_one(monkeypatch, capsys):
    monkeypatch.setattr(setup_browser, 'find_browser', lambda: None)
    monkeypatch.setattr(setup_browser.os, 'geteuid', lambda: 1000)
    setup_browser.main()
    assert capsys.readouterr().out.strip().endswith('there is no Chromium (Debian: apt-get install chromium).')


def test_what_there_is_to_pick_from(files, tmp_path):
    assert [Path(path).name for path in find_checkpoints([files])] == ['first.pth', 'second.pth']
    with pytest.raises(UserError, match='there is no checkpoint'):
        find_checkpoints([tmp_path])
    # A program that lies beside a checkpoint is not run for a config.
    for program in (
        'raise SystemExit',
        "_base_ = 'base.py'\nmodel = dict()",
        "model = dict(type=print('run'))",
        'model = (',
    ):
        (tmp_path / 'build.py').write_text(program)
        assert model_of(str(tmp_path / 'epoch_1.pth')) is None
    (tmp_path / 'coc-small_8xb128_in1k.py').write_text("default_scope = 'mmpretrain'\nmodel = dict(\n    type='A')\n")
    assert model_of(str(tmp_path / 'epoch_1.pth')) == str(tmp_path / 'coc-small_8xb128_in1k.py')
    assert model_of(str(files / 'checkpoints' / 'first.pth')) is None
