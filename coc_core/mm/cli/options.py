"""The options that the tools have in common."""

from __future__ import annotations

import argparse
from typing import Any

from mmengine.config import DictAction


class _OptionAction(DictAction):  # type: ignore[misc, unused-ignore]
    """mmengine's key=value pairs; a word without `=` is a usage error and not a stack trace."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        words = [word for word in values if '=' not in word]
        if words:
            raise argparse.ArgumentError(self, f'{words[0]!r} is not of the form key=value')
        super().__call__(parser, namespace, values, option_string)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that change a config and say how a user's mistake is shown."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_OptionAction,
        default={},
        metavar='KEY=VALUE',
        help='change entries of the config, e.g. train_cfg.max_epochs=10 model.backbone.arch=coc_small',
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
