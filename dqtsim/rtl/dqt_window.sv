// Code of width b of a window (A6): taken j bits lower than usual, moved to the zero point of width b, clipped to b bits.
module dqt_window #(
  parameter int N = 8,
  parameter int RULE = dqt::NEST_TIES_UP
) (
  input  logic [N-1:0] q,
  input  logic [3:0]   b,
  input  logic [3:0]   j,       // at most N - b
  input  logic [N-1:0] offset,  // nest(z, b + j) - nest(z, b)
  output logic [N-1:0] code
);
  logic [N-1:0] finer, top;
  logic [N:0] moved;  // two's complement: bit N is the sign
  dqt_nest #(.N(N), .RULE(RULE)) nest (.q, .b(b + j), .code(finer));
  assign moved = {1'b0, finer} - {1'b0, offset};
  assign top = {N{1'b1}} >> (4'(N) - b);
  assign code = moved[N] ? '0 : moved[N-1:0] > top ? top : moved[N-1:0];
endmodule
