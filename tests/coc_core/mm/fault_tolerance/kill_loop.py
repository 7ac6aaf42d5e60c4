"""Kill a training again and again, let it go on each time, and compare its end with that of one in one go.

python tests/coc_core/mm/fault_tolerance/kill_loop.py --kills 50        # at random moments
python tests/coc_core/mm/fault_tolerance/kill_loop.py --at boundaries   # around every write, move and removal
python tests/coc_core/mm/fault_tolerance/kill_loop.py CONFIG --kills 50 -- OPTIONS of tools/train.py

Without CONFIG it is the small classifier of survival.py. The last line is a JSON object. Trainings are forked from this
process, which has imported everything and trained nothing, so that a kill costs seconds.
"""

import argparse
import json
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
sys.path.insert(0, str(Path(__file__).parents[4]))

import survival
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from coc_core.checkpoints import read
from coc_core.mm.fault_tolerance.states import find_state

SHARED = mmap.mmap(-1, 16)


def counted(place: int, value: int | None = None) -> int:
    """Read or write a number that the processes share: 0 the last step that was begun, 1 the files' boundaries."""
    if value is not None:
        SHARED[8 * place : 8 * place + 8] = struct.pack('q', value)
    return struct.unpack('q', SHARED[8 * place : 8 * place + 8])[0]


@HOOKS.register_module()
class CountSteps(Hook):
    """Tells the loop how far the training is."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        counted(0, runner.iter)


def kill_at_boundary(number: int | None) -> None:
    """Count what changes files, and end the process around the given one: before it, after it, or in its middle."""
    counted(1, 0)

    def around(owner, name):
        real = getattr(owner, name)

        def watched(*args, **kwargs):
            step()
            result = real(*args, **kwargs)
            step()
            return result

        setattr(owner, name, watched)

    def step():
        counted(1, counted(1) + 1)
        if counted(1) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def write_bytes(path, content):
        with path.open('wb', buffering=0) as stream:
            size = len(content)
            for tenth in range(10):
                step()
                stream.write(content[tenth * size // 10 : (tenth + 1) * size // 10])
        return size

    Path.write_bytes = write_bytes
    for owner, name in ((os, 'fsync'), (os, 'replace'), (os, 'rmdir'), (os, 'remove'), (os, 'unlink')):
        around(owner, name)


class Loop:
    """Trainings of one config, each in a process of its own."""

    def __init__(self, project, config: str, options: list[str]) -> None:
        self.project, self.config, self.options = project, config, options

    def start(self, work: str, *arguments: str, prepare=lambda: None) -> int:
        counted(0, 0)
        process = os.fork()
        if process:
            return process
        code = 70
        try:
            log = os.open(self.project.folder / f'{work}.log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            prepare()
            code = self.project.train(self.config, work, *arguments, *self.options, hooks=[dict(type='CountSteps')])
        except BaseException:
            traceback.print_exc()
        os._exit(code)

    @staticmethod
    def end(process: int, step: int | None = None, delay: float = 0.0) -> int:
        """Wait for a process, or kill it some time after it began a step; return its code, negative for a signal."""
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if step is not None and counted(0) >= step:
                deadline, step = time.monotonic() + delay, None
            time.sleep(0.002)
        os.kill(process, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def last(self, work: str) -> Path:
        return find_state(str(self.project.folder / work)).path

    def saved(self, work: str) -> int:
        """Return the number of steps after which a training goes on."""
        state = find_state(str(self.project.folder / work))
        return state.meta['iter'] if state else 0


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', nargs='?', help='the config (default: the small classifier)')
    parser.add_argument('--kills', type=int, default=50, help='number of kills, at least')
    parser.add_argument('--at', choices=['random', 'boundaries'], default='random')
    parser.add_argument('--every', type=int, default=1, help='of the boundaries, every Nth')
    parser.add_argument('--seed', type=int, default=0)
    place = sys.argv.index('--') if '--' in sys.argv else len(sys.argv)
    args, options = parser.parse_args(sys.argv[1:place]), sys.argv[place + 1 :]
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        project = survival.Project(Path(folder))
        if args.config is None:
            survival.write_images(project.folder)
            args.config = project.config('base')
            os.chdir(folder)
        loop = Loop(project, args.config, options)
        start = time.monotonic()
        code = loop.end(loop.start('whole', prepare=lambda: kill_at_boundary(None)))
        length, steps, boundaries = time.monotonic() - start, counted(0) + 1, counted(1)
        if code:
            sys.exit((project.folder / 'whole.log').read_text()[-3000:])
        last = loop.last('whole').name
        report = dict(
            kills=0, trainings=0, most_lost=0, seconds=round(length, 1), boundaries=boundaries, differences=[]
        )
        places = list(range(1, boundaries + 1, args.every)) if args.at == 'boundaries' else []
        while places or report['kills'] < (args.kills if args.at == 'random' else 0):
            work = f'killed{report["trainings"]}'
            code = -1
            while code:
                if args.at == 'boundaries' and places:
                    number = places.pop(0)
                    code = loop.end(loop.start(work, '--resume', prepare=lambda n=number: kill_at_boundary(n)))
                elif args.at == 'random':
                    step = draw.randrange(min(loop.saved(work), steps - 1), steps)
                    # The longer ones reach what is between two steps: checkpoints and validations.
                    delay = draw.uniform(0, draw.choice([0.5, 3]) * length / steps)
                    code = loop.end(loop.start(work, '--resume'), step, delay)
                if code == -signal.SIGKILL:
                    report['kills'] += 1
                    report['most_lost'] = max(report['most_lost'], counted(0) - loop.saved(work))
                    if args.at == 'boundaries':
                        code = loop.end(loop.start(work, '--resume'))
                if code > 0:
                    sys.exit((project.folder / f'{work}.log').read_text()[-3000:])
            found = survival.differences(read(project.folder / 'whole' / last), read(project.folder / work / last))
            names = [sorted(path.name for path in (project.folder / w).glob('*.pth')) for w in ('whole', work)]
            if found or names[0] != names[1]:
                report['differences'].append(f'{work}: {found} {names}')
            report['trainings'] += 1
    print(json.dumps(report))


if __name__ == '__main__':
    main()
