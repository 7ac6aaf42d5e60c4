"""Scenes of stamps: exact masks, right classes, no stamp in both splits, and sentences where stamps are missing."""

import hashlib
import itertools
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from processes import run_tool
from pycocotools.coco import COCO
from scipy.ndimage import binary_dilation, binary_erosion

ROOT = Path(__file__).parents[3]
TOOL = ROOT / 'tools' / 'dataset_converters' / 'make_digits_data.py'
# Two folders of each class, in the order of the classes.
FOLDERS = {
    'mammal': ('animals/mammals/bears', 'animals/marsupials'),
    'bird': ('animals/birds', 'animals/birds/owls'),
    'sea animal': ('animals/fish', 'animals/mammals/aquatic'),
    'plant': ('plants', 'plants/trees'),
    'food': ('food/fruit', 'plants/mushrooms'),
    'household': ('household', 'household/tools'),
    'instrument': ('hobbies/music/wind', 'hobbies/music/string'),
    'vehicle': ('vehicles/auto', 'military/vehicles'),
}
# So bright and pure that no photograph behind them has one.
COLORS = [color for color in itertools.product((*range(0, 255, 32), 255), repeat=3) if {0, 255} <= {*color}]
DECOYS = (
    'animals/birds/cartoon/tux.png', 'animals/birds/owl_mirror.png', 'food/fruit/pear_flip.png', 'food/pizza.png',
    'household/opaque.png', 'household/tiny.png', 'sports/ball.png', 'vehicles/copy.png',
)  # fmt: skip


def stamp(path, color, mode='RGBA', size=(110, 80)):
    """A ring of one color, see-through within and without."""
    alpha = Image.new('L', size)
    draw = ImageDraw.Draw(alpha)
    width, height = size
    draw.ellipse((4, 4, width - 5, height - 5), fill=255)
    draw.ellipse((width * 0.4, height * 0.4, width * 0.6, height * 0.6), fill=0)
    image = Image.new('RGB', size, color)
    image.putalpha(alpha)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path)


@pytest.fixture(scope='module')
def stamps(tmp_path_factory):
    """A folder of stamps, and the class of each color in it."""
    folder = tmp_path_factory.mktemp('stamps')
    colors = iter(COLORS)
    classes = {}
    for name, places in FOLDERS.items():
        for i in range(6):
            color = next(colors)
            stamp(folder / places[i % 2] / f'{name} {i}.png', color, mode='P' if i == 5 else 'RGBA')
            classes[color] = name
    for shade, decoy in enumerate(DECOYS):
        kind = ('RGB', (110, 80)) if 'opaque' in decoy else ('RGBA', (30, 20) if 'tiny' in decoy else (110, 80))
        stamp(folder / decoy, (100 + shade,) * 3, *kind)
    shutil.copy(folder / 'vehicles/auto/vehicle 0.png', folder / 'vehicles/copy.png')
    return folder, classes


def make(out, folder, *options):
    return run_tool(TOOL, '--source', 'stamps', '--stamps', folder, '--out', out, '--scenes', '24', '12', *options)


@pytest.fixture(scope='module')
def data(stamps, tmp_path_factory):
    out = tmp_path_factory.mktemp('data')
    done = make(out, stamps[0])
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in out.iterdir()) == ['ade20k', 'coco']
    return out


def objects(data, split):
    """Yield the picture, the category's name, the mask and the other masks of each object."""
    coco = COCO(data / 'coco' / 'annotations' / f'instances_{split}2017.json')
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(FOLDERS)
    for image_id in coco.getImgIds():
        path = data / 'coco' / f'{split}2017' / coco.loadImgs(image_id)[0]['file_name']
        picture = np.asarray(Image.open(path), dtype=float)
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        masks = [coco.annToMask(annotation).astype(bool) for annotation in annotations]
        for i, annotation in enumerate(annotations):
            others = np.any([np.zeros_like(masks[i]), *masks[:i], *masks[i + 1 :]], axis=0)
            yield picture, coco.cats[annotation['category_id']]['name'], masks[i], others


def test_a_mask_is_what_its_stamp_covers_and_no_stamp_is_in_both_splits(data, stamps):
    colors = np.array(list(stamps[1]))
    seen = {'train': set(), 'val': set()}
    for split in seen:
        for picture, name, mask, others in objects(data, split):
            color = colors[np.abs(colors - np.median(picture[mask], axis=0)).sum(axis=1).argmin()]
            seen[split].add(tuple(color))
            assert stamps[1][tuple(color)] == name
            shown = np.abs(picture - color).max(axis=2) < 40
            assert shown[binary_erosion(mask, iterations=2)].mean() > 0.99
            near = binary_dilation(mask, iterations=4) & ~binary_dilation(mask, iterations=2)
            assert shown[near & ~binary_dilation(others, iterations=2)].mean() < 0.2
    assert not seen['train'] & seen['val']
    assert {stamps[1][color] for color in seen['train']} == {stamps[1][color] for color in seen['val']} == set(FOLDERS)


