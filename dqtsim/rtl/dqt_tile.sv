// Output-stationary tile of R x C elements with nesting at its edges and one requantizer per column.
// One pass: 1 cycle to start, taps * steps to accumulate, R to drain, row by row.
module dqt_tile #(
  parameter int R = 16,
  parameter int C = 16,
  parameter int N = 8,
  parameter int WEIGHT_RULE = dqt::NEST_TIES_UP,
  parameter int ACTIVATION_RULE = dqt::NEST_TIES_UP,
  parameter int MODE = dqt::PARALLEL,
  parameter int OVERFLOW = dqt::ERROR,
  parameter int ACC_W = 32,
  parameter int BIAS_W = 32,
  parameter int M_W = 16,
  parameter int ROUNDING = dqt::TIES_UP,
  parameter int WINDOWS = 0,  // activations have windows (A6)
  parameter int PADDING = 0   // padded taps hold a code of their channel (B1')
) (
  input  logic                clk,
  input  logic                rst_n,
  input  logic                start,
  input  logic                first_tap,
  input  logic                last_tap,
  input  logic [3:0]          b_w,
  input  logic [3:0]          b_a,
  input  logic [N-1:0]        z_x,
  input  logic [N-1:0]        z_y,
  input  logic [N-1:0]        lo,
  input  logic [N-1:0]        hi,
  input  logic [R*N-1:0]      a_codes,
  input  logic [R-1:0]        a_inside,
  input  logic [C*N-1:0]      w_codes,
  input  logic [C*BIAS_W-1:0] bias,
  input  logic [C*M_W-1:0]    m,
  input  logic [C*6-1:0]      s,
  input  logic [3:0]          j,         // of the window, at most N - b_a
  input  logic [N-1:0]        padding,   // master code of padded taps
  output logic                next_tap,
  output logic                valid,     // a row is on the outputs
  output logic                done,      // it is the last
  output logic [15:0]         row,
  output logic [C*N-1:0]      y,
  output logic [C*32-1:0]     logits,
  output logic [C*ACC_W-1:0]  acc,
  output logic [C-1:0]        overflow,
  output logic signed [N+16:0] u         // sum of the activations' operands (B2')
);
  localparam bit BITS = MODE == dqt::ACTIVATION_SERIAL;
  localparam bit DIGITS = MODE == dqt::DIGIT_SERIAL;
  localparam int A_W = DIGITS ? 3 : BITS ? 2 : N + 1;
  localparam int W_W = DIGITS ? 4 : N;
  localparam bit EACH = OVERFLOW == dqt::SATURATE_EACH;
  localparam bit EXACT = OVERFLOW == dqt::ERROR || OVERFLOW == dqt::SATURATE;
  // a product is below 2^15, so 32 bits hold the exact sum of 2^16 - 1 taps
  localparam int SUM_W = EXACT && ACC_W < 32 ? 32 : ACC_W;
  localparam bit CENTROID = WEIGHT_RULE == dqt::NEST_CENTROID;
  localparam int U_W = N + 17;  // an operand of an activation is below 2^N: the exact sum of 2^16 - 1 taps
  localparam bit WEIGHT_MIDDLE = WEIGHT_RULE == dqt::NEST_MIDPOINT || CENTROID;
  // codes and operands of CENTROID are those of MIDPOINT (A3')
  localparam int EDGE_RULE = CENTROID ? dqt::NEST_MIDPOINT : WEIGHT_RULE;

  // the constants above do not cover other numbers
  if (MODE != dqt::PARALLEL && !BITS && !DIGITS) begin : g_no_mode
    dqt_unknown_mode refused ();
  end
  if (OVERFLOW != dqt::WRAP && !EACH && !EXACT) begin : g_no_overflow
    dqt_unknown_overflow refused ();
  end
  if (WEIGHT_RULE != dqt::NEST_TIES_UP && WEIGHT_RULE != dqt::NEST_FLOOR && !WEIGHT_MIDDLE) begin : g_no_rule
    dqt_unknown_nesting refused ();
  end

  // exponents and zero points at the widths in use (A4 to A6)
  logic [3:0] k_w, e_w, e_a, align;
  logic [N-1:0] zero_a, zero_w, offset;
  assign k_w = 4'(N) - b_w;
  assign e_w = WEIGHT_MIDDLE && k_w != 4'd0 ? k_w - 4'd1 : k_w;
  if (WINDOWS != 0) begin : g_windows
    logic [N-1:0] finer;  // the zero point at width b_a + j
    dqt_nest #(.N(N), .RULE(ACTIVATION_RULE)) nest_finer (.q(z_x), .b(b_a + j), .code(finer));
    assign offset = finer - zero_a;
    assign e_a = 4'(N) - b_a - j;
  end else begin : g_no_windows
    assign offset = '0;
    assign e_a = 4'(N) - b_a;
  end
  assign align = e_w + e_a;
  dqt_nest #(.N(N), .RULE(ACTIVATION_RULE)) nest_a (.q(z_x), .b(b_a), .code(zero_a));
  assign zero_w = N'(1) << (b_w - 4'd1);

  // control
  typedef enum logic [1:0] {IDLE, RUN, DRAIN} state_t;
  state_t state;
  logic [2:0] digit_a, last_a;
  logic [1:0] digit_w, last_w;
  logic en, first_step, last_step;
  logic [3:0] place;
  assign last_a = BITS ? 3'(b_a - 4'd1) : DIGITS ? 3'((b_a - 4'd1) >> 1) : 3'd0;
  assign last_w = DIGITS ? 2'((b_w - 4'd1) >> 1) : 2'd0;
  assign place = DIGITS ? 4'({2'd0, digit_w} + {1'b0, digit_a}) << 1 : {1'b0, digit_a};
  assign en = state == RUN;
  assign first_step = digit_a == 3'd0 && digit_w == 2'd0;
  assign last_step = digit_a == last_a && digit_w == last_w;
  assign next_tap = en && last_step;
  assign valid = state == DRAIN;
  assign done = valid && row == 16'(R - 1);

  always_ff @(posedge clk) begin
    if (!rst_n) begin
      state <= IDLE;
      digit_a <= '0;
      digit_w <= '0;
      row <= '0;
    end else begin
      case (state)
        IDLE: if (start) state <= RUN;
        RUN: begin
          digit_a <= digit_a == last_a ? 3'd0 : digit_a + 3'd1;
          if (digit_a == last_a) digit_w <= digit_w == last_w ? 2'd0 : digit_w + 2'd1;
          if (last_step && last_tap) state <= DRAIN;
        end
        default: begin
          row <= done ? 16'd0 : row + 16'd1;
          if (done) state <= IDLE;
        end
      endcase
    end
  end

  // edges
  logic signed [A_W-1:0] a [R];
  logic signed [W_W-1:0] w [C];
  for (genvar r = 0; r < R; r++) begin : g_row
    dqt_row #(
      .N(N), .RULE(ACTIVATION_RULE), .MODE(MODE), .A_W(A_W), .WINDOWS(WINDOWS), .PADDING(PADDING)
    ) row_a (
      .q(a_codes[r*N+:N]), .tapped(a_inside[r]), .padding, .b(b_a), .j, .zero(zero_a), .offset, .digit(digit_a),
      .a(a[r]));
  end
  for (genvar c = 0; c < C; c++) begin : g_column
    dqt_column_edge #(.N(N), .RULE(EDGE_RULE), .MODE(MODE), .W_W(W_W)) edge_w (
      .q(w_codes[c*N+:N]), .b(b_w), .zero(zero_w), .digit(digit_w), .w(w[c]));
  end

  // the column of ones: one for all columns of the tile, since they share their activations
  localparam int END_W = CENTROID ? (BIAS_W > U_W ? BIAS_W : U_W) + 1 : BIAS_W;
  logic signed [U_W-1:0] half;
  if (CENTROID) begin : g_ones
    logic [R*U_W-1:0] us;
    for (genvar r = 0; r < R; r++) begin : g_one
      // digits of the weights do not matter here: an operand is added while the first of them is on
      dqt_ones #(.A_W(A_W), .U_W(U_W), .SERIAL(BITS || DIGITS)) ones (
        .clk, .en(en && digit_w == 2'd0), .first_tap, .first_step, .a(a[r]), .place, .u(us[r*U_W+:U_W]));
    end
    assign u = us[row*U_W+:U_W];
    dqt_half #(.U_W(U_W)) of_row (.u, .e_a, .middle(k_w != 4'd0), .half);
  end else begin : g_no_ones
    assign u = '0;
    assign half = '0;
    logic unused;
    assign unused = &{1'b0, half};
  end

  // elements, and the end of each column
  for (genvar c = 0; c < C; c++) begin : g_out
    logic [R*SUM_W-1:0] sums;
    logic signed [SUM_W-1:0] sum;
    logic signed [ACC_W-1:0] p;
    logic signed [31:0] logit;
    logic signed [END_W-1:0] b_c;  // the half is taken off the bias, which is as exact as off the accumulator
    for (genvar r = 0; r < R; r++) begin : g_pe
      dqt_pe #(.A_W(A_W), .W_W(W_W), .P_W(2 * N + 1), .SUM_W(SUM_W), .SERIAL(BITS || DIGITS), .EACH(EACH)) pe (
        .clk, .en, .first_tap, .first_step, .last_step, .a(a[r]), .w(w[c]), .place, .sum(sums[r*SUM_W+:SUM_W]));
    end
    assign sum = sums[row*SUM_W+:SUM_W];
    dqt_narrow #(.SUM_W(SUM_W), .ACC_W(ACC_W), .OVERFLOW(OVERFLOW)) narrow (.sum, .acc(p), .overflow(overflow[c]));
    if (CENTROID) begin : g_less_half
      assign b_c = END_W'($signed(bias[c*BIAS_W+:BIAS_W])) - END_W'(half);
    end else begin : g_bias
      assign b_c = bias[c*BIAS_W+:BIAS_W];
    end
    dqt_requant #(.N(N), .ACC_W(ACC_W), .BIAS_W(END_W), .M_W(M_W), .ROUNDING(ROUNDING)) requant (
      .acc(p), .align, .bias(b_c), .m(m[c*M_W+:M_W]), .s(s[c*6+:6]),
      .zero(z_y), .lo, .hi, .logit, .y(y[c*N+:N]));
    assign acc[c*ACC_W+:ACC_W] = p;
    assign logits[c*32+:32] = logit;
  end
endmodule
