"""UPerNet on ADE20K with coc_small, 4 centers in every region: another head on the same backbone.

tools/dist_train.sh configs/segmentation/upernet_coc-small-4_4xb4-80k_ade20k-512x512.py 4

There is no published result.
"""

_base_ = ['mmseg::_base_/models/upernet_r50.py', '../_base_/coc_4xb4-80k_ade20k-512x512.py']
import coc_core

arch = 'coc_small'
dims = list(coc_core.VARIANTS[arch].dims)
data_preprocessor = dict(size=(512, 512))
model = dict(
    data_preprocessor=data_preprocessor,
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='ContextCluster',
        arch=arch,
        center_grid=2,
        init_cfg=dict(type='Pretrained', checkpoint=f'checkpoints/{arch}.pth'),
    ),
    decode_head=dict(in_channels=dims, num_classes=150),
    auxiliary_head=dict(in_channels=dims[2], num_classes=150),
)