def test_label_maps_show_the_same_scenes(data):
    names = (data / 'ade20k' / 'classes.txt').read_text().split('\n')
    assert names == ['background', *FOLDERS, '']
    maps = [np.asarray(Image.open(p)) for p in sorted((data / 'ade20k' / 'annotations' / 'validation').iterdir())]
    pictures = [np.asarray(Image.open(p)) for p in sorted((data / 'ade20k' / 'images' / 'validation').iterdir())]
    place = -1
    last = None
    for picture, name, mask, others in objects(data, 'val'):
        if last is None or not np.array_equal(picture, last):
            place, last = place + 1, picture
            assert np.array_equal(picture, pictures[place])
        assert (maps[place][mask] == names.index(name) + 1).all()
        assert (maps[place][~mask & ~others] == 1).all()
    assert place == len(maps) - 1


def test_what_is_made_names_its_sources(data):
    for layout in ('coco', 'ade20k'):
        text = (data / layout / 'SOURCES.txt').read_text()
        assert 'tuxpaint-stamps-default' in text and 'GNU General Public License, version 2' in text
        assert not [name for name in DECOYS if name in text]
        listed = {
            split: set(re.findall(r'\S+ \d\.png', ''.join(re.findall(f'^{split}, .*', text, re.M))))
            for split in ('train', 'val')
        }
        assert [len(listed[split]) for split in ('train', 'val')] == [38, 10] and not listed['train'] & listed['val']
    for path in (
        data / 'coco' / 'val2017' / '000000000001.jpg',
        data / 'ade20k' / 'images' / 'training' / '00000000.jpg',
    ):
        assert b'GNU GPL version 2' in Image.open(path).info['comment']
    content = json.loads((data / 'coco' / 'annotations' / 'instances_train2017.json').read_text())
    assert {image['license'] for image in content['images']} == {entry['id'] for entry in content['licenses']} == {1}


def test_the_same_stamps_and_seed_give_the_same_bytes_and_others_are_another_data_set(data, stamps, tmp_path):
    def digest(folder):
        files = sorted(p for p in folder.rglob('*') if p.is_file())
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    copy = tmp_path / 'stamps'
    shutil.copytree(stamps[0], copy)
    assert make(tmp_path / 'data', copy).returncode == 0
    assert digest(tmp_path / 'data') == digest(data)
    assert 'is complete' in make(tmp_path / 'data', copy).stdout
    stamp(copy / 'vehicles' / 'more.png', (255, 255, 255))
    refused = make(tmp_path / 'data', copy)
    assert refused.returncode != 0 and '--force' in refused.stderr
    assert make(tmp_path / 'data', stamps[0], '--layout', 'coco', '--seed', '1', '--force').returncode == 0
    lists = [(folder / 'coco' / 'SOURCES.txt').read_text() for folder in (data, tmp_path / 'data')]
    assert lists[0] != lists[1]


def test_what_cannot_be_made_is_one_sentence(stamps, tmp_path):
    def refused(folder, *options):
        done = make(tmp_path / 'data', folder, *options)
        assert done.returncode != 0 and 'Traceback' not in done.stderr and not (tmp_path / 'data').exists()
        return done.stderr

    told = refused(tmp_path / 'none')
    assert f'{tmp_path}/none is no folder' in told and 'apt install tuxpaint-stamps-default' in told
    assert '--stamps FOLDER' in told
    assert 'has no layout imagenet, but coco and ade20k' in refused(stamps[0], '--layout', 'coco', 'imagenet')
    assert 'goes with --source stamps' in refused(stamps[0], '--source', 'digits')
    few = tmp_path / 'few'
    shutil.copytree(stamps[0], few)
    torn = few / 'animals/fish/sea animal 0.png'
    torn.write_bytes(torn.read_bytes()[:150])
    assert f'{torn} cannot be read' in refused(few)
    shutil.rmtree(few / 'hobbies')
    torn.unlink()
    assert '0 photographs of the class instrument (in hobbies/music), and 5 are needed' in refused(few)


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_the_documented_command_finds_no_error_in_the_data(data, tmp_path, task):
    text = (ROOT / 'docs' / 'dense-tasks.md').read_text()
    command = shlex.split(re.search(rf'^    python (tools/new_config.py --task {task} .*stamps.*)$', text, re.M)[1])
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'stamps').symlink_to(data)
    done = run_tool(ROOT / command[0], *command[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    checked = re.findall(r'^(train|val) data in .*: (\d+) images, .*$', done.stdout, re.MULTILINE)
    assert checked == [('train', '24'), ('val', '12')] and 'warning' not in done.stdout
