"""Files of clouds as what is predicted."""

from importlib.util import find_spec

import h5py
import numpy as np
import pytest

from coc_core.errors import UserError
from coc_core.mm.prediction.inputs import Item
from pointcloud.files import CloudFiles

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
        assert data['points'].dtype == np.float32 and np.allclose(data['points'], clouds[0])
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
        ('a.npy', b'nothing', 'cannot be read as an array'),
        ('a.xyz', b'1 2\n3 4\n', 'cannot be read as x y z in each line'),
        ('a.xyz', b'1 2 3\n1 nan 3\n', 'coordinates that are no numbers'),
        ('a.xyz', b'1000000 0 0\n1000001 0 0\n', 'far from the origin'),
        ('a.xyz', None, 'cannot be read as x y z in each line'),
    ],
)
def test_unusable_clouds(tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f'{name}.* {sentence}'):
        FILES.start(Item(str(tmp_path / name)))


def test_unusable_files_of_several(clouds, tmp_path):
    (tmp_path / 'torn.h5').write_bytes(b'nothing')
    with pytest.raises(UserError, match='torn.h5 is not a complete HDF5 file'):
        list(FILES.contents(tmp_path / 'torn.h5'))
    with h5py.File(tmp_path / 'other.h5', 'w') as file:
        file['points'] = clouds
    with pytest.raises(UserError, match=r"other.h5 has no 'data', where floating \[N, P, 3\] is expected"):
        FILES.count(tmp_path / 'other.h5')
    np.save(tmp_path / 'flat.npy', clouds[0, 0])
    with pytest.raises(UserError, match=r'flat.npy holds float32 of shape \[3\], where floating'):
        FILES.has_several(tmp_path / 'flat.npy')


def test_meshes(tmp_path):
    path = tmp_path / 'mesh.off'
    path.write_text(TETRAHEDRON)
    if find_spec('trimesh') is None:
        with pytest.raises(
            UserError, match=r'mesh.off needs the package trimesh to be read: run `pip install trimesh`'
        ):
            FILES.start(Item(str(path)))
        return
    first, again = (FILES.start(Item(str(path)))['points'] for _ in range(2))
    assert first.shape == (2048, 3) and np.array_equal(first, again)
    # All points are on one of the four sides.
    assert (np.minimum(first.min(axis=1), np.abs(first.sum(axis=1) - 1)) < 1e-6).all()
