#include "model/block.h"

namespace temper::model {

using layers::Ctx;
using layers::DeviceLayout;
using layers::RotaryTable;

BlockDims block_dims(const Config& c, int64_t layer, const ModelPart& part) {
  const bool mtp = layer == c.num_hidden_layers;
  BlockDims dims{};
  dims.hyper = {c.hc_mult, c.hidden_size, c.hc_sinkhorn_iters, c.rms_norm_eps, c.hc_eps};
  auto& a = dims.attention;
  a.D = c.hidden_size, a.N = c.num_attention_heads, a.H = c.head_dim, a.Q = c.q_lora_rank;
  a.G = c.o_groups, a.O = c.o_lora_rank, a.eps = c.rms_norm_eps;
  a.rate = mtp ? 0 : c.compress_rate(layer), a.csa = !mtp && c.layer_types[layer] == AttentionKind::kCsa;
  a.num_ranks = part.cp_size, a.window = c.sliding_window;
  if (a.csa) {
    a.indexer = {c.hidden_size, c.q_lora_rank, c.index_n_heads, c.index_head_dim, c.index_topk, a.rate, c.rms_norm_eps};
    a.indexer.num_ranks = part.cp_size;
  }
  dims.moe = {c.hidden_size, c.moe_intermediate_size,      c.n_routed_experts,      c.num_experts_per_tok,
              c.vocab_size,  !mtp && c.is_hash_moe[layer], c.routed_scaling_factor, c.swiglu_limit};
  a.part = part.tensor();
  dims.moe.part = {part.ep_rank, part.ep_size, part.expert_rows, part.exact()};
  if (!mtp) dims.here = part.sites_of(layer);
  return dims;
}

Block::Block(const std::string& prefix, BlockDims dims, layers::Dtypes dtypes)
    : prefix_(prefix),
      dims_(dims),
      dtypes_(dtypes),
      attention_hyper_(prefix + "attn_hc.", dims.hyper, false, dtypes),
      moe_hyper_(prefix + "ffn_hc.", dims.hyper, false, dtypes),
      attention_norm_{fine_parameter(prefix + "input_layernorm.weight", {dims.hyper.D}, dtypes, layers::Init::kOnes),
                      dims.hyper.rms_eps},
      moe_norm_{fine_parameter(prefix + "post_attention_layernorm.weight", {dims.hyper.D}, dtypes, layers::Init::kOnes),
                dims.hyper.rms_eps},
      attention_(prefix + "self_attn.", dims.attention, dtypes),
      moe_(prefix + "mlp.", dims.moe, dtypes) {}

void Block::collect(layers::ParameterList& list, LayerSites of) {
  if (of.attention) attention_.collect(list);
  if (of.experts) moe_.collect(list);
  if (of.attention) list.push_back(&attention_norm_.w);
  if (of.experts) list.push_back(&moe_norm_.w);
  if (of.attention) attention_hyper_.collect(list);
  if (of.experts) moe_hyper_.collect(list);
}

void Block::declare_site(Book& book, SiteSaved& site, const layers::HyperConnection& hyper, const std::string& name,
                         int64_t max_tokens) const {
  const Shape shape{max_tokens, dims_.hyper.D};
  hyper.declare_saved(book, site.hyper, max_tokens);
  book.declare(&site.u_TD, TensorKind::kSaved, name + ":u", dtypes_.act, shape);
  book.declare(&site.h_TD, TensorKind::kSaved, name + ":h", dtypes_.act, shape);
  book.declare(&site.y_TD, TensorKind::kSaved, name + ":y", dtypes_.act, shape);
  book.declare(&site.rstd_T, TensorKind::kSaved, name + ":rstd", dtypes_.acc, {max_tokens});
}

void Block::declare_saved(Book& book, int64_t max_tokens) {
  const int64_t max_rows = tensor_part().piece(max_tokens);
  const auto [has_attention, has_experts] = dims_.here;
  if (has_attention) declare_site(book, saved_.attention_site, attention_hyper_, prefix_ + "attention_site", max_rows);
  if (has_experts) declare_site(book, saved_.moe_site, moe_hyper_, prefix_ + "moe_site", max_rows);
  if (has_attention && has_experts)
    book.declare(&saved_.x_mid_TMD, TensorKind::kSaved, prefix_ + "x_mid", dtypes_.act,
                 {max_rows, dims_.hyper.M, dims_.hyper.D});
  if (has_attention) attention_.declare_saved(book, saved_.attention, max_tokens);
  if (has_experts) moe_.declare_saved(book, saved_.moe, max_rows);
}

void Block::declare_choices(Book& book, int64_t max_tokens) {
  if (dims_.here.experts)
    book.declare(&choices_.expert_TK, TensorKind::kSaved, prefix_ + "choices:expert", DType::kI32,
                 {tensor_part().piece(max_tokens), dims_.moe.K});
  if (!dims_.here.attention || !attention_.indexer()) return;
  book.declare(&choices_.selected_TA, TensorKind::kSaved, prefix_ + "choices:selected", DType::kI32,
               {tensor_part().padded(max_tokens), dims_.attention.indexer.A});
}

void Block::declare_scratch(Book& book, int64_t max_tokens, int64_t num_threads, bool train) {
  const ScratchScope scope(book);
  const int64_t max_rows = tensor_part().piece(max_tokens);
  const auto [has_attention, has_experts] = dims_.here;
  if (train) {
    const Shape shape{max_rows, dims_.hyper.D};
    if (has_experts) {
      const ScratchScope same(book);  // one memory unless both are kept
      book.declare(&moe_dy_TD_, dtypes_.operands, prefix_ + "moe:dy", dtypes_.act, shape);
    }
    book.declare(&attention_dy_TD_, dtypes_.operands, prefix_ + "attention:dy", dtypes_.act, shape);
    book.declare(&dh_TD_, TensorKind::kScratch, prefix_ + "dh", dtypes_.acc, shape);
    if (has_attention) attention_hyper_.declare_scratch(book, max_rows);
    if (has_experts) moe_hyper_.declare_scratch(book, max_rows);
  }
  if (has_attention) attention_.declare_scratch(book, max_tokens, num_threads, train);
  if (has_experts) moe_.declare_scratch(book, max_rows, train);
}

Block::SiteSaved Block::first(const SiteSaved& site, int64_t T) {
  return {site.hyper.first(T), site.u_TD.first(T), site.h_TD.first(T), site.y_TD.first(T), site.rstd_T.first(T)};
}

Block::Choices Block::choices(int64_t num_tokens) const {
  const layers::TensorPart& part = tensor_part();
  Choices out;
  if (choices_.expert_TK.defined())
    out.expert_TK = choices_.expert_TK.first(part.end(num_tokens) - part.begin(num_tokens));
  if (choices_.selected_TA.defined()) out.selected_TA = choices_.selected_TA.first(num_tokens);
  return out;
}

void Block::attention_input(Ctx& ctx, View x_TMD) const {
  const auto site = first(saved_.attention_site, x_TMD.dim(0));
  attention_hyper_.pre(ctx, site.u_TD, x_TMD, site.hyper);
  attention_norm_.forward(ctx, site.h_TD, site.rstd_T, site.u_TD);
}

void Block::attention_output(Ctx& ctx, View x_mid_TMD, View x_TMD) const {
  const auto site = first(saved_.attention_site, x_TMD.dim(0));
  attention_hyper_.post(ctx, x_mid_TMD, x_TMD, site.y_TD, site.hyper);
}

void Block::experts(Ctx& ctx, View xo_TMD, View x_mid_TMD, View token_T, const layers::ChoiceRule& rule) const {
  const int64_t T = xo_TMD.dim(0);
  const auto site = first(saved_.moe_site, T);
  moe_hyper_.pre(ctx, site.u_TD, x_mid_TMD, site.hyper);
  moe_norm_.forward(ctx, site.h_TD, site.rstd_T, site.u_TD);
  moe_.forward(ctx, site.y_TD, site.h_TD, token_T, moe_.first(saved_.moe, T), choices_.expert_TK.first(T), rule);
  moe_hyper_.post(ctx, xo_TMD, x_mid_TMD, site.y_TD, site.hyper);
}

void Block::forward(Ctx& ctx, View xo_TMD, View x_TMD, const Choosing& choosing, const DeviceLayout& layout,
                    const RotaryTable& rotary) const {
  const int64_t P = x_TMD.dim(0), T = layout.num_tokens();
  View x_mid_TMD = x_TMD;
  if (dims_.here.attention) {
    x_mid_TMD = dims_.here.experts ? saved_.x_mid_TMD.first(P) : xo_TMD;
    attention_input(ctx, x_TMD);
    const auto site = first(saved_.attention_site, P);
    attention_.forward(ctx, site.y_TD, site.h_TD, attention_.first(saved_.attention, layout), choices(T).selected_TA,
                       choosing.entries, choosing.use, layout, rotary);
    attention_output(ctx, x_mid_TMD, x_TMD);
  }
  if (dims_.here.experts)
    experts(ctx, xo_TMD, x_mid_TMD, layout.token_T.rows(tensor_part().begin(T), tensor_part().end(T)),
            choosing.experts);
}

void Block::backward(Ctx& ctx, View dx_TMD, View x_TMD, layers::EntryUse use, const layers::Moe::Balance& balance,
                     const DeviceLayout& layout, const RotaryTable& rotary) const {
  const auto [has_attention, has_experts] = dims_.here;
  if (has_experts) backward_experts(ctx, dx_TMD, has_attention ? saved_.x_mid_TMD.first(x_TMD.dim(0)) : x_TMD, balance);
  if (has_attention) backward_attention(ctx, dx_TMD, x_TMD, use, layout, rotary);
}

void Block::backward_experts(Ctx& ctx, View dx_TMD, View x_mid_TMD, const layers::Moe::Balance& balance) const {
  const int64_t P = x_mid_TMD.dim(0);
  const auto site = first(saved_.moe_site, P);
  const View dh_TD = dh_TD_.first(P), dy_TD = moe_dy_TD_.first(P);
  moe_hyper_.backward_post(ctx, dy_TD, dx_TMD, x_mid_TMD, site.y_TD, site.hyper);
  moe_.backward(ctx, dh_TD, dy_TD, site.h_TD, moe_.first(saved_.moe, P), choices_.expert_TK.first(P), balance);
  moe_norm_.backward(ctx, dh_TD, dh_TD, site.u_TD, site.rstd_T);
  moe_hyper_.backward_pre(ctx, dx_TMD, dh_TD, x_mid_TMD, site.hyper);
}

void Block::backward_attention(Ctx& ctx, View dx_TMD, View x_TMD, layers::EntryUse use, const DeviceLayout& layout,
                               const RotaryTable& rotary) const {
  const int64_t P = x_TMD.dim(0);
  const auto site = first(saved_.attention_site, P);
  const View dh_TD = dh_TD_.first(P), dy_TD = attention_dy_TD_.first(P);
  attention_hyper_.backward_post(ctx, dy_TD, dx_TMD, x_TMD, site.y_TD, site.hyper);
  attention_.backward(ctx, dh_TD, dy_TD, site.h_TD, attention_.first(saved_.attention, layout),
                      choices(layout.num_tokens()).selected_TA, use, layout, rotary);
  attention_norm_.backward(ctx, dh_TD, dh_TD, site.u_TD, site.rstd_T);
  attention_hyper_.backward_pre(ctx, dx_TMD, dh_TD, x_TMD, site.hyper);
}

void Block::backward_indexer(Ctx& ctx, View loss_1, layers::EntryUse use, double coefficient,
                             const DeviceLayout& layout, const RotaryTable& rotary) const {
  if (!dims_.here.attention || !attention_.indexer()) return;
  const int64_t T = layout.num_tokens(), P = tensor_part().end(T) - tensor_part().begin(T);
  attention_.backward_indexer(ctx, loss_1, first(saved_.attention_site, P).h_TD,
                              attention_.first(saved_.attention, layout), choices(T).selected_TA, use, coefficient,
                              layout, rotary);
}

}  // namespace temper::model
