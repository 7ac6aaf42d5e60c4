"""What a training that goes on says of what has changed since."""

import shutil

import pytest

from coc_core.mm.fault_tolerance.settings import changes, settings_of, shown


@pytest.fixture
def cut_training(project, cut, tmp_path):
    """A training that a signal cut, on a copy of the images."""
    shutil.copytree(project.folder / 'images', tmp_path / 'images')
    root = str(tmp_path / 'images')
    lines = [f'{phase}_dataloader = dict(dataset=dict(data_root={root!r}))\n' for phase in ('train', 'val')]
    config = project.config('copied', ''.join(lines))
    assert project.train(config, f'copied-{tmp_path.name}', actions={6: cut}) == 143

    def resume(*options):
        chosen = ['--cfg-options', *options] if options else []
        return project.train(config, f'copied-{tmp_path.name}', '--resume', *chosen)

    return resume, tmp_path / 'images'


def test_other_samples_of_the_same_number_and_names_of_classes_are_refused(cut_training, capfd):
    resume, images = cut_training
    path = images / 'train' / 'class0' / '3.png'
    path.rename(path.with_name('new.png'))
    assert resume() == 2
    assert 'was trained on other samples than the 20 that the training data has now' in capfd.readouterr().err
    path.with_name('new.png').rename(path)
    assert resume() == 0


def test_other_validation_data_are_told(cut_training, capfd):
    resume, images = cut_training
    path = images / 'val' / 'class0' / '3.png'
    path.rename(path.with_name('new.png'))
    assert resume() == 0
    assert 'The validation data has other samples than before' in ''.join(capfd.readouterr())


@pytest.mark.parametrize(
    ('options', 'code', 'told'),
    [
        ((), 0, None),
        (('train_dataloader.num_workers=1',), 0, None),
        (('model.head.loss.label_smooth_val=0.4',), 0, 'here on: model.head.loss.label_smooth_val is 0.4 now, 0.1'),
        (('train_cfg.max_epochs=1',), 0, 'rescue_7.pth is after 7 steps, and training ends after 5: none is added.'),
        (
            ('optim_wrapper.optimizer.type=Adam',), 2,
            'was trained by AdamW, whose state Adam has no use for: set optim_wrapper.optimizer.type=AdamW',
        ),
    ],
)  # fmt: skip
def test_a_change_of_the_config_is_told(cut_training, capfd, options, code, told):
    resume, _ = cut_training
    capfd.readouterr()
    assert resume(*options) == code
    said = ''.join(capfd.readouterr())
    assert told in said if told else 'WARNING' not in said


def test_settings_of_a_config():
    config = dict(
        model=dict(type='A', parts=[dict(n=1), dict(n=2)], sizes=(1, 2), f=dict),
        train_dataloader=dict(num_workers=2, batch_size=3), work_dir='here', log_level='INFO', hooks=[],
    )  # fmt: skip
    assert settings_of(config) == {
        'model.type': "'A'", 'model.parts.0.n': '1', 'model.parts.1.n': '2', 'model.sizes': '(1, 2)', 'model.f': 'dict',
        'train_dataloader.batch_size': '3', 'hooks': '[]',
    }  # fmt: skip


def test_changes_are_named_and_of_many_the_first():
    assert changes(dict(a='1', b='2'), dict(a='1', c='3')) == [
        'c is 3 now, not set before',
        'b is not set now, 2 before',
    ]
    assert shown([str(number) for number in range(7)]) == '0; 1; 2; 3; 4; and 2 more'
