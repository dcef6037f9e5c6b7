// The factor of one column of elements in this step: the operand of a weight (A5), or one 2-bit digit of it.
module dqt_column_edge #(
  parameter int N = 8,
  parameter int RULE = dqt::NEST_TIES_UP,
  parameter int MODE = dqt::PARALLEL,
  parameter int W_W = N
) (
  input  logic [N-1:0]          q,
  input  logic [3:0]            b,
  input  logic [N-1:0]          zero,  // the zero point at width b
  input  logic [1:0]            digit,
  output logic signed [W_W-1:0] w
);
  logic [N-1:0] code;
  dqt_nest #(.N(N), .RULE(RULE)) nest (.q, .b, .code);

  logic middle;  // MIDPOINT below the master width reads a code in the middle of its interval
  assign middle = RULE == dqt::NEST_MIDPOINT && b != 4'(N);
  if (RULE != dqt::NEST_TIES_UP && RULE != dqt::NEST_FLOOR && RULE != dqt::NEST_MIDPOINT) begin : g_no_rule
    dqt_unknown_nesting refused ();
  end

  if (MODE == dqt::DIGIT_SERIAL) begin : g_digit
    logic signed [2:0] d;
    assign d = $signed({1'b0, 2'(code >> {digit, 1'b0})}) - $signed({1'b0, 2'(zero >> {digit, 1'b0})});
    assign w = middle ? $signed({d, digit == 2'd0}) : 4'(d);
  end else if (MODE == dqt::PARALLEL || MODE == dqt::ACTIVATION_SERIAL) begin : g_whole
    logic [N-1:0] d;  // modulo 2^N, which holds every operand of a weight
    assign d = code - zero;
    assign w = $signed(middle ? {d[N-2:0], 1'b1} : d);
    logic unused;
    assign unused = &{1'b0, digit};
  end else begin : g_no_mode
    dqt_unknown_mode refused ();
  end
endmodule
