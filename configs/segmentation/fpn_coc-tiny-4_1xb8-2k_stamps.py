"""Semantic FPN with coc_tiny on 600 scenes of photographed things, tested on 150 scenes of other things, on two cores.

sudo apt install tuxpaint-stamps-default
python tools/dataset_converters/make_digits_data.py --source stamps --layout ade20k --out data/stamps
tools/dist_train.sh configs/segmentation/fpn_coc-tiny-4_1xb8-2k_stamps.py 1

starts from the checkpoint of ``make demo``, which knows scanned digits alone.

Expected mIoU over the background (IoU 93 %) and eight classes: about 25 %. Some two hundred cut-outs show
what a thing is, and hardly what a class is.
"""

_base_ = './fpn_coc-tiny-4_1xb8-2k_digits.py'

data_root = 'data/stamps/ade20k'
classes = ['background', 'mammal', 'bird', 'sea animal', 'plant', 'food', 'household', 'instrument', 'vehicle']
palette = _base_.palette[: len(classes)]

model = dict(decode_head=dict(num_classes=len(classes), loss_decode=dict(class_weight=[0.2] + [1.0] * 8)))
train_pipeline = [*_base_.train_pipeline[:-1], dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]
_dataset = dict(data_root=data_root, metainfo=dict(classes=classes, palette=palette))
train_dataloader = dict(dataset=dict(**_dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=_dataset)
test_dataloader = dict(dataset=_dataset)
# Half the rate of the digits: the one that it was measured with.
optim_wrapper = dict(optimizer=dict(lr=1e-3))
