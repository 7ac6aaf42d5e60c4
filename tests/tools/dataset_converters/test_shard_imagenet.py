"""The tool that writes shards: goes on where it was cut, and names what it cannot read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import run_tool

TOOL = Path(__file__).parents[3] / 'tools' / 'dataset_converters' / 'shard_imagenet.py'


@pytest.fixture
def data(tmp_path):
    random = np.random.default_rng(0)
    for name in ('ant', 'bee'):
        folder = tmp_path / 'data' / 'train' / name
        folder.mkdir(parents=True)
        for number in range(6):
            size = (20, 30, 3) if number else (90, 60, 3)
            Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(folder / f'{number}.JPEG')
    return tmp_path / 'data'


def convert(data, *options):
    words = ['--data', data, '--out', data.parent / 'out', '--processes', 1, '--shorter-side', 45, '--shard-size', 5]
    return run_tool(TOOL, *words, *options)


def test_a_run_that_was_cut_goes_on_where_it_was(data):
    done = convert(data)
    assert done.returncode == 0, done.stderr
    folder = data.parent / 'out' / 'train'
    assert done.stdout.startswith(f'{folder}: 12 images of 2 classes (classes.txt) in 3 shards, ')
    assert '2 of them (16.7 %) were made smaller.' in done.stdout
    assert (folder / 'classes.txt').read_text() == 'ant\nbee\n'
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    # A kill leaves a shard without its index, or in a folder of its own.
    (folder / '000001.json').unlink()
    (folder / '.unfinished-x').mkdir()
    (folder / '.unfinished-x' / '000002.tar').write_bytes(b'half')
    again = convert(data)
    assert again.returncode == 0 and again.stdout == '2 of 3 shards are complete.\n' + done.stdout
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert {path: content for path, (content, _) in after.items()} == {p: content for p, (content, _) in before.items()}
    kept = {path.name for path in after if path.name[0] == '0' and after[path] == before[path]}
    assert kept == {'000000.tar', '000000.json', '000002.tar', '000002.json'}


def test_images_that_cannot_be_read_are_listed_and_end_it_unless_they_may_be_left_out(data):
    torn, folder = data / 'train' / 'bee' / '4.JPEG', data.parent / 'out' / 'train'
    whole = torn.read_bytes()
    torn.write_bytes(whole[:-50])
    sentence = f'{torn} cannot be read as an image (it is truncated): replace or remove it.\n'
    done = convert(data)
    assert done.returncode == 2
    assert done.stderr == (
        f'{sentence}error: 1 of 12 images cannot be read ({folder}/unreadable.txt lists them), and their shards were '
        'not written: replace these files and run this again, or leave them out with --skip-unreadable.\n'
    )
    assert (folder / 'unreadable.txt').read_text() == sentence
    assert len(list(folder.glob('*.tar'))) == 2
    for _ in range(2):
        without = convert(data, '--skip-unreadable')
        assert without.returncode == 0 and '11 images of 2 classes' in without.stdout, without.stderr
        assert f'1 could not be read and were left out ({folder}/unreadable.txt)' in without.stdout
        assert (folder / 'unreadable.txt').read_text() == sentence
    torn.write_bytes(whole)
    mended = convert(data)
    assert mended.returncode == 0 and '12 images of 2 classes' in mended.stdout
    assert not (folder / 'unreadable.txt').exists()


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (('--quality', 101), '--quality must be from 1 to 100'),
        (('--shard-size', 0), 'numbers must be positive'),
        (('--data', 'nowhere'), 'error: nowhere/train cannot be listed (No such file or directory).'),
    ],
)
def test_mistakes_are_one_sentence(data, options, sentence):
    done = convert(data, *options)
    assert done.returncode == 2 and sentence in done.stderr.splitlines()[-1]
    assert not (data.parent / 'out').exists()


def test_a_small_data_set_has_smaller_shards(data):
    done = run_tool(TOOL, '--data', data, '--out', data.parent / 'out', '--processes', 1)
    assert done.returncode == 0 and 'in 12 shards' in done.stdout and '0 of them (0.0 %)' in done.stdout
