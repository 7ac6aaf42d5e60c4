"""coc_tiny on ImageNet-1k with RandAugment and erasing where the model trains, a batch at a time: another recipe.

tools/dist_train.sh configs/classification/coc-tiny_8xb128_in1k-device.py 8

In distribution the images are those of coc-tiny_8xb128_in1k.py but for roundings. Published top-1: none published.
"""

_base_ = './coc-tiny_8xb128_in1k.py'
custom_imports = dict(imports=['mmpretrain_plugin', 'mmpretrain_plugin.device_augmentation'])

_load, _resize, _flip, _, _erase, _pack = _base_.train_pipeline
train_dataloader = dict(dataset=dict(pipeline=[_load, _resize, _flip, _pack]))
data_preprocessor = dict(
    type='AugmentingDataPreprocessor',
    rand_augment=dict(
        **{key: value for key, value in _base_._augment.items() if key != 'type'},
        hparams=dict(pad_val=_base_._fill),
        interpolations=['bilinear', 'bicubic'],
    ),
    erasing={key: value for key, value in _erase.items() if key != 'type'},
)
