"""QOperator files: operators that take codes, scales and zero points, and give codes or sums."""

# operator: positions of activation and weight
PRODUCTS = {"ConvInteger": (0, 1), "MatMulInteger": (0, 1), "QLinearConv": (0, 3), "QLinearMatMul": (0, 3)}
CONVOLUTIONS = ("ConvInteger", "QLinearConv")
