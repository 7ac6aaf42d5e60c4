"""Golden cases: outputs of the published implementation on weights and inputs that are functions of their names."""

import gc
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path

# Tests run side by side, one for each core, and so do the tools that they start.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

if not torch.cuda.is_available():
    # Triton reads it when it is first imported; the tools that tests start inherit it.
    os.environ.setdefault('TRITON_INTERPRET', '1')

GOLDEN = Path(__file__).parent / 'golden'

_spec = importlib.util.spec_from_file_location('golden_fill', GOLDEN / 'fill.py')
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)


class Golden:
    """Reads one golden case: its options, inputs, published state dict and expected outputs."""

    def __init__(self, name: str) -> None:
        self.case = json.loads((GOLDEN / 'cases.json').read_text())[name]
        self.expected = {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / f'{name}.npz').items()}

    def image(self, step: int | None = None) -> torch.Tensor:
        name = self.case['input'] if step is None else f'{self.case["input"]} {step}'
        return torch.from_numpy(fill.image(name, tuple(self.case['input_shape'])))

    def points(self) -> torch.Tensor:
        return torch.from_numpy(fill.points(self.case['input'], tuple(self.case['input_shape'])))

    @staticmethod
    def tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(fill.tensor(name, shape))

    @staticmethod
    def parameter(key: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.as_tensor(fill.parameter(key, tuple(shape)))

    @classmethod
    def published_state_dict(cls, keys: str) -> dict[str, torch.Tensor]:
        entries = json.loads((GOLDEN / f'keys_{keys}.json').read_text())
        return {key: cls.parameter(key, shape) for key, shape in entries}


def pytest_collection_finish() -> None:
    """Take all that the tests import out of the garbage collector's sight: mmengine runs it for each data set."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def default_scope():
    """Each test begins without mmengine's default scope: it is the process's, and decides what a bare name means."""
    DefaultScope._instance_dict.clear()


class Malicious:
    """Makes a folder where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


@pytest.fixture
def malicious() -> type[Malicious]:
    return Malicious


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    return Golden
