// Test bench: reads one layer's vectors from +dir=FOLDER, runs it, compares every accumulator and output.
// The line RESULT is the verdict: the exit status of a simulator says nothing.
module dqt_bench;
  parameter int R = 16, C = 16, N = 8, WEIGHT_RULE = 0, ACTIVATION_RULE = 0, MODE = 0, OVERFLOW = 0, TAP_ORDER = 0;
  parameter int ACC_W = 32, BIAS_W = 32, M_W = 16, ROUNDING = 0, WINDOWS = 0, PADDING = 0;
  parameter int X_WORDS = 65536, W_WORDS = 65536, Y_WORDS = 65536;  // room for the largest layer
  localparam int CONFIG = WINDOWS != 0 ? 24 : 23, CHANNELS = 4096;
  localparam bit ONES = WEIGHT_RULE == dqt::NEST_CENTROID;  // the circuit has a column of ones

  logic clk = 1'b0, rst_n = 1'b0, go = 1'b0;
  logic [31:0] cfg [24];
  logic [N-1:0] x [X_WORDS];
  logic [N-1:0] w [W_WORDS];
  logic [BIAS_W-1:0] b [CHANNELS];
  logic [M_W-1:0] m [CHANNELS];
  logic [5:0] s [CHANNELS];
  logic [ACC_W-1:0] expected_acc [Y_WORDS];
  logic [31:0] expected_y [Y_WORDS];
  logic seen [Y_WORDS];
  logic [N-1:0] padding [X_WORDS];
  logic [N+16:0] expected_u [Y_WORDS];

  logic [R*32-1:0] a_address;
  logic [R*N-1:0] a_codes;
  logic [C*32-1:0] w_address, logits;
  logic [C*N-1:0] w_codes, y;
  logic signed [31:0] first_channel, position, plane;
  logic [C*BIAS_W-1:0] bias_row;
  logic [C*M_W-1:0] m_row;
  logic [C*6-1:0] s_row;
  logic [C*ACC_W-1:0] acc;
  logic [C-1:0] used, overflow;
  logic [N+16:0] u;
  logic busy, valid;

  dqt_layer #(
    .R(R), .C(C), .N(N), .WEIGHT_RULE(WEIGHT_RULE), .ACTIVATION_RULE(ACTIVATION_RULE), .MODE(MODE),
    .OVERFLOW(OVERFLOW), .TAP_ORDER(TAP_ORDER), .ACC_W(ACC_W), .BIAS_W(BIAS_W), .M_W(M_W), .ROUNDING(ROUNDING),
    .WINDOWS(WINDOWS), .PADDING(PADDING)
  ) dut (
    .clk, .rst_n, .go, .b_w(cfg[0][3:0]), .b_a(cfg[1][3:0]), .z_x(cfg[2][N-1:0]), .z_y(cfg[3][N-1:0]),
    .lo(cfg[4][N-1:0]), .hi(cfg[5][N-1:0]), .groups(cfg[6]), .height(cfg[7]), .width(cfg[8]), .out_height(cfg[9]),
    .out_width(cfg[10]), .channels(cfg[11]), .outputs(cfg[12]), .kernel_y(cfg[13]), .kernel_x(cfg[14]),
    .stride_y(cfg[15]), .stride_x(cfg[16]), .dilation_y(cfg[17]), .dilation_x(cfg[18]), .pad_top(cfg[19]),
    .pad_left(cfg[20]), .j(cfg[23][3:0]), .a_address, .a_codes, .w_address, .w_codes, .first_channel, .bias(bias_row), .m(m_row),
    .s(s_row), .plane, .padding(padding[plane]), .busy, .valid, .used, .position, .y, .logits, .acc, .overflow, .u);

  for (genvar r = 0; r < R; r++) begin : g_x
    assign a_codes[r*N+:N] = x[a_address[r*32+:32]];
  end
  for (genvar c = 0; c < C; c++) begin : g_w
    assign w_codes[c*N+:N] = w[w_address[c*32+:32]];
    assign bias_row[c*BIAS_W+:BIAS_W] = b[first_channel+c];
    assign m_row[c*M_W+:M_W] = m[first_channel+c];
    assign s_row[c*6+:6] = s[first_channel+c];
  end

  string dir;
  int inputs, taps, channels, outputs, positions, words, bad, cycles, overflows, index, sum;
  logic is_logits;
  logic [31:0] found;

  always #1 clk = ~clk;

  initial begin
    if (!$value$plusargs("dir=%s", dir)) begin
      $display("no +dir=FOLDER");
      $finish;
    end
    cfg[23] = 0;
    $readmemh({dir, "/config.hex"}, cfg, 0, CONFIG - 1);
    is_logits = cfg[21][0];
    channels = cfg[6] * cfg[12];
    inputs = cfg[6] * cfg[11] * cfg[7] * cfg[8];
    taps = cfg[11] * cfg[13] * cfg[14];
    positions = cfg[9] * cfg[10];
    outputs = channels * positions;
    if (inputs > X_WORDS || taps * channels > W_WORDS || outputs > Y_WORDS || channels > CHANNELS) begin
      $display("the layer needs a bench with more words");
      $finish;
    end
    $readmemh({dir, "/x.hex"}, x, 0, inputs - 1);
    $readmemh({dir, "/w.hex"}, w, 0, taps * channels - 1);
    $readmemh({dir, "/bias.hex"}, b, 0, channels - 1);
    $readmemh({dir, "/m.hex"}, m, 0, channels - 1);
    $readmemh({dir, "/s.hex"}, s, 0, channels - 1);
    $readmemh({dir, "/acc.hex"}, expected_acc, 0, outputs - 1);
    $readmemh({dir, "/y.hex"}, expected_y, 0, outputs - 1);
    if (PADDING != 0) $readmemh({dir, "/padding.hex"}, padding, 0, cfg[6] * cfg[11] - 1);
    if (ONES) $readmemh({dir, "/u.hex"}, expected_u, 0, cfg[6] * positions - 1);
    for (index = 0; index < outputs; index = index + 1) seen[index] = 1'b0;
    words = 0;
    bad = 0;
    cycles = 0;
    overflows = 0;
    @(negedge clk);
    @(negedge clk);
    rst_n = 1'b1;
    go = 1'b1;
    @(negedge clk);
    go = 1'b0;
    while (busy) begin
      cycles = cycles + 1;
      if (cycles > cfg[22] + 1000) begin
        $display("no end after %0d cycles", cycles);
        $finish;
      end
      if (valid) begin
        for (int c = 0; c < C; c = c + 1) begin
          if (used[c]) begin
            index = (first_channel + c) * positions + position;
            sum = first_channel / cfg[12] * positions + position;
            found = is_logits ? logits[c*32+:32] : 32'(y[c*N+:N]);
            words = words + 1;
            overflows = overflows + 32'(overflow[c]);
            if (seen[index] !== 1'b0 || acc[c*ACC_W+:ACC_W] !== expected_acc[index]
                || found !== expected_y[index] || (ONES && u !== expected_u[sum])) begin
              if (bad == 0)
                $display("FIRST index=%0d acc=%h expected=%h y=%h expected=%h u=%h expected=%h", index,
                         acc[c*ACC_W+:ACC_W], expected_acc[index], found, expected_y[index], u, expected_u[sum]);
              bad = bad + 1;
            end
            seen[index] = 1'b1;
          end
        end
      end
      @(negedge clk);
    end
    $display("RESULT words=%0d bad=%0d cycles=%0d overflows=%0d", words, bad, cycles, overflows);
    $finish;
  end
endmodule
