// Circuits that area.py counts beside the parts of the tile. Not part of the design.

// a plain 8-bit multiplier and accumulator, to compare with
module area_mac #(
  parameter int SUM_W = 32
) (
  input  logic                    clk,
  input  logic                    en,
  input  logic                    first,
  input  logic signed [7:0]       a,
  input  logic signed [7:0]       w,
  output logic signed [SUM_W-1:0] sum
);
  always_ff @(posedge clk) if (en) sum <= (first ? '0 : sum) + SUM_W'(16'(a) * 16'(w));
endmodule

// an element that nests by itself: the edges of the tile moved into it
module area_nesting_pe #(
  parameter int N = 8,
  parameter int WEIGHT_RULE = dqt::NEST_MIDPOINT,
  parameter int ACTIVATION_RULE = dqt::NEST_TIES_UP,
  parameter int MODE = dqt::PARALLEL,
  parameter int A_W = N + 1,
  parameter int W_W = N,
  parameter int SUM_W = 32,
  parameter bit SERIAL = 1'b0
) (
  input  logic                    clk,
  input  logic                    en,
  input  logic                    first_tap,
  input  logic                    first_step,
  input  logic                    last_step,
  input  logic [N-1:0]            q_a,
  input  logic [N-1:0]            q_w,
  input  logic                    tapped,
  input  logic [3:0]              b_a,
  input  logic [3:0]              b_w,
  input  logic [N-1:0]            zero_a,
  input  logic [N-1:0]            zero_w,
  input  logic [2:0]              digit_a,
  input  logic [1:0]              digit_w,
  input  logic [3:0]              place,
  output logic signed [SUM_W-1:0] sum
);
  logic signed [A_W-1:0] a;
  logic signed [W_W-1:0] w;
  dqt_row_edge #(.N(N), .RULE(ACTIVATION_RULE), .MODE(MODE), .A_W(A_W)) edge_a (
    .q(q_a), .tapped, .b(b_a), .zero(zero_a), .digit(digit_a), .a);
  dqt_column_edge #(.N(N), .RULE(WEIGHT_RULE), .MODE(MODE), .W_W(W_W)) edge_w (
    .q(q_w), .b(b_w), .zero(zero_w), .digit(digit_w), .w);
  dqt_pe #(.A_W(A_W), .W_W(W_W), .P_W(2 * N + 1), .SUM_W(SUM_W), .SERIAL(SERIAL)) pe (
    .clk, .en, .first_tap, .first_step, .last_step, .a, .w, .place, .sum);
endmodule
