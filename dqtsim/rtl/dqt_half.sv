// Half a weight step of every tap (B2'), in steps of the master widths: what CENTROID takes off each output.
// It is exact above e_a = 0; there a half rounds up.
module dqt_half #(
  parameter int U_W = 25
) (
  input  logic signed [U_W-1:0] u,
  input  logic [3:0]            e_a,
  input  logic                  middle,  // below the master width of weights
  output logic signed [U_W-1:0] half
);
  // |U| * 2^e_a is below 2^(U_W-1) - 1: an operand times its exponent is below 2^N
  logic signed [U_W-1:0] twice, shifted;
  assign twice = (u <<< e_a) + U_W'(1);
  assign shifted = twice >>> 1;  // alone: beside an unsigned '0 the shift would not keep the sign
  assign half = middle ? shifted : '0;
endmodule
