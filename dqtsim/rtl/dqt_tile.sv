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
  parameter int ROUNDING = dqt::TIES_UP
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
  output logic                next_tap,
  output logic                valid,     // a row is on the outputs
  output logic                done,      // it is the last
  output logic [15:0]         row,
  output logic [C*N-1:0]      y,
  output logic [C*32-1:0]     logits,
  output logic [C*ACC_W-1:0]  acc,
  output logic [C-1:0]        overflow
);
  localparam bit BITS = MODE == dqt::ACTIVATION_SERIAL;
  localparam bit DIGITS = MODE == dqt::DIGIT_SERIAL;
  localparam int A_W = DIGITS ? 3 : BITS ? 2 : N + 1;
  localparam int W_W = DIGITS ? 4 : N;
  localparam bit EACH = OVERFLOW == dqt::SATURATE_EACH;
  localparam bit EXACT = OVERFLOW == dqt::ERROR || OVERFLOW == dqt::SATURATE;
  // a product is below 2^15, so 32 bits hold the exact sum of 2^16 - 1 taps
  localparam int SUM_W = EXACT && ACC_W < 32 ? 32 : ACC_W;
  localparam bit WEIGHT_MIDDLE = WEIGHT_RULE == dqt::NEST_MIDPOINT;

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

  // exponents and zero points at the widths in use (A4, A5)
  logic [3:0] k_w, e_w, align;
  logic [N-1:0] zero_a, zero_w;
  assign k_w = 4'(N) - b_w;
  assign e_w = WEIGHT_MIDDLE && k_w != 4'd0 ? k_w - 4'd1 : k_w;
  assign align = e_w + (4'(N) - b_a);
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
    dqt_row_edge #(.N(N), .RULE(ACTIVATION_RULE), .MODE(MODE), .A_W(A_W)) edge_a (
      .q(a_codes[r*N+:N]), .tapped(a_inside[r]), .b(b_a), .zero(zero_a), .digit(digit_a), .a(a[r]));
  end
  for (genvar c = 0; c < C; c++) begin : g_column
    dqt_column_edge #(.N(N), .RULE(WEIGHT_RULE), .MODE(MODE), .W_W(W_W)) edge_w (
      .q(w_codes[c*N+:N]), .b(b_w), .zero(zero_w), .digit(digit_w), .w(w[c]));
  end

  // elements, and the end of each column
  for (genvar c = 0; c < C; c++) begin : g_out
    logic [R*SUM_W-1:0] sums;
    logic signed [SUM_W-1:0] sum;
    logic signed [ACC_W-1:0] p;
    logic signed [31:0] logit;
    for (genvar r = 0; r < R; r++) begin : g_pe
      dqt_pe #(.A_W(A_W), .W_W(W_W), .P_W(2 * N + 1), .SUM_W(SUM_W), .SERIAL(BITS || DIGITS), .EACH(EACH)) pe (
        .clk, .en, .first_tap, .first_step, .last_step, .a(a[r]), .w(w[c]), .place, .sum(sums[r*SUM_W+:SUM_W]));
    end
    assign sum = sums[row*SUM_W+:SUM_W];
    dqt_narrow #(.SUM_W(SUM_W), .ACC_W(ACC_W), .OVERFLOW(OVERFLOW)) narrow (.sum, .acc(p), .overflow(overflow[c]));
    dqt_requant #(.N(N), .ACC_W(ACC_W), .BIAS_W(BIAS_W), .M_W(M_W), .ROUNDING(ROUNDING)) requant (
      .acc(p), .align, .bias(bias[c*BIAS_W+:BIAS_W]), .m(m[c*M_W+:M_W]), .s(s[c*6+:6]),
      .zero(z_y), .lo, .hi, .logit, .y(y[c*N+:N]));
    assign acc[c*ACC_W+:ACC_W] = p;
    assign logits[c*32+:32] = logit;
  end
endmodule
