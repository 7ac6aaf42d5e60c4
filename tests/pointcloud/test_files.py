"""Files of clouds as what is predicted."""

from importlib.util import find_spec

import h5py
import numpy as np
import pytest

from coc_core.errors import UserError
from coc_core.mm.prediction.inputs import Item
from pointcloud.files import CloudFiles
from pointcloud.transforms import NormalizePoints, TakeFirstPoints

FILES = CloudFiles([])
TETRAHEDRON = 'OFF\n4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n'


@pytest.fixture
def clouds():
    return np.random.default_rng(0).normal(size=(300, 8, 3)).astype(np.float32)


def test_one_cloud_in_a_file(clouds, tmp_path):
    np.save(tmp_path / 'a.npy', clouds[0].astype(np.float64))
    normals = np.concatenate([clouds[0], clouds[1]], axis=1)
    np.savetxt(tmp_path / 'a.xyz', normals)
    for name in ('a.npy', 'a.xyz'):
        assert not FILES.has_several(tmp_path / name)
        data = FILES.start(Item(str(tmp_path / name)))
        # In random order, for scanners write neighbors one after another.
        places = np.lexsort(data['points'].T), np.lexsort(clouds[0].T)
        assert np.allclose(data['points'][places[0]], clouds[0][places[1]])
        assert not np.allclose(data['points'], clouds[0])
        assert FILES.columns(data) == {'points': 8} and 'gt_label' not in data


def test_several_clouds_in_a_file(clouds, tmp_path):
    np.save(tmp_path / 'a.npy', clouds)
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        file['data'] = clouds.astype(np.float64)
    for name in ('a.npy', 'a.h5'):
        path = tmp_path / name
        assert FILES.has_several(path) and FILES.count(path) == 300
        found = np.stack(list(FILES.contents(path)))
        assert found.dtype == np.float32 and np.array_equal(found, clouds)
    assert np.array_equal(FILES.start(Item('a.h5', 7, clouds[7]))['points'], clouds[7])


@pytest.mark.parametrize(
    ('name', 'content', 'sentence'),
    [
        ('a.npy', b'nothing', 'cannot be read'),
        ('a.xyz', b'1 2\n3 4\n', 'cannot be read'),
        ('a.xyz', b'1 2 3\n1 nan 3\n', 'coordinates that are no numbers'),
        ('a.xyz', b'1000000 0 0\n1000001 0 0\n', 'far from the origin'),
        ('a.xyz', b'1 2 3\n1 2 3\n', 'shows no shape: all its points are the same'),
        ('a.xyz', b'', 'has an array of shape'),
        ('a.xyz', None, 'cannot be read'),
    ],
)
def test_unusable_clouds(tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f'{name}.* {sentence}'):
        FILES.start(Item(str(tmp_path / name)))


def test_a_cloud_that_lies_on_its_side_is_not_three_points(clouds, tmp_path):
    np.save(tmp_path / 'a.npy', clouds.reshape(-1, 3)[:300].T)
    with pytest.raises(UserError, match=r'a.npy has an array of shape \(3, 300\): \[points, 3\] is needed'):
        FILES.start(Item(str(tmp_path / 'a.npy')))


def test_place_and_unit_do_not_matter_where_the_pipeline_moves_clouds(clouds, tmp_path):
    files, step = CloudFiles([NormalizePoints(), TakeFirstPoints(16)]), NormalizePoints()
    np.savetxt(tmp_path / 'small.xyz', clouds[0])
    np.savetxt(tmp_path / 'in meters.xyz', clouds[0].astype(np.float64) * 40 + [500_000, 4_500_000, 30], fmt='%.9f')
    small, moved = (step(files.start(Item(str(tmp_path / f'{name}.xyz'))))['points'] for name in ('small', 'in meters'))
    assert len(small) == 16 and moved.dtype == np.float32
    assert np.allclose(small, moved, atol=1e-6) and np.isclose(np.linalg.norm(small, axis=1).max(), 1)
    several = (clouds[0] + np.float32(4_500_000)).astype(np.float32)
    with pytest.raises(UserError, match='so far from the origin that their coordinates have few digits left'):
        files.start(Item('a.h5', 0, several))


def test_whole_numbers_are_coordinates_and_few_points_are_told_as_few(tmp_path):
    np.save(tmp_path / 'a.npy', np.arange(15).reshape(5, 3) ** 2)
    assert not FILES.has_several(tmp_path / 'a.npy')
    files = CloudFiles([NormalizePoints(), TakeFirstPoints(16)])
    data = files.start(Item(str(tmp_path / 'a.npy')))
    assert data['points'].shape == (16, 3) and files.columns(data) == {'points': 5}


def test_unusable_files_of_several(clouds, tmp_path):
    (tmp_path / 'torn.h5').write_bytes(b'nothing')
    with pytest.raises(UserError, match='torn.h5 is not a complete HDF5 file'):
        list(FILES.contents(tmp_path / 'torn.h5'))
    with h5py.File(tmp_path / 'other.h5', 'w') as file:
        file['points'] = clouds
    with pytest.raises(UserError, match=r"other.h5 has no 'data', where floating \[N, P, 3\] is expected"):
        FILES.count(tmp_path / 'other.h5')
    np.save(tmp_path / 'flat.npy', clouds[0, 0])
    with pytest.raises(UserError, match=r'flat.npy holds float32 of shape \[3\], where numbers'):
        FILES.has_several(tmp_path / 'flat.npy')


def test_meshes(tmp_path):
    path = tmp_path / 'mesh.off'
    path.write_text(TETRAHEDRON)
    if find_spec('trimesh') is None:
        with pytest.raises(UserError, match=r'mesh.off needs trimesh: run `make setup`, or `pip install trimesh`'):
            FILES.start(Item(str(path)))
        return
    first, again = (FILES.start(Item(str(path)))['points'] for _ in range(2))
    assert first.shape == (2048, 3) and np.array_equal(first, again)
    # All points are on one of the four sides.
    assert (np.minimum(first.min(axis=1), np.abs(first.sum(axis=1) - 1)) < 1e-6).all()
