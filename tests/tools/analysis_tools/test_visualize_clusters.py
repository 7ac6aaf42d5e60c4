"""tools/analysis_tools/visualize_clusters.py on real files: images, folders, films, labels, and what cannot be used."""

import argparse
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import run_tool

from coc_core import ContextCluster, create_model, ops
from coc_core.errors import UserError
from coc_core.mm.explorer.viewer import ClusterViewer
from coc_core.visualization.files import read_frames, write_film
from coc_core.visualization.painting import palette

ROOT = Path(__file__).parents[3]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'visualize_clusters.py'
DIGITS = ROOT / 'configs' / 'classification' / 'coc-tiny_1xb32-12e_digits.py'


def run(*command, expect=0):
    done = run_tool(TOOL, *command, env={'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == expect, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout if expect == 0 else done.stderr


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('visualize_clusters', TOOL)
    tool = importlib.util.module_from_spec(spec)
    sys.modules['visualize_clusters'] = tool
    spec.loader.exec_module(tool)
    return tool


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A folder of two images of other aspect with label maps, and a classifier's checkpoint as mmpretrain saves it."""
    folder = tmp_path_factory.mktemp('clusters')
    random = np.random.default_rng(0)
    for name, size in (('images/wide.png', (50, 90)), ('images/more/high.jpg', (120, 70))):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize(size[::-1]).save(path)
        labels = folder / 'labels' / Path(name).relative_to('images').with_suffix('.png')
        labels.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.arange(size[0])[:, None] // 30 + np.zeros(size)).astype(np.uint8)).save(labels)
    torch.manual_seed(0)
    model = create_model('coc_tiny', num_classes=10, layer_scale_init=0.1)
    # One class wins on every image, so that its name can be expected.
    model.head.bias.data[7] = 50.0
    renamed = {
        k.replace('head.', 'head.fc.') if 'head.' in k else f'backbone.{k}': v for k, v in model.state_dict().items()
    }
    torch.save({'state_dict': renamed, 'meta': {}}, folder / 'digits.pth')
    return folder


def test_a_folder_gives_contact_sheets_predictions_and_statistics(files, tmp_path):
    told = run(
        files / 'images', '--config', DIGITS, '--checkpoint', files / 'digits.pth', '--size', '64', '96',
        '--format', 'png', 'svg', '--labels', files / 'labels', '--out', tmp_path,
    )  # fmt: skip
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*') if path.is_file()}
    assert written == {
        'wide_clusters.png', 'wide_clusters.svg', 'more/high_clusters.png', 'more/high_clusters.svg',
        'statistics.json', 'statistics.png',
    }  # fmt: skip
    assert told.count(': 7 (1.00)') == 2 and all(name in told for name in written)
    # 14 blocks; 12 + 16 + 40 + 16 heads.
    assert (tmp_path / 'wide_clusters.svg').read_text().count('<svg') == 85
    assert 'predicted: 7 (1.00)' in (tmp_path / 'wide_clusters.svg').read_text()
    summary = json.loads((tmp_path / 'statistics.json').read_text())
    assert summary['images'] == 2 and len(summary['layers']) == 14
    assert all('adjusted_rand_index' in head for layer in summary['layers'] for head in layer['heads'])


def test_one_head_is_painted_where_the_operator_says(files, tmp_path):
    """By --model, of a size that is no multiple of anything; the picture's colors are read back as centers."""
    image = files / 'images' / 'wide.png'
    run(
        image, '--model', 'coc_tiny', '--checkpoint', files / 'digits.pth', '--stage', '1', '--block', '-1',
        '--head', '2', '--size', '101', '75', '--alpha', '1', '--out', tmp_path,
    )  # fmt: skip
    picture = np.asarray(Image.open(tmp_path / 'wide_stage1_block3_head2.png'))
    assert picture.shape == (101 * 6, 75 * 6, 3)
    # A pixel of each point, eight from its upper left corner.
    pixels = picture[8::48, 8::48].reshape(-1, 1, 3)
    found = (pixels == palette(4)).all(axis=-1).argmax(axis=-1).reshape(13, 10)

    weights = {k.removeprefix('backbone.').replace('.fc.', '.') if 'mlp' not in k else k.removeprefix('backbone.'): v
               for k, v in torch.load(files / 'digits.pth')['state_dict'].items()}  # fmt: skip
    model = create_model('coc_tiny', num_classes=10).eval()
    model.load_state_dict(weights)
    seen = {}
    mixer = model.stages[1].blocks[3].mixer
    mixer.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    pixels = np.asarray(Image.open(image).resize((75, 101), Image.Resampling.BICUBIC))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        model(((torch.from_numpy(pixels.copy()) / 255 - mean) / std).permute(2, 0, 1)[None])
        points, _ = mixer.project(seen['x'])
        expected = ops.assign(points, mixer.sim_alpha, mixer.sim_beta, center_grid=2, region_grid=4)
    assert (found == expected[0, :13, :10, 2].numpy()).mean() > 0.99


def test_grad_cam_stands_beside_the_clusters_of_a_classifier(files, tmp_path):
    pytest.importorskip('pytorch_grad_cam')
    image = files / 'images' / 'wide.png'
    given = [image, '--checkpoint', files / 'digits.pth', '--cam', '--size', '64', '96', '--out', tmp_path]
    run(*given, '--config', DIGITS, '--stage', '3')
    single = np.asarray(Image.open(tmp_path / 'wide_stage3_block1_head0.png'))
    assert single.shape == (64 * 6, 2 * 96 * 6 + 6, 3)
    right = single[:, -96 * 6 :]
    assert right.std() > 10 and np.abs(right.astype(int) - single[:, : 96 * 6]).mean() > 10
    run(*given, '--model', 'coc_tiny', '--format', 'svg')
    assert '>Grad-CAM</text>' in (tmp_path / 'wide_clusters.svg').read_text()


def test_grad_cam_of_a_model_without_classes_is_refused(files, tmp_path):
    pytest.importorskip('pytorch_grad_cam')
    dense = ContextCluster(create_model('coc_tiny').config, dense_indices=(0, 1, 2, 3))
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in dense.state_dict().items()}}, tmp_path / 'dense.pth')
    image = files / 'images' / 'wide.png'
    told = run(image, '--model', 'coc_tiny', '--checkpoint', tmp_path / 'dense.pth', '--cam', expect=2)
    assert 'coc_tiny predicts no class, and Grad-CAM shows where one is found: use a classifier.' in told


