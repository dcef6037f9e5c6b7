"""The command line: thin, lazy, composable.

Results go to stdout, progress to stderr; exit 0: same, 1: wrong bits, 2: wrong use. One module per group of commands;
nothing heavy is imported before a command runs.
"""

import click

from .. import __version__
from .bench import bench_command
from .calibrate import calibrate_command
from .count import count_command, new_command
from .evaluate import evaluate_command
from .inspect import info_command, target_group
from .plan import plan_command
from .process import Program
from .quantize import quantize_command
from .report import report_command
from .rtl import cosim_command, rtl_group, vectors_command
from .run import run_command
from .sensitivity import sensitivity_command
from .training import export_command, train_command
from .verify import compare_command, verify_command


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dqtsim")
def main() -> None:
    """Bit-accurate, integer-only simulator for networks with nested integer codes."""


for command in (
    run_command,
    verify_command,
    compare_command,
    evaluate_command,
    count_command,
    new_command,
    report_command,
    plan_command,
    sensitivity_command,
    bench_command,
    info_command,
    target_group,
    vectors_command,
    cosim_command,
    rtl_group,
    train_command,
    export_command,
    quantize_command,
    calibrate_command,
):
    main.add_command(command)
