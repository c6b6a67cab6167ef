// Routing on the CPU: splits tokens over threads and calls the kernels of the best instruction level. f64 operands go
// to the scalar reference, as does router_bias_update, of a few hundred elements a step. combine lives with the other
// row movements (rows_movement.cc).
#include "backend/cpu/moe.h"

#include "backend/cpu/cpu_internal.h"

#define TEMPER_KERNELS "backend/cpu/moe_kernels.inc"
#include "backend/cpu/tile_for_each_isa.h"
#include "backend/registry.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

constexpr int64_t kGrainTokens = 64;

void router_topk(Stream* stream, Out index_TK, In z_TE, In bias_E) {
  if (z_TE.dtype != DType::kF32) return cpu_reference().ops.router_topk(stream, index_TK, z_TE, bias_E);
  const int64_t chosen = index_TK.dim(1), experts = z_TE.dim(1);
  CHECK(chosen <= experts, chosen, experts);
  const auto kernel = TEMPER_BEST_ISA(router_topk_tokens);
  parallel_for(index_TK.dim(0), kGrainTokens, [&](int64_t begin, int64_t end, int) {
    kernel(begin, end, experts, chosen, index_TK.data<int32_t>(), z_TE.data<float>(), bias_E.data<float>());
  });
}

void router_hash(Stream*, Out index_TK, In table_VK, In token_T) {
  const int64_t chosen = index_TK.dim(1), vocabulary = table_VK.dim(0);
  const int64_t* table = table_VK.data<int64_t>();
  const int32_t* token = token_T.data<int32_t>();
  int32_t* index = index_TK.data<int32_t>();
  for (int64_t t = 0; t < index_TK.dim(0); ++t) {
    const int64_t row = token[t];
    CHECK(row >= 0 && row < vocabulary, t, row, vocabulary);
    for (int64_t k = 0; k < chosen; ++k) index[t * chosen + k] = static_cast<int32_t>(table[row * chosen + k]);
  }
}

void router_weights_forward(Stream* stream, Out weight_TK, In z_TE, In index_TK, double scaling) {
  if (z_TE.dtype != DType::kF32)
    return cpu_reference().ops.router_weights_forward(stream, weight_TK, z_TE, index_TK, scaling);
  const auto kernel = TEMPER_BEST_ISA(router_weights_forward_tokens);
  parallel_for(index_TK.dim(0), kGrainTokens, [&](int64_t begin, int64_t end, int) {
    kernel(begin, end, z_TE.dim(1), index_TK.dim(1), weight_TK.data<float>(), z_TE.data<float>(),
           index_TK.data<int32_t>(), static_cast<float>(scaling));
  });
}

void router_weights_backward(Stream* stream, Out dz_TE, In dweight_TK, In weight_TK, In z_TE, In index_TK,
                             double scaling, InOut balance_1, double balance, In load_E, int64_t num_tokens) {
  if (z_TE.dtype != DType::kF32)
    return cpu_reference().ops.router_weights_backward(stream, dz_TE, dweight_TK, weight_TK, z_TE, index_TK, scaling,
                                                       balance_1, balance, load_E, num_tokens);
  const int64_t num_rows = index_TK.dim(0), experts = z_TE.dim(1);
  if (num_rows == 0) return;
  RouterBackward operands{.dz = dz_TE.raw(),
                          .dweight = dweight_TK.data<float>(),
                          .weight = weight_TK.data<float>(),
                          .z = z_TE.data<float>(),
                          .index = index_TK.data<int32_t>(),
                          .experts = experts,
                          .chosen = index_TK.dim(1),
                          .scaling = static_cast<float>(scaling),
                          .frequency = nullptr,
                          .balance = 0,
                          .balance_loss = nullptr};
  if (balance > 0) {
    CHECK(num_tokens >= num_rows && load_E.size() == experts, num_tokens, num_rows, load_E.to_string());
    operands.balance = static_cast<float>(balance / static_cast<double>(num_tokens));
    const int32_t* load = load_E.data<int32_t>();
    float* frequency = call_floats(round_up(experts, 16) + num_rows);
    const double even = static_cast<double>(index_TK.dim(1) * num_tokens) / static_cast<double>(experts);
    for (int64_t e = 0; e < experts; ++e) frequency[e] = static_cast<float>(load[e] / even);
    operands.frequency = frequency;
    operands.balance_loss = frequency + round_up(experts, 16);
  }
  const auto kernel = dz_TE.dtype == DType::kF32 ? TEMPER_BEST_ISA(router_weights_backward_tokens<float>)
                                                 : TEMPER_BEST_ISA(router_weights_backward_tokens<bf16>);
  parallel_for(num_rows, kGrainTokens, [&](int64_t begin, int64_t end, int) { kernel(begin, end, operands); });
  if (operands.frequency == nullptr || !balance_1.defined()) return;
  double total = 0;
  for (int64_t t = 0; t < num_rows; ++t) total += operands.balance_loss[t];
  *balance_1.data<float>() += static_cast<float>(total / static_cast<double>(num_tokens));
}

