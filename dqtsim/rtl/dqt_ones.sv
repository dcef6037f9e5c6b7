// The column of ones (B2'), its element of one row: U, the sum of the operands of the activations over a window.
// Its weight is 1, so it adds without multiplying. The register holds every sum: it has no policy and no flags.
module dqt_ones #(
  parameter int A_W = 9,
  parameter int U_W = 25,
  parameter bit SERIAL = 1'b0  // an operand comes in several digits, each in its place
) (
  input  logic                  clk,
  input  logic                  en,          // a digit that is not yet in the sum
  input  logic                  first_tap,
  input  logic                  first_step,  // of a tap
  input  logic signed [A_W-1:0] a,
  input  logic [3:0]            place,
  output logic signed [U_W-1:0] u
);
  logic signed [U_W-1:0] term;
  assign term = SERIAL ? U_W'(a) <<< place : U_W'(a);
  always_ff @(posedge clk) if (en) u <= (first_tap && first_step ? '0 : u) + term;
endmodule
