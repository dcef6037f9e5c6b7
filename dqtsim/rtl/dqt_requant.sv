// Align (B2), bias (B3), requantize (B4). Every intermediate is exact; only the shift drops bits.
module dqt_requant #(
  parameter int N = 8,
  parameter int ACC_W = 32,
  parameter int BIAS_W = 32,
  parameter int M_W = 16,
  parameter int ROUNDING = dqt::TIES_UP
) (
  input  logic signed [ACC_W-1:0]  acc,
  input  logic [3:0]               align,
  input  logic signed [BIAS_W-1:0] bias,
  input  logic [M_W-1:0]           m,
  input  logic [5:0]               s,
  input  logic [N-1:0]             zero,
  input  logic [N-1:0]             lo,
  input  logic [N-1:0]             hi,
  output logic signed [31:0]       logit,
  output logic [N-1:0]             y
);
  localparam int A_W = ACC_W + 14;                        // two exponents of at most 7
  localparam int T_W = (A_W > BIAS_W ? A_W : BIAS_W) + 1;
  localparam int FULL = T_W + M_W + 1;
  localparam int X_W = FULL > 64 ? FULL : 64;             // at least 64, so that a shift by 62 still sees sign bits

  logic signed [T_W-1:0] total;
  logic signed [X_W-1:0] x, whole, code;
  logic [X_W-1:0] dropped, half;
  logic above, tie, up;

  assign total = (T_W'(acc) <<< align) + T_W'(bias);
  assign logit = 32'(total);
  assign x = X_W'(total) * X_W'($signed({1'b0, m}));
  assign whole = x >>> s;
  assign dropped = x & ~({X_W{1'b1}} << s);
  assign half = s == 6'd0 ? '0 : X_W'(1) << (s - 6'd1);
  assign above = dropped > half;
  assign tie = s != 6'd0 && dropped == half;

  if (ROUNDING == dqt::TIES_UP) begin : g_ties_up
    assign up = above || tie;
  end else if (ROUNDING == dqt::FLOOR) begin : g_floor
    assign up = 1'b0;
    logic unused;
    assign unused = &{1'b0, above, tie};
  end else if (ROUNDING == dqt::TIES_AWAY) begin : g_ties_away
    assign up = above || (tie && !x[X_W-1]);
  end else if (ROUNDING == dqt::TIES_EVEN) begin : g_ties_even
    assign up = above || (tie && whole[0]);
  end else begin : g_unknown
    dqt_unknown_rounding refused ();
  end

  assign code = whole + X_W'($signed({1'b0, up})) + X_W'($signed({1'b0, zero}));
  assign y = code < X_W'($signed({1'b0, lo})) ? lo : code > X_W'($signed({1'b0, hi})) ? hi : code[N-1:0];
endmodule
