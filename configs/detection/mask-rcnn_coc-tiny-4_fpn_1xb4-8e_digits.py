"""Mask R-CNN with coc_tiny on 600 scenes of scanned digits, tested on 150 scenes of held-back scans, on two cores.

make demo TASK=detection

starts from the checkpoint of the classification demo. By hand, after ``make demo``:

python tools/dataset_converters/make_digits_data.py --layout coco
tools/dist_train.sh configs/detection/mask-rcnn_coc-tiny-4_fpn_1xb4-8e_digits.py 1

Expected mask AP at IoU 0.5 (segm_mAP_50): at least 0.5.
"""

_base_ = '../_base_/mask-rcnn_coc_fpn_8xb4-1x_coco.py'
import coc_core

arch = 'coc_tiny'
data_root = 'data/digits/coco/'
# A tuple, to which mmdet's confusion_matrix.py adds the background.
classes = tuple('0123456789')
scale = (192, 192)
epochs = 8
# Neck, heads and regions of interest of a size that two cores train in minutes.
width = 64

model = dict(
    backbone=dict(
        arch=arch,
        layer_scale_init=0.1,
        init_cfg=dict(checkpoint='work_dirs/demo/classification/epoch_12.pth'),
    ),
    neck=dict(in_channels=list(coc_core.VARIANTS[arch].dims), out_channels=width, num_outs=4),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, roi_layer=dict(sampling_ratio=1)),
        bbox_head=dict(in_channels=width, fc_out_channels=256, num_classes=10),
        mask_roi_extractor=dict(out_channels=width, roi_layer=dict(sampling_ratio=1)),
        mask_head=dict(num_convs=2, in_channels=width, conv_out_channels=width, num_classes=10),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50), rcnn=dict(max_per_img=20)),
)

# A digit turned over is another digit: no flip.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
_dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(num_workers=1, dataset=dict(**_dataset, pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(**_dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=5e-4))
auto_scale_lr = dict(base_batch_size=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=0, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs, val_interval=2)
# The last epoch is the result: no epoch is chosen by its score on the held-back scenes.
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1))
# How clusters form, on two held-back images, enlarged so that every region has points to group.
custom_hooks = [dict(type='ClusterVisualizationHook', samples=2, interval=50, by_epoch=False, size=256)]
randomness = dict(seed=0)
