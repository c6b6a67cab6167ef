#include "layers/experts.h"

#include <algorithm>

namespace temper::layers {
namespace {

// A stack of matrices, one for each expert; this rank has some of them.
Parameter expert_matrices(const std::string& name, const ExpertDims& dims, int64_t rows, int64_t cols, Dtypes dtypes) {
  const int64_t e = dims.E / dims.part.size;
  Parameter p = matrix(name, {e, rows, cols}, dtypes);
  if (dims.part.size > 1) p.part = {{dims.E, rows, cols}, 0, dims.part.rank * e};
  return p;
}

}  // namespace

Experts::Experts(const std::string& prefix, ExpertDims dims, Dtypes dtypes)
    : dims_(dims),
      dtypes_(dtypes),
      gate_up_(expert_matrices(prefix + "gate_up_proj", dims, 2 * dims.F, dims.D, dtypes)),
      down_(expert_matrices(prefix + "down_proj", dims, dims.D, dims.F, dtypes)) {}

void Experts::declare_scratch(Book& book, int64_t max_rows, bool train) {
  const int64_t R = max_rows, D = dims_.D, F = dims_.F, S = dims_.part.size;
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kScratch, down_.name + ":" + what, dtype, shape);
  };
  book.declare(&scratch_.a_RF, dtypes_.operands, down_.name + ":a", dtypes_.act, {R, F});
  if (!train) return;
  declare(scratch_.da_RF, "da", dtypes_.act, {R, F});
  book.declare(&scratch_.dgu_RG, dtypes_.operands, down_.name + ":dgate_up", dtypes_.act, {R, 2 * F});
  if (!sums_apart()) return;
  declare(scratch_.gate_up_stack_SND, "gate_up_stack", dtypes_.acc, {S, 2 * F, D});
  declare(scratch_.down_stack_SDF, "down_stack", dtypes_.acc, {S, D, F});
}

void Experts::gate_up(Ctx& ctx, View gu_RG, View x_RD, const ExpertRows& rows) const {
  ctx.ops.grouped_matmul(ctx.stream, gu_RG, x_RD, gate_up_.value.t(), rows.offset_e1);
}

void Experts::down(Ctx& ctx, View y_RD, View gu_RG, View weight_R1, const ExpertRows& rows) const {
  const View a_RF = scratch_.a_RF.first(rows.count);
  ctx.ops.swiglu_forward(ctx.stream, a_RF, gu_RG, weight_R1.reshape({rows.count}), dims_.swiglu_limit);
  ctx.ops.grouped_matmul(ctx.stream, y_RD, a_RF, down_.value.t(), rows.offset_e1);
}

void Experts::backward_down(Ctx& ctx, View dweight_R1, View dy_RD, View gu_RG, View weight_R1,
                            const ExpertRows& rows) const {
  const int64_t R = rows.count;
  const View a_RF = scratch_.a_RF.first(R), da_RF = scratch_.da_RF.first(R), dgu_RG = scratch_.dgu_RG.first(R);
  ctx.ops.grouped_matmul(ctx.stream, da_RF, dy_RD, down_.value, rows.offset_e1);
  ctx.ops.swiglu_backward(ctx.stream, dgu_RG, dweight_R1.reshape({R}), a_RF, da_RF, gu_RG, weight_R1.reshape({R}),
                          dims_.swiglu_limit);
}

// grad += the products of the rows. Where sources are summed apart, the stack keeps those of an expert until all of its
// sources have come, which may take several rounds.
void Experts::add_products(Ctx& ctx, const Parameter& p, View stack_SNK, View dy_RN, View x_RK,
                           const ExpertRows& rows) const {
  if (!sums_apart()) return ctx.ops.grouped_matmul_dw(ctx.stream, p.grad, dy_RN, x_RK, rows.offset_e1, p.next_beta());
  if (p.next_beta() == 0) ctx.ops.fill(ctx.stream, p.grad, 0);
  const int64_t S = dims_.part.size, first = rows.exchange->first_block, end = rows.exchange->end_block;
  for (int64_t e = first / S; e * S < end; ++e) {
    const int64_t s = std::max(first - e * S, int64_t{0}), s_end = std::min(end - e * S, S);
    ctx.ops.grouped_matmul_dw(ctx.stream, stack_SNK.rows(s, s_end), dy_RN, x_RK,
                              rows.block_offset_B1.rows(e * S + s, e * S + s_end + 1), 0);
    if (s_end < S) continue;
    for (int64_t step = 1; step < S; step *= 2)
      for (int64_t i = 0; i + step < S; i += 2 * step)
        ctx.ops.add(ctx.stream, stack_SNK.rows(i, i + 1), stack_SNK.rows(i + step, i + step + 1), 1);
    ctx.ops.add(ctx.stream, p.grad.rows(e, e + 1), stack_SNK.first(1), 1);
  }
}

void Experts::backward_down_weight(Ctx& ctx, View dy_RD, const ExpertRows& rows) const {
  if (down_.grad.defined())
    add_products(ctx, down_, scratch_.down_stack_SDF, dy_RD, scratch_.a_RF.first(rows.count), rows);
}

void Experts::backward_gate_up_weight(Ctx& ctx, View x_RD, const ExpertRows& rows) const {
  if (gate_up_.grad.defined())
    add_products(ctx, gate_up_, scratch_.gate_up_stack_SND, scratch_.dgu_RG.first(rows.count), x_RD, rows);
}

void Experts::backward_input(Ctx& ctx, View dx_RD, const ExpertRows& rows) const {
  ctx.ops.grouped_matmul(ctx.stream, dx_RD, scratch_.dgu_RG.first(rows.count), gate_up_.value, rows.offset_e1);
}

}  // namespace temper::layers
