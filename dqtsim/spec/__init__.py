"""The law: every primitive of the nested integer arithmetic, in plain Python integers and the standard library.

README.md beside this file numbers the equations. Nothing here deals with files, arrays or speed, so the folder can be
given to a hardware team on its own.
"""

from .add import add
from .decision import argmax, choose_widths
from .mac import (
    AccumulatorOverflow,
    Flags,
    add_bias,
    add_up,
    align,
    dot,
    half,
    limits,
    narrow,
    saturate,
    take_half,
    wrap,
)
from .nest import (
    exponent,
    master_zero_point_of_weights,
    nest,
    nest_window,
    nest_zero_point,
    operand,
    takes_half,
    window_operand,
)
from .pool import average_pool, max_pool
from .requantize import clip, requantize, select_pair_row, select_row, shift_right
from .rules import Nesting, Overflow, Rounding, TapOrder
from .window import Window, gather

__all__ = [
    "AccumulatorOverflow",
    "Flags",
    "Nesting",
    "Overflow",
    "Rounding",
    "TapOrder",
    "Window",
    "add",
    "add_bias",
    "add_up",
    "align",
    "argmax",
    "average_pool",
    "choose_widths",
    "clip",
    "dot",
    "exponent",
    "gather",
    "half",
    "limits",
    "master_zero_point_of_weights",
    "max_pool",
    "narrow",
    "nest",
    "nest_window",
    "nest_zero_point",
    "operand",
    "requantize",
    "saturate",
    "select_pair_row",
    "select_row",
    "shift_right",
    "take_half",
    "takes_half",
    "window_operand",
    "wrap",
]
