"""The options that the tools have in common."""

from __future__ import annotations

import argparse
from typing import Any

from coc_core.mm.option_values import OptionText


class _OptionAction(argparse.Action):
    """Collects key=value pairs, each split at its first `=`, with the values as `OptionText`.

    Of a key that is given twice the last value counts: scripts append the options of their caller to their own.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest))
        for word in values:
            key, sign, text = word.partition('=')
            if not sign:
                raise argparse.ArgumentError(self, f'{word!r} is not of the form key=value')
            options[key] = OptionText(text)
        setattr(namespace, self.dest, options)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that change a config and say how a user's mistake is shown."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_OptionAction,
        default={},
        metavar='KEY=VALUE',
        help='change entries of the config, e.g. train_cfg.max_epochs=10 model.backbone.arch=coc_small; a value is '
        'read as Python reads it, a bare word is a string, and a,b is a list where no string stands',
    )
    add_debug_option(parser)


def add_debug_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that shows where a sentence about a mistake comes from."""
    parser.add_argument('--debug', action='store_true', help='show the stack trace of a mistake before its sentence')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing have in common."""
    parser.add_argument('--work-dir', help='folder for logs and results (default: work_dirs/NAME-OF-THE-CONFIG)')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who started the processes (tools/dist_*.sh and tools/slurm_*.sh say it themselves)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    add_config_options(parser)
