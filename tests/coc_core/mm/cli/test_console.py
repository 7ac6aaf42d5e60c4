"""What a tool's console says."""

import logging

import pytest

from coc_core.mm.cli.console import ConsoleFilter


@pytest.mark.parametrize(
    ('message', 'shown'),
    [
        ('\n------\nSystem environment:\n    Python: 3', False),
        ("Config:\nmodel = dict(type='A')", False),
        ('Hooks will be executed in the following order:\nbefore_run:', False),
        ('paramwise_options -- backbone.stem.bias:weight_decay=0.0', False),
        ('Epoch(train) [1][2/2]  lr: 3.3855e-04  loss: 2.1579', True),
        ('Epoch(val) [1][1/1]    accuracy/top1: 40.0000', True),
        ('Checkpoints will be saved to work_dirs/a.', True),
        ('The schedule follows the config: paramwise_options -- no', True),
    ],
)
def test_what_is_hundreds_of_lines_long_is_for_the_log_file(message, shown):
    record = logging.LogRecord('mmengine', logging.INFO, __file__, 1, message, None, None)
    assert ConsoleFilter().filter(record) is shown
