// The numbers of the law's named choices, for the parameters of the modules; dqtsim/numbers.py states the same.
// For any other number a module instantiates dqt_unknown_..., which does not exist, so that no tool builds a circuit
// ($error outside procedures would do, but Icarus 11 lacks it, and Verilator only warns).
/* verilator lint_off UNUSEDPARAM */
package dqt;
  // how a code of width b is taken from the master code (A1-A3, A3')
  localparam int NEST_TIES_UP = 0, NEST_FLOOR = 1, NEST_MIDPOINT = 2, NEST_CENTROID = 3;
  // how a processing element multiplies
  localparam int PARALLEL = 0, ACTIVATION_SERIAL = 1, DIGIT_SERIAL = 2;
  // what the accumulator does with a sum that does not fit (B1)
  localparam int ERROR = 0, WRAP = 1, SATURATE = 2, SATURATE_EACH = 3;
  // what the requantizer does with dropped bits (B4)
  localparam int TIES_UP = 0, FLOOR = 1, TIES_AWAY = 2, TIES_EVEN = 3;
  // which axis of the taps is outermost (C8)
  localparam int CHANNEL_ROW_COLUMN = 0, ROW_COLUMN_CHANNEL = 1;
endpackage
/* verilator lint_on UNUSEDPARAM */
