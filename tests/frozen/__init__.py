"""What a user sees, pinned bit for bit: `test_frozen.py` compares, `python -m tests.frozen.write` pins anew.

`frozen.json` holds hashes by readable keys, `cli/` the text of one command each. `places.py` alone knows where things
are inside dqtsim. A change that is meant shows as a diff of these files; any other change is a fault.

Not pinned: `cosim` and `rtl area` (they need simulators and Yosys), what `bench` measures, and what training gives.
"""
