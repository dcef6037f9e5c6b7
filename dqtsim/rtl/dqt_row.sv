// The operand of one row: the code of the tap, or that of its padding, taken by width and window, then at the edge.
// Without windows and padding codes it is the edge alone.
module dqt_row #(
  parameter int N = 8,
  parameter int RULE = dqt::NEST_TIES_UP,
  parameter int MODE = dqt::PARALLEL,
  parameter int A_W = N + 1,
  parameter int WINDOWS = 0,
  parameter int PADDING = 0
) (
  input  logic [N-1:0]          q,
  input  logic                  tapped,   // the tap lies in the picture
  input  logic [N-1:0]          padding,  // master code of padded taps (B1')
  input  logic [3:0]            b,
  input  logic [3:0]            j,
  input  logic [N-1:0]          zero,     // the zero point at width b
  input  logic [N-1:0]          offset,   // that at width b + j, less `zero`
  input  logic [2:0]            digit,
  output logic signed [A_W-1:0] a
);
  logic [N-1:0] master;
  logic held;  // the edge takes the code, not the zero point
  if (PADDING != 0) begin : g_padding
    assign master = tapped ? q : padding;
    assign held = 1'b1;
  end else begin : g_no_padding
    assign master = q;
    assign held = tapped;
    logic unused;
    assign unused = &{1'b0, padding};
  end

  if (WINDOWS != 0) begin : g_window
    logic [N-1:0] code;
    dqt_window #(.N(N), .RULE(RULE)) window (.q(master), .b, .j, .offset, .code);
    // the code has its width already: nesting to N bits changes nothing
    dqt_row_edge #(.N(N), .RULE(dqt::NEST_FLOOR), .MODE(MODE), .A_W(A_W)) edge_a (
      .q(code), .tapped(held), .b(4'(N)), .zero, .digit, .a);
  end else begin : g_no_window
    dqt_row_edge #(.N(N), .RULE(RULE), .MODE(MODE), .A_W(A_W)) edge_a (
      .q(master), .tapped(held), .b, .zero, .digit, .a);
    logic unused;
    assign unused = &{1'b0, j, offset};
  end
endmodule
