"""A fifth task in one file: how far each pixel of a digit scene is; a digit is the nearer the larger it is."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import nn

from coc_core.checkpoints.layouts import Layout
from coc_core.mm.data_checks import label_maps
from coc_core.mm.plugin import register
from coc_core.mm.task import Task, visualization_hook


@DATASETS.register_module()
class Scenes(BaseDataset):
    """Pictures with a label map each."""

    METAINFO: ClassVar = dict(classes=('ground', *'0123456789'))

    def load_data_list(self):
        images = sorted(Path(self.data_prefix['img_path']).glob('*.jpg'))
        maps = Path(self.data_prefix['seg_map_path'])
        return [dict(img_path=str(path), seg_map_path=str(maps / f'{path.stem}.png')) for path in images]


@TRANSFORMS.register_module()
class LoadScene:
    """Reads a picture, and makes depth in [0, 1] of its label map."""

    def __call__(self, data):
        image = np.array(Image.open(data['img_path']).convert('RGB'))
        labels = np.array(Image.open(data['seg_map_path']))
        depth = 1 - (torch.from_numpy(labels.astype(np.float32)) - 1) / 10
        sample = BaseDataElement(metainfo=dict(img_path=data['img_path']), depth=depth)
        return dict(inputs=torch.from_numpy(image).permute(2, 0, 1), data_samples=sample)


@MODELS.register_module()
class DepthEstimator(BaseModel):
    """A depth for each point of the last map, enlarged."""

    def __init__(self, backbone, channels, data_preprocessor):
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)
        self.depth_head = nn.Conv2d(channels, 1, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        found = F.interpolate(self.depth_head(self.backbone(inputs)[-1]), inputs.shape[2:], mode='bilinear')[:, 0]
        if mode == 'loss':
            wanted = torch.stack([sample.depth for sample in data_samples])
            return dict(loss=F.l1_loss(found, wanted))
        for sample, depth in zip(data_samples, found, strict=True):
            sample.predicted = depth
        return data_samples


@METRICS.register_module()
class RootMeanSquare(BaseMetric):
    """The root of the mean squared error over all pixels."""

    def process(self, data_batch, data_samples):
        self.results += [float((sample['predicted'] - sample['depth']).square().mean()) for sample in data_samples]

    def compute_metrics(self, results):
        return dict(rmse=float(np.mean(results)) ** 0.5)


@HOOKS.register_module()
class DepthPictures(Hook):
    """Paints predictions as gray pictures."""

    def __init__(self, folder=None):
        self.folder = folder and Path(folder)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for sample in outputs if self.folder else ():
            self.folder.mkdir(parents=True, exist_ok=True)
            gray = (255 * sample.predicted.clamp(0, 1)).byte().numpy()
            Image.fromarray(gray).save(self.folder / f'{Path(sample.img_path).stem}.png')


class DepthTask(Task):
    """One depth for each pixel."""

    layout = Layout(task='depth', heads=r'^depth_head\.', form='depth')

    def show_predictions(self, cfg, *, window, folder, interval, wait_time):
        visualization_hook(cfg).update(folder=folder)

    def inspect(self, inspection, dataset, *, files):
        own = dict(img_suffix='.jpg', seg_map_suffix='.png', reduce_zero_label=True)
        label_maps.inspect(inspection, self.scope, dict(dataset, **own))


register(MODELS, DepthTask())