def test_unusable_files_are_named_and_the_others_painted(files, tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    Image.open(files / 'images' / 'wide.png').save(images / 'good.png')
    (images / 'broken.png').write_bytes(b'\x89PNG\r\n\x1a\nnothing')
    Image.new('L', (9000, 9000)).save(images / 'giant.png')
    Image.open(files / 'images' / 'wide.png').quantize(16).save(images / 'still.gif')
    frames = [np.full((40, 60, 3), 30 * i, np.uint8) for i in range(4)]
    write_film(tmp_path / 'film.gif', frames, rate=5)
    write_film(tmp_path / 'other.mp4', frames, rate=5)
    (tmp_path / 'torn.mp4').write_bytes((tmp_path / 'other.mp4').read_bytes()[:200])
    out = tmp_path / 'out'
    films = (tmp_path / f'{name}' for name in ('film.gif', 'other.mp4', 'torn.mp4'))
    told = run(
        images, *films, '--config', DIGITS, '--checkpoint', files / 'digits.pth', '--out', out, '--stage', '3',
        '--video', expect=2,
    )  # fmt: skip
    assert 'error: 3 of 7 files failed:' in told and 'Traceback' not in told
    assert re.search(r'broken\.png is (not an image that can be read|damaged)', told)
    assert 'giant.png has 9000x9000 pixels, more than 40 million: make it smaller.' in told
    assert 'torn.mp4 cannot be read' in told
    assert sorted(path.name for path in out.iterdir()) == [
        'film_stage3_block1_head0.mp4', 'good_stage3_block1_head0.png', 'other_stage3_block1_head0.mp4',
        'still_stage3_block1_head0.png',
    ]  # fmt: skip
    assert [len(list(read_frames(path))) for path in sorted(out.glob('*.mp4'))] == [4, 4]


def test_an_image_that_the_model_fails_on_is_told_and_the_others_are_painted(
    tool, files, tmp_path, monkeypatch, capsys
):
    look = ClusterViewer.look

    def fail_on(width):
        def failing(self, image, **options):
            if image.shape[1] == width or width is None:
                raise MemoryError('no room')
            return look(self, image, **options)

        monkeypatch.setattr(ClusterViewer, 'look', failing)

    given = [files / 'images', '--model', 'coc_tiny', '--checkpoint', files / 'digits.pth', '--size', '32']
    monkeypatch.setattr(sys, 'argv', ['visualize_clusters.py', *map(str, given), '--out', str(tmp_path)])
    fail_on(90)
    with pytest.raises(UserError, match=r'1 of 2 files failed: .*wide.png cannot be looked at \(MemoryError: no room'):
        tool.visualize(tool.parse_args())
    assert [path.name for path in tmp_path.rglob('*.png')] == ['high_clusters.png']
    fail_on(None)
    with pytest.raises(MemoryError):
        tool.visualize(tool.parse_args())


@pytest.mark.parametrize(
    ('place', 'sentence'),
    [
        ((4, None, None), '--stage 4 does not exist: the model has the stages 0 to 3.'),
        ((-1, 2, None), '--block 2 does not exist: stage 3 has the blocks 0 to 1.'),
        ((1, None, 4), '--head 4 does not exist: stage 1 has the heads 0 to 3.'),
    ],
)
def test_a_layer_that_does_not_exist_is_one_sentence(tool, place, sentence):
    args = argparse.Namespace(**dict(zip(('stage', 'block', 'head'), place, strict=True)))
    with pytest.raises(UserError) as error:
        tool.check_layer(args, ClusterViewer(create_model('coc_tiny'), 'coc_tiny'))
    assert str(error.value) == sentence


def test_labels_are_of_the_image_as_it_is_shown(tool, tmp_path):
    item = tool.Item(tmp_path / 'photo.jpg', Path('photo'))
    for size in ((50, 90), (25, 45), (17, 30)):
        Image.new('L', size[::-1]).save(tmp_path / 'photo.png')
        assert tool.labels_of(item, tmp_path, (50, 90, 3)).shape == size
    with pytest.raises(UserError, match=r'photo.png has 30x17 pixels, its image 50x90, turned where its EXIF'):
        tool.labels_of(item, tmp_path, (90, 50, 3))
    assert tool.labels_of(item, None, (90, 50, 3)) is None


def test_a_checkpoint_of_another_model_is_refused(files, tmp_path):
    torch.save({'state_dict': ContextCluster(create_model('coc_small').config).state_dict()}, tmp_path / 'small.pth')
    image = files / 'images' / 'wide.png'
    told = run(image, '--model', 'coc_tiny', '--checkpoint', tmp_path / 'small.pth', '--out', tmp_path / 'o', expect=2)
    assert 'small.pth' in told and 'does not fit the model' in told and 'Traceback' not in told
    assert not (tmp_path / 'o').exists()
