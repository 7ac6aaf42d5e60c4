"""PointMLP-CoC at Elite widths on 1,437 digits as clouds of 256 points, tested on the 360 held back, on two cores.

python tools/make_digits_data.py --layout scanobjectnn
tools/dist_train.sh configs/pointcloud/pointmlp-coc_1xb32-20e_digits.py 1

Expected OA: at least 90 %.
"""

_base_ = './pointmlp-coc_1xb32-250e_scanobjectnn.py'

classes = list('0123456789')
num_points = 256
epochs = 20

model = dict(
    backbone=dict(
        embed_dim=32,
        dim_factors=(2, 2, 2, 1),
        pre_blocks=(1, 1, 2, 1),
        post_blocks=(1, 1, 2, 1),
        residual_expansion=0.25,
        anchors=(128, 64, 32, 16),
    ),
    head=dict(num_classes=10),
)
_base_.train_pipeline[0].num_points = num_points
_base_.test_pipeline[0].num_points = num_points
_base_.tta_pipeline[0].num_points = num_points
_dataset = dict(data_root='data/digits/scanobjectnn', metainfo=dict(classes=classes))
train_dataloader = dict(num_workers=1, dataset=dict(**_dataset, pipeline=_base_.train_pipeline))
val_dataloader = dict(num_workers=1, batch_size=90, dataset=dict(**_dataset, pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
tta_pipeline = _base_.tta_pipeline
param_scheduler = [dict(type='CosineAnnealingLR', T_max=epochs, eta_min=1e-4, by_epoch=True)]
train_cfg = dict(max_epochs=epochs)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1))
randomness = dict(seed=0)
