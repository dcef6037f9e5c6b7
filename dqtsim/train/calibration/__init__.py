"""`calibrate`: a usable nested network from pictures, without training.

Everything is summed over parts of few pictures in their order, so the result does not depend on how pictures come in
batches. In this folder c is the vector of a tensor's equalization: codes of channel i stand for c[i] times real values.
"""

from dqtsim.train.calibration.run import calibrate

__all__ = ["calibrate"]
