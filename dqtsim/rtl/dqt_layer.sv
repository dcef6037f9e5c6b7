// A layer on the tile: groups, then tiles of output channels, then tiles of output positions.
// The memories are outside and answer an address in the same cycle. `busy` lasts
// groups * ceil(P/R) * ceil(channels/C) * (taps * steps + R + 1) cycles.
module dqt_layer #(
  parameter int R = 16,
  parameter int C = 16,
  parameter int N = 8,
  parameter int WEIGHT_RULE = dqt::NEST_TIES_UP,
  parameter int ACTIVATION_RULE = dqt::NEST_TIES_UP,
  parameter int MODE = dqt::PARALLEL,
  parameter int OVERFLOW = dqt::ERROR,
  parameter int TAP_ORDER = dqt::CHANNEL_ROW_COLUMN,
  parameter int ACC_W = 32,
  parameter int BIAS_W = 32,
  parameter int M_W = 16,
  parameter int ROUNDING = dqt::TIES_UP,
  parameter int WINDOWS = 0,
  parameter int PADDING = 0
) (
  input  logic                clk,
  input  logic                rst_n,
  input  logic                go,
  input  logic [3:0]          b_w,
  input  logic [3:0]          b_a,
  input  logic [N-1:0]        z_x,
  input  logic [N-1:0]        z_y,
  input  logic [N-1:0]        lo,
  input  logic [N-1:0]        hi,
  input  logic signed [31:0]  groups,
  input  logic signed [31:0]  height,
  input  logic signed [31:0]  width,
  input  logic signed [31:0]  out_height,
  input  logic signed [31:0]  out_width,
  input  logic signed [31:0]  channels,   // input channels of a group
  input  logic signed [31:0]  outputs,    // output channels of a group
  input  logic signed [31:0]  kernel_y,
  input  logic signed [31:0]  kernel_x,
  input  logic signed [31:0]  stride_y,
  input  logic signed [31:0]  stride_x,
  input  logic signed [31:0]  dilation_y,
  input  logic signed [31:0]  dilation_x,
  input  logic signed [31:0]  pad_top,
  input  logic signed [31:0]  pad_left,
  input  logic [3:0]          j,          // of the window of b_a; read if WINDOWS
  // memories
  output logic [R*32-1:0]     a_address,
  input  logic [R*N-1:0]      a_codes,
  output logic [C*32-1:0]     w_address,
  input  logic [C*N-1:0]      w_codes,
  output logic signed [31:0]  first_channel,  // of the tables: output channel of column 0
  input  logic [C*BIAS_W-1:0] bias,
  input  logic [C*M_W-1:0]    m,
  input  logic [C*6-1:0]      s,
  output logic signed [31:0]  plane,          // input channel of this tap
  input  logic [N-1:0]        padding,        // the master code of its padded taps; read if PADDING
  // results: one output position, C output channels
  output logic                busy,
  output logic                valid,
  output logic [C-1:0]        used,
  output logic signed [31:0]  position,
  output logic [C*N-1:0]      y,
  output logic [C*32-1:0]     logits,
  output logic [C*ACC_W-1:0]  acc,
  output logic [C-1:0]        overflow,
  output logic signed [N+16:0] u  // sum of the activations' operands, the same in every column; CENTROID has it
);
  logic running, start, next_tap, first_tap, last_tap, drain, done;
  logic [15:0] row;
  logic [R-1:0] a_inside, a_used;
  logic [C-1:0] w_used;
  logic signed [31:0] group, column, first_y, first_x, after_y, after_x, first_position;
  logic last_rows, last_columns, last_group;

  assign busy = running;
  assign last_rows = after_y >= out_height;
  assign last_columns = column + 32'(C) >= outputs;
  assign last_group = group == groups - 32'sd1;
  assign first_channel = group * outputs + column;

  always_ff @(posedge clk) begin
    if (!rst_n) begin
      running <= 1'b0;
      start <= 1'b0;
    end else if (go) begin
      running <= 1'b1;
      start <= 1'b1;
      group <= '0;
      column <= '0;
      first_y <= '0;
      first_x <= '0;
      first_position <= '0;
    end else begin
      start <= done && !(last_rows && last_columns && last_group);
      if (done) begin
        first_y <= last_rows ? '0 : after_y;
        first_x <= last_rows ? '0 : after_x;
        first_position <= last_rows ? '0 : first_position + 32'(R);
        if (last_rows) column <= last_columns ? '0 : column + 32'(C);
        if (last_rows && last_columns) group <= group + 32'sd1;
        if (last_rows && last_columns && last_group) running <= 1'b0;
      end
    end
  end

  dqt_address #(.R(R), .C(C), .TAP_ORDER(TAP_ORDER)) address (
    .clk, .start, .next_tap, .height, .width, .out_height, .out_width, .channels, .outputs, .kernel_y, .kernel_x,
    .stride_y, .stride_x, .dilation_y, .dilation_x, .pad_top, .pad_left, .group, .first_y, .first_x, .column,
    .a_address, .a_inside, .a_used, .plane, .w_address, .w_used, .first_tap, .last_tap, .after_y, .after_x);

  dqt_tile #(
    .R(R), .C(C), .N(N), .WEIGHT_RULE(WEIGHT_RULE), .ACTIVATION_RULE(ACTIVATION_RULE), .MODE(MODE),
    .OVERFLOW(OVERFLOW), .ACC_W(ACC_W), .BIAS_W(BIAS_W), .M_W(M_W), .ROUNDING(ROUNDING),
    .WINDOWS(WINDOWS), .PADDING(PADDING)
  ) tile (
    .clk, .rst_n, .start, .first_tap, .last_tap, .b_w, .b_a, .z_x, .z_y, .lo, .hi, .a_codes, .a_inside, .w_codes,
    .bias, .m, .s, .j, .padding, .next_tap, .valid(drain), .done, .row, .y, .logits, .acc, .overflow, .u);

  assign valid = drain && 1'(a_used >> row);
  assign used = w_used;
  assign position = first_position + 32'(row);
endmodule
