"""Runs the project's tools in processes of their own, without the seconds that their imports take.

A server imports torch, OpenMMLab and their like once for each process of pytest, and nothing of this project. Each tool
is forked from it, with the arguments, variables, module path, folder and streams that a start by a user gives it. That
a tool imports all it needs is therefore for other tests to see: those of the launchers, of the packages' own tools and
of the plugins start Python anew.
"""

import functools
import gc
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_SERVER = multiprocessing.get_context('forkserver')
_SERVER.set_forkserver_preload(
    [
        'torch', 'torchvision', 'timm', 'cv2', 'h5py', 'sklearn.datasets', 'rich.progress', 'mmengine.runner',
        'mmcv.ops', 'mmpretrain.models', 'mmpretrain.datasets', 'mmpretrain.evaluation', 'mmdet.models',
        'mmdet.datasets', 'mmdet.evaluation', 'mmseg.models', 'mmseg.datasets', 'mmseg.evaluation',
    ]
)  # fmt: skip


def run_tool(
    script: str | Path,
    *arguments: object,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 400,
) -> subprocess.CompletedProcess[str]:
    """Run a Python file to its end as ``python SCRIPT ARGUMENTS`` would.

    Args:
        script: The file.
        arguments: What follows it.
        cwd: The folder to run in, by default this process's.
        env: Variables on top of this process's.
        timeout: Seconds after which it is killed, and `subprocess.TimeoutExpired` raised.
    """
    words = [str(script), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ('out', 'err')]
        for stream in streams:
            stream.touch()
        environment = {**os.environ, **(env or {})}
        place = str(cwd or Path.cwd())
        process = _SERVER.Process(target=_become, args=(words, place, environment, streams, _module_path()))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout)
        return subprocess.CompletedProcess(words, process.exitcode, *(stream.read_text() for stream in streams))


def run_compiling(code: str, *arguments: str) -> str:
    """Run code in a new Python, whose Triton compiles kernels instead of interpreting them; return what it prints."""
    root = Path(__file__).resolve().parents[2]
    environment = {'PATH': '/usr/bin:/bin', 'TRITON_INTERPRET': '0', 'PYTHONPATH': str(root)}
    done = subprocess.run([sys.executable, '-c', code, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def _module_path() -> list[str]:
    """Return where a new Python looks for modules, without the script's folder and PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    code = 'import json, sys; print(json.dumps(sys.path[1:]))'
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def _become(
    words: Sequence[str], cwd: str, environment: Mapping[str, str], streams: Sequence[Path], path: Sequence[str]
) -> None:
    # What the server's imports said may still be in the buffer.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout.flush()
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    own = [part for part in environment.get('PYTHONPATH', '').split(os.pathsep) if part]
    sys.path[:] = [str(Path(words[0]).resolve().parent), *own, *path]
    sys.argv[:] = words
    # mmengine collects garbage for each data set, among all that the server has imported.
    gc.freeze()
    # The tool's own worker processes start as they do everywhere, not through this server.
    multiprocessing.set_start_method(None, force=True)
    runpy.run_path(words[0], run_name='__main__')
