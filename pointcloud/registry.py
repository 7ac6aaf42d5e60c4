"""The registries of the scope ``pointcloud``: a child of each of mmengine's, to which a lookup falls back."""

from mmengine import registry as mmengine

_CHILDREN = {
    parent.name: mmengine.Registry(parent.name, parent=parent, scope='pointcloud', locations=['pointcloud'])
    for parent in vars(mmengine).values()
    if isinstance(parent, mmengine.Registry)
}
DATASETS = _CHILDREN['dataset']
TRANSFORMS = _CHILDREN['transform']
MODELS = _CHILDREN['model']
METRICS = _CHILDREN['metric']