void router_entropy(Stream* stream, InOut entropy_1, In z_TE) {
  if (z_TE.dtype != DType::kF32) return cpu_reference().ops.router_entropy(stream, entropy_1, z_TE);
  const int64_t num_tokens = z_TE.dim(0), experts = z_TE.dim(1);
  float* entropy = call_floats(num_tokens);
  const auto kernel = TEMPER_BEST_ISA(router_entropy_tokens);
  parallel_for(num_tokens, kGrainTokens,
               [&](int64_t begin, int64_t end, int) { kernel(begin, end, experts, entropy, z_TE.data<float>()); });
  double total = 0;
  for (int64_t t = 0; t < num_tokens; ++t) total += entropy[t];
  *entropy_1.data<float>() += static_cast<float>(total);
}

void expert_load(Stream*, InOut load_E, In index_TK) {
  const int32_t* index = index_TK.data<int32_t>();
  for (int64_t i = 0; i < index_TK.size(); ++i) {
    CHECK(index[i] >= 0 && index[i] < load_E.dim(0), i, index[i], load_E.to_string());
    ++load_E.data<int32_t>()[index[i]];
  }
}

void override_rows(Stream*, InOut index_TK, In given_TK) {
  const int64_t chosen = index_TK.dim(1);
  CHECK(given_TK.shape == index_TK.shape, given_TK.to_string(), index_TK.to_string());
  const int32_t* given = given_TK.data<int32_t>();
  for (int64_t t = 0; t < index_TK.dim(0); ++t)
    if (given[t * chosen] >= 0) std::copy_n(given + t * chosen, chosen, index_TK.data<int32_t>() + t * chosen);
}

// A counting sort: how many pairs of each expert, where its rows begin, then every pair to its row in ascending order.
void dispatch_plan(Stream*, Out offset_E1, Out row_token_R, Out row_slot_R, Out slot_row_TK, In index_TK,
                   int64_t alignment) {
  const int64_t experts = offset_E1.dim(0) - 1, chosen = index_TK.dim(1), pairs = index_TK.size();
  const int64_t num_rows = row_slot_R.dim(0);
  CHECK(alignment >= 1 && num_rows >= pairs + experts * (alignment - 1), num_rows, pairs, experts, alignment);
  const int32_t* index = index_TK.data<int32_t>();
  int32_t *offset = offset_E1.data<int32_t>(), *slot_row = slot_row_TK.data<int32_t>();
  int32_t *row_token = row_token_R.data<int32_t>(), *row_slot = row_slot_R.data<int32_t>();
  std::vector<int64_t> next(experts, 0);  // first the counts, then the next free row of each expert
  for (int64_t i = 0; i < pairs; ++i) {
    const int64_t expert = index[i];
    CHECK(expert >= 0 && expert < experts, i, expert, experts);
    ++next[expert];
  }
  int64_t row = 0;
  for (int64_t e = 0; e < experts; ++e) {
    offset[e] = static_cast<int32_t>(row);
    row += round_up(std::exchange(next[e], row), alignment);
  }
  offset[experts] = static_cast<int32_t>(row);
  std::fill_n(row_token, num_rows, -1);
  std::fill_n(row_slot, num_rows, -1);
  for (int64_t t = 0, i = 0; t < index_TK.dim(0); ++t) {
    for (int64_t k = 0; k < chosen; ++k, ++i) {
      const int64_t to = next[index[i]]++;
      row_token[to] = static_cast<int32_t>(t);
      row_slot[to] = static_cast<int32_t>(i);
      slot_row[i] = static_cast<int32_t>(to);
    }
  }
}

}  // namespace

void register_moe(OpTable& ops) {
  ops.router_topk = router_topk;
  ops.router_hash = router_hash;
  ops.router_weights_forward = router_weights_forward;
  ops.router_weights_backward = router_weights_backward;
  ops.router_entropy = router_entropy;
  ops.expert_load = expert_load;
  ops.override_rows = override_rows;
  ops.dispatch_plan = dispatch_plan;
}

}  // namespace temper::backend
