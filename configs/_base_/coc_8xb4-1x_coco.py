"""COCO with the published Context Cluster recipe: 8 GPUs x 4 images, 12 epochs, AdamW on all parameters alike.

The published config files set 4 images a GPU, except the one of medium with 49 centers, which sets 2; the learning rate
is 2e-4 in all of them, and so it is here. Warm-up, steps and image sizes are mmdet's 1x.
"""

_base_ = [
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmdet_plugin'])

train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=2e-4, weight_decay=1e-4))
auto_scale_lr = dict(base_batch_size=32)
