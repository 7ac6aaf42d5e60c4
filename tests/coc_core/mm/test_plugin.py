"""Importing a plugin loads what registering needs, and nothing of the command line, the explorer or matplotlib."""

import json
import subprocess
import sys

import pytest

PLUGINS = {'mmdet_plugin': 'mmdet.models', 'mmseg_plugin': 'mmseg.registry', 'mmpretrain_plugin': 'mmpretrain.apis'}
REGISTERING = {
    '', '.backbone', '.data_checks', '.data_checks.images', '.data_checks.inspection', '.data_checks.problems',
    '.fault_tolerance', '.fault_tolerance.file_backend', '.fault_tolerance.saving', '.fault_tolerance.stopping',
    '.hooks', '.hooks.clusters', '.hooks.progress', '.layer_decay', '.loading', '.mistakes', '.mixed_precision',
    '.models', '.plugin', '.requirements', '.safe_loading', '.task',
}  # fmt: skip
CHECKS = {
    'mmdet_plugin': {'.data_checks.coco', *(f'.data_checks.coco_{part}' for part in ('lists', 'masks', 'objects'))},
    'mmseg_plugin': {'.data_checks.label_maps'},
    'mmpretrain_plugin': {'.data_checks.class_folders', '.data_checks.image_lists'},
}
CODE = """
import importlib, json, sys, time
importlib.import_module({package!r})
with_package = set(sys.modules)
import coc_core
start = time.process_time()
importlib.import_module({plugin!r})
seconds = time.process_time() - start
print(json.dumps([seconds, sorted(sys.modules.keys() - with_package)]))
"""


@pytest.mark.parametrize('plugin', PLUGINS)
def test_a_plugin_loads_few_modules_in_little_time(plugin):
    code = CODE.format(package=PLUGINS[plugin], plugin=plugin)
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    seconds, added = json.loads(done.stdout.splitlines()[-1])
    own = {name.removeprefix('coc_core.mm') for name in added if name.split('.')[:2] == ['coc_core', 'mm']}
    assert own == REGISTERING | CHECKS[plugin]
    assert not {'matplotlib', 'gradio'} & set(added)
    # A quarter of a second on an idle machine, after the package and the backbone.
    assert seconds < 3
