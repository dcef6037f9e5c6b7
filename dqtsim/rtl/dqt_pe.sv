// One processing element: multiply, shift the digit into place, accumulate (B1). One output stays here for a window.
// EACH clamps once per product: a serial element keeps the product until its last digit, so its bits are those of a
// parallel one.
module dqt_pe #(
  parameter int A_W = 9,
  parameter int W_W = 8,
  parameter int P_W = 17,   // holds every product of whole operands
  parameter int SUM_W = 32,
  parameter bit SERIAL = 1'b1,  // a product comes in several digits, each in its place
  parameter bit EACH = 1'b0
) (
  input  logic                    clk,
  input  logic                    en,
  input  logic                    first_tap,
  input  logic                    first_step,  // of a tap
  input  logic                    last_step,
  input  logic signed [A_W-1:0]   a,
  input  logic signed [W_W-1:0]   w,
  input  logic [3:0]              place,
  output logic signed [SUM_W-1:0] sum
);
  logic signed [P_W-1:0] digit, term;
  assign digit = P_W'(a) * P_W'(w);
  assign term = SERIAL ? digit <<< place : digit;

  if (EACH) begin : g_each
    localparam int WIDE = (SUM_W > P_W ? SUM_W : P_W) + 1;
    localparam logic signed [WIDE-1:0] MOST = (WIDE'(1) <<< (SUM_W - 1)) - WIDE'(1);
    localparam logic signed [WIDE-1:0] LEAST = -MOST - WIDE'(1);
    logic signed [P_W-1:0] digits, product;
    logic signed [WIDE-1:0] next;
    assign product = !SERIAL || first_step ? term : digits + term;
    assign next = first_tap ? WIDE'(product) : WIDE'(sum) + WIDE'(product);
    always_ff @(posedge clk) begin
      if (en) digits <= product;
      if (en && last_step) sum <= next > MOST ? SUM_W'(MOST) : next < LEAST ? SUM_W'(LEAST) : SUM_W'(next);
    end
  end else begin : g_end
    always_ff @(posedge clk) if (en) sum <= (first_tap && first_step ? '0 : sum) + SUM_W'(term);
    logic unused;
    assign unused = &{1'b0, last_step};
  end
endmodule
