"""Names and widths that training shares; free of torch, so that a command line can use them."""

from typing import Literal, get_args

MASTER_WIDTH = 8
TOP_CODE = 2**MASTER_WIDTH - 1
WEIGHT_ZERO_POINT = 2 ** (MASTER_WIDTH - 1)

WeightRule = Literal["TIES_UP", "FLOOR", "MIDPOINT"]
ActivationRule = Literal["TIES_UP", "FLOOR"]
WEIGHT_RULES: tuple[WeightRule, ...] = get_args(WeightRule)
ACTIVATION_RULES: tuple[ActivationRule, ...] = get_args(ActivationRule)
