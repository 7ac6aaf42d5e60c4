"""PointMLP-CoC at Elite widths on 1,437 digits as clouds of 256 points, tested on the 360 held back, on two cores.

A quarter of the usual points, so half the usual neighbors. Twelve epochs are too few for the regularization of 250: no
dropout, little scaling and shifting, and AdamW.

python tools/dataset_converters/make_digits_data.py --layout scanobjectnn
tools/dist_train.sh configs/pointcloud/pointmlp-coc_1xb16-12e_digits.py 1

Expected OA: at least 90 %.
"""

_base_ = './pointmlp-coc_1xb32-250e_scanobjectnn.py'

classes = list('0123456789')
num_points = 256
epochs = 12

model = dict(
    backbone=dict(
        embed_dim=32,
        dim_factors=(2, 2, 2, 1),
        pre_blocks=(1, 1, 2, 1),
        post_blocks=(1, 1, 2, 1),
        residual_expansion=0.25,
        anchors=(128, 64, 32, 16),
        neighbors=12,
    ),
    head=dict(num_classes=10, dropout=0.0),
)
_take = dict(type='TakeFirstPoints', num_points=num_points)
_augment = dict(type='RandomScaleShift', scale=(0.9, 1.1), shift=(-0.05, 0.05))
_pack = dict(type='PackPoints')
train_pipeline = [_take, _augment, dict(type='ShufflePoints'), _pack]
test_pipeline = [_take, _pack]
tta_pipeline = [_take, dict(type='TestTimeAug', transforms=[[_augment] * 10, [_pack]])]
_dataset = dict(data_root='data/digits/scanobjectnn', metainfo=dict(classes=classes))
train_dataloader = dict(batch_size=16, num_workers=1, dataset=dict(**_dataset, pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, batch_size=90, dataset=dict(**_dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=1, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, T_max=epochs - 1, eta_min=1e-5, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=16)
train_cfg = dict(max_epochs=epochs)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1))
randomness = dict(seed=0)
