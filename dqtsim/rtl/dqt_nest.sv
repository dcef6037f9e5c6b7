// Code of width b of a master code of N bits: a shift, and for TIES_UP an increment and a one-sided clip (A1-A3).
module dqt_nest #(
  parameter int N = 8,
  parameter int RULE = dqt::NEST_TIES_UP
) (
  input  logic [N-1:0] q,
  input  logic [3:0]   b,
  output logic [N-1:0] code
);
  logic [3:0] k;
  assign k = 4'(N) - b;

  if (RULE == dqt::NEST_TIES_UP) begin : g_ties_up
    logic [N:0] shifted;  // bit 0 is the first dropped bit; none is dropped at k = 0
    logic [N-1:0] top;
    assign shifted = {q, 1'b0} >> k;
    assign top = {N{1'b1}} >> k;
    assign code = shifted[N:1] == top ? top : shifted[N:1] + N'(shifted[0]);
  end else if (RULE == dqt::NEST_FLOOR || RULE == dqt::NEST_MIDPOINT) begin : g_floor
    assign code = q >> k;
  end else begin : g_unknown
    dqt_unknown_nesting refused ();
  end
endmodule
