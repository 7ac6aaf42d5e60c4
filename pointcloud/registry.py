"""The registries of the scope ``pointcloud``, children of mmengine's."""

from mmengine import registry as mmengine

_LOCATIONS = ['pointcloud']

DATASETS = mmengine.Registry('dataset', parent=mmengine.DATASETS, scope='pointcloud', locations=_LOCATIONS)
TRANSFORMS = mmengine.Registry('transform', parent=mmengine.TRANSFORMS, scope='pointcloud', locations=_LOCATIONS)
MODELS = mmengine.Registry('model', parent=mmengine.MODELS, scope='pointcloud', locations=_LOCATIONS)
METRICS = mmengine.Registry('metric', parent=mmengine.METRICS, scope='pointcloud', locations=_LOCATIONS)
