// Addresses of the operands of this tap: one counter over taps for all, and one output position for each row.
// Activations are stored [channel][row][column], weights [output channel][channel][kernel row][kernel column],
// in either order of adding taps.
module dqt_address #(
  parameter int R = 16,
  parameter int C = 16,
  parameter int TAP_ORDER = dqt::CHANNEL_ROW_COLUMN
) (
  input  logic               clk,
  input  logic               start,       // of a pass: back to the first tap
  input  logic               next_tap,
  input  logic signed [31:0] height,
  input  logic signed [31:0] width,
  input  logic signed [31:0] out_height,
  input  logic signed [31:0] out_width,
  input  logic signed [31:0] channels,    // input channels of a group
  input  logic signed [31:0] outputs,     // output channels of a group
  input  logic signed [31:0] kernel_y,
  input  logic signed [31:0] kernel_x,
  input  logic signed [31:0] stride_y,
  input  logic signed [31:0] stride_x,
  input  logic signed [31:0] dilation_y,
  input  logic signed [31:0] dilation_x,
  input  logic signed [31:0] pad_top,
  input  logic signed [31:0] pad_left,
  input  logic signed [31:0] group,
  input  logic signed [31:0] first_y,     // output position of row 0 of the tile
  input  logic signed [31:0] first_x,
  input  logic signed [31:0] column,      // output channel, within its group, of column 0 of the tile
  output logic [R*32-1:0]    a_address,
  output logic [R-1:0]       a_inside,
  output logic [R-1:0]       a_used,      // the row has an output position
  output logic signed [31:0] plane,       // of all rows: the input channel of this tap
  output logic [C*32-1:0]    w_address,
  output logic [C-1:0]       w_used,      // the column has an output channel
  output logic               first_tap,
  output logic               last_tap,
  output logic signed [31:0] after_y,     // output position after the last row
  output logic signed [31:0] after_x
);
  // the tap
  logic signed [31:0] channel, ky, kx;
  logic last_channel, last_ky, last_kx, step_channel, step_ky, step_kx;
  assign last_channel = channel == channels - 32'sd1;
  assign last_ky = ky == kernel_y - 32'sd1;
  assign last_kx = kx == kernel_x - 32'sd1;
  assign first_tap = channel == 32'sd0 && ky == 32'sd0 && kx == 32'sd0;
  assign last_tap = last_channel && last_ky && last_kx;
  if (TAP_ORDER == dqt::CHANNEL_ROW_COLUMN) begin : g_channel_outermost
    assign step_kx = 1'b1;
    assign step_ky = last_kx;
    assign step_channel = last_kx && last_ky;
  end else if (TAP_ORDER == dqt::ROW_COLUMN_CHANNEL) begin : g_channel_innermost
    assign step_channel = 1'b1;
    assign step_kx = last_channel;
    assign step_ky = last_channel && last_kx;
  end else begin : g_unknown
    dqt_unknown_tap_order refused ();
  end
  always_ff @(posedge clk) begin
    if (start) begin
      channel <= '0;
      ky <= '0;
      kx <= '0;
    end else if (next_tap) begin
      if (step_channel) channel <= last_channel ? '0 : channel + 32'sd1;
      if (step_ky) ky <= last_ky ? '0 : ky + 32'sd1;
      if (step_kx) kx <= last_kx ? '0 : kx + 32'sd1;
    end
  end

  // rows: each has the output position after that of the row before it
  assign plane = group * channels + channel;
  logic [R*32-1:0] rows_y, rows_x;
  always_comb begin
    after_y = first_y;
    after_x = first_x;
    for (int r = 0; r < R; r++) begin
      rows_y[r*32+:32] = after_y;
      rows_x[r*32+:32] = after_x;
      after_y = after_x == out_width - 32'sd1 ? after_y + 32'sd1 : after_y;
      after_x = after_x == out_width - 32'sd1 ? 32'sd0 : after_x + 32'sd1;
    end
  end
  for (genvar r = 0; r < R; r++) begin : g_row
    logic signed [31:0] oy, ox, iy, ix;
    assign oy = $signed(rows_y[r*32+:32]);
    assign ox = $signed(rows_x[r*32+:32]);
    assign iy = oy * stride_y + ky * dilation_y - pad_top;
    assign ix = ox * stride_x + kx * dilation_x - pad_left;
    assign a_used[r] = oy < out_height;
    assign a_inside[r] = a_used[r] && iy >= 32'sd0 && iy < height && ix >= 32'sd0 && ix < width;
    assign a_address[r*32+:32] = a_inside[r] ? (plane * height + iy) * width + ix : 32'sd0;
  end

  // columns: each holds one output channel of the group
  for (genvar c = 0; c < C; c++) begin : g_column
    logic signed [31:0] channel_out;
    assign channel_out = group * outputs + column + 32'(c);
    assign w_used[c] = column + 32'(c) < outputs;
    assign w_address[c*32+:32] =
      w_used[c] ? ((channel_out * channels + channel) * kernel_y + ky) * kernel_x + kx : 32'sd0;
  end
endmodule
