// The factor of one row of elements in this step: the operand of an activation (A5), or one digit of it.
// A digit is the digit of the code less the digit of the zero point, so any zero point costs no further step;
// a padded tap holds the zero point, and all its digits are 0 (B1).
module dqt_row_edge #(
  parameter int N = 8,
  parameter int RULE = dqt::NEST_TIES_UP,
  parameter int MODE = dqt::PARALLEL,
  parameter int A_W = N + 1
) (
  input  logic [N-1:0]          q,
  input  logic                  tapped,
  input  logic [3:0]            b,
  input  logic [N-1:0]          zero,  // the zero point at width b
  input  logic [2:0]            digit,
  output logic signed [A_W-1:0] a
);
  logic [N-1:0] nested, code;
  dqt_nest #(.N(N), .RULE(RULE)) nest (.q, .b, .code(nested));
  assign code = tapped ? nested : zero;

  if (MODE == dqt::PARALLEL) begin : g_parallel
    assign a = $signed({1'b0, code}) - $signed({1'b0, zero});
    logic unused;
    assign unused = &{1'b0, digit};
  end else if (MODE == dqt::ACTIVATION_SERIAL) begin : g_bit
    assign a = $signed({1'b0, 1'(code >> digit)}) - $signed({1'b0, 1'(zero >> digit)});
  end else if (MODE == dqt::DIGIT_SERIAL) begin : g_digit
    assign a = $signed({1'b0, 2'(code >> {digit, 1'b0})}) - $signed({1'b0, 2'(zero >> {digit, 1'b0})});
  end else begin : g_unknown
    dqt_unknown_mode refused ();
  end
endmodule
