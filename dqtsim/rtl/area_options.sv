// Circuits that area.py counts for the options of the tile. Not part of the design.

// the end of a column that takes off half a weight step of every tap (CENTROID)
module area_less_half #(
  parameter int N = 8,
  parameter int ACC_W = 32,
  parameter int BIAS_W = 32,
  parameter int M_W = 16,
  parameter int U_W = N + 17
) (
  input  logic signed [ACC_W-1:0]  acc,
  input  logic [3:0]               align,
  input  logic signed [BIAS_W-1:0] bias,
  input  logic signed [U_W-1:0]    half,
  input  logic [M_W-1:0]           m,
  input  logic [5:0]               s,
  input  logic [N-1:0]             zero,
  input  logic [N-1:0]             lo,
  input  logic [N-1:0]             hi,
  output logic signed [31:0]       logit,
  output logic [N-1:0]             y
);
  logic signed [BIAS_W:0] less;
  assign less = (BIAS_W + 1)'(bias) - (BIAS_W + 1)'(half);
  dqt_requant #(.N(N), .ACC_W(ACC_W), .BIAS_W(BIAS_W + 1), .M_W(M_W)) requant (
    .acc, .align, .bias(less), .m, .s, .zero, .lo, .hi, .logit, .y);
endmodule
