// The accumulator register at the end of a window (B1). `overflow` says that the exact sum does not fit.
module dqt_narrow #(
  parameter int SUM_W = 32,
  parameter int ACC_W = 32,
  parameter int OVERFLOW = dqt::ERROR
) (
  input  logic signed [SUM_W-1:0] sum,
  output logic signed [ACC_W-1:0] acc,
  output logic                    overflow
);
  localparam logic signed [ACC_W-1:0] MOST = {1'b0, {ACC_W - 1{1'b1}}};

  assign overflow = sum != SUM_W'($signed(sum[ACC_W-1:0]));
  if (OVERFLOW == dqt::SATURATE) begin : g_saturate
    assign acc = !overflow ? sum[ACC_W-1:0] : sum[SUM_W-1] ? ~MOST : MOST;
  end else if (OVERFLOW == dqt::ERROR || OVERFLOW == dqt::WRAP || OVERFLOW == dqt::SATURATE_EACH) begin : g_low_bits
    assign acc = sum[ACC_W-1:0];
    logic unused;
    assign unused = &{1'b0, MOST};
  end else begin : g_unknown
    dqt_unknown_overflow refused ();
  end
endmodule
