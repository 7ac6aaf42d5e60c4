"""Mask R-CNN with coc_tiny on 600 scenes of photographed things, tested on 150 scenes of other things, on two cores.

sudo apt install tuxpaint-stamps-default
python tools/dataset_converters/make_digits_data.py --source stamps --layout coco --out data/stamps
tools/dist_train.sh configs/detection/mask-rcnn_coc-tiny-4_fpn_1xb4-24e_stamps.py 1

starts from the checkpoint of ``make demo``, which knows scanned digits alone.

Expected mask AP: about 11 %. Some two hundred cut-outs show what a thing is, and hardly what a class is.
"""

_base_ = './mask-rcnn_coc-tiny-4_fpn_1xb4-8e_digits.py'

data_root = 'data/stamps/coco/'
classes = ('mammal', 'bird', 'sea animal', 'plant', 'food', 'household', 'instrument', 'vehicle')
epochs = 24

model = dict(roi_head=dict(bbox_head=dict(num_classes=len(classes)), mask_head=dict(num_classes=len(classes))))
train_pipeline = [*_base_.train_pipeline[:-1], dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]
_dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(dataset=dict(**_dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=_dataset)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=epochs)]
train_cfg = dict(max_epochs=epochs, val_interval=6)
