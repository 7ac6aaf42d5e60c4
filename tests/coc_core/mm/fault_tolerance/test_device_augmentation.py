"""A training that augments in the data preprocessor and was cut goes on as one in one go."""

CONFIG = """
custom_imports = dict(imports=['mmpretrain_plugin', 'mmpretrain_plugin.device_augmentation'])
_load, _crop, _flip, _augment, _erase, _pack = _base_.train_pipeline
train_dataloader = dict(dataset=dict(pipeline=[_load, _crop, _flip, _pack]))
model = dict(data_preprocessor=dict(
    type='AugmentingDataPreprocessor', rand_augment={k: v for k, v in _augment.items() if k != 'type'},
    erasing={k: v for k, v in _erase.items() if k != 'type'}))
"""


def test_a_training_cut_inside_an_epoch_goes_on_as_if_nothing_had_happened(project, differences, cut):
    config = project.config('device augmentation', CONFIG)
    workers = ('--cfg-options', 'train_dataloader.num_workers=')
    assert project.train(config, 'device in one go', workers[0], f'{workers[1]}2') == 0
    for step in (2, 8):
        assert project.train(config, 'device cut', '--resume', actions={step: cut}) == 143
    assert project.train(config, 'device cut', '--resume') == 0
    states = [project.state(work, 'epoch_3.pth') for work in ('device in one go', 'device cut')]
    assert differences(*states) == []
