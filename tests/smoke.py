"""The first use of an installed package, from any folder but the checkout: python tests/smoke.py."""

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import timm
import torch

import coc_core
from coc_core.files import project_folder

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Raise AssertionError where something is not as a user finds it in the docs."""
    assert CHECKOUT not in Path(coc_core.__file__).parents, (
        f'{coc_core.__file__} is the checkout, not what was installed'
    )
    model = coc_core.create_model('coc_tiny', num_classes=10)
    images = torch.randn(2, 3, 64, 48)
    logits = model(images)
    logits.sum().backward()
    assert logits.shape == (2, 10) and all(p.grad is not None for p in model.parameters())
    maps = timm.create_model('coc_small', features_only=True)(images)
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 16, 12), (128, 8, 6), (320, 4, 3), (512, 2, 2)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'weights.pth'
        torch.save(model.state_dict(), path)
        coc_core.checkpoints.load(model, path)
    files = project_folder()
    for name in ('configs/classification/coc-small_8xb128_in1k.py', 'tools/dist_train.sh', 'model-index.yml'):
        assert (files / name).is_file(), f'{files / name} is missing'
    # Where OpenMMLab's packages are not installed a tool says so in a sentence.
    done = subprocess.run([sys.executable, files / 'tools' / 'train.py', '--help'], capture_output=True, text=True)
    if find_spec('mmengine') is None:
        assert done.returncode == 2 and done.stderr.startswith('error: mmengine is not installed'), done.stderr
    else:
        assert done.returncode == 0 and '--resume' in done.stdout, done.stderr
    print(f'coc_core in {Path(coc_core.__file__).parent} works')


if __name__ == '__main__':
    main()
