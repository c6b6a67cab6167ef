#include "model/model.h"

#include <algorithm>

#include "model/model_impl.h"

namespace temper::model {
namespace {

using layers::Ctx;
using layers::Parameter;

layers::RotarySpec rotary_spec(const Rope& rope, int64_t dims) {
  return {dims,
          rope.rope_theta,
          rope.yarn,
          rope.factor,
          rope.beta_fast,
          rope.beta_slow,
          rope.original_max_position_embeddings};
}

layers::Dtypes dtypes_of(layers::Precision precision) {
  return {layers::act_dtype(precision), layers::acc_dtype(precision)};
}

}  // namespace

Model::Impl::Impl(const Config& c, const ModelOptions& options)
    : dtypes(dtypes_of(options.precision)),
      keep(make_keep_plan(options.recompute, c.num_hidden_layers, options.train)),
      embedding(matrix("model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, dtypes)),
      head_hyper("model.hc_head.", {c.hc_mult, c.hidden_size, c.hc_sinkhorn_iters, c.rms_norm_eps, c.hc_eps}, true,
                 dtypes),
      norm{fine_parameter("model.norm.weight", {c.hidden_size}, dtypes, layers::Init::kOnes), c.rms_norm_eps},
      lm_head(c.vocab_size, c.hidden_size, std::min(options.logit_chunk, options.max_tokens), dtypes),
      main_rotary("rotary:main", rotary_spec(c.main_rope, c.qk_rope_head_dim)),
      compress_rotary("rotary:compress", rotary_spec(c.compress_rope, c.qk_rope_head_dim)) {
  for (int64_t l = 0; l < c.num_hidden_layers; ++l)
    blocks.push_back(std::make_unique<Block>("model.layers." + std::to_string(l) + ".", block_dims(c, l), dtypes));
  stream_buffers.resize(keep.num_stream_buffers);
}

void Model::Impl::collapse(Ctx& ctx, View x_TMD) const {
  const int64_t T = x_TMD.dim(0);
  head_hyper.pre(ctx, v_TD.first(T), x_TMD, head_saved.first(T));
  norm.forward(ctx, y_TD.first(T), v_rstd_T.first(T), v_TD.first(T));
}

void Model::Impl::rebuild(Ctx& ctx, const Config& config, int64_t layer) const {
  blocks[layer]->forward(ctx, streams(layer + 1), streams(layer), replay(), layout, rotary(config, layer));
}

Model::Model(Config config, ModelOptions options) : config_(std::move(config)), options_(options) {
  CHECK(options_.max_tokens > 0);
  impl_ = std::make_unique<Impl>(config_, options_);
  parameters_.push_back(&impl_->embedding);
  for (auto& block : impl_->blocks) block->collect(parameters_);
  parameters_.push_back(&impl_->norm.w);
  impl_->head_hyper.collect(parameters_);
  impl_->lm_head.collect(parameters_);
}

Model::~Model() = default;

void Model::declare(Book& book) {
  const int64_t T = options_.max_tokens, M = config_.hc_mult, D = config_.hidden_size;
  Impl& m = *impl_;
  for (Parameter* p : parameters_) {
    book.declare(&p->value, TensorKind::kParameter, p->name, p->dtype, p->shape);
    if (!p->trainable || !options_.train) continue;
    if (p->dtype != m.dtypes.acc) book.declare(&p->master, TensorKind::kMaster, p->name, m.dtypes.acc, p->shape);
    book.declare(&p->grad, TensorKind::kGradient, p->name, m.dtypes.acc, p->shape);
    if (!options_.optimizer) continue;
    book.declare(&p->m, TensorKind::kMoment, p->name + ":m", m.dtypes.acc, p->shape);
    book.declare(&p->v, TensorKind::kMoment, p->name + ":v", m.dtypes.acc, p->shape);
  }

  const int64_t positions = options_.max_document > 0 ? options_.max_document : T;
  m.main_rotary.declare(book, positions, m.dtypes.acc);
  m.compress_rotary.declare(book, positions, m.dtypes.acc);
  m.layout.declare(book, T, config_.compress_rates());
  m.lm_head.declare_inputs(book, T);

  for (auto& buffer : m.stream_buffers) book.declare(&buffer, TensorKind::kSaved, "streams", m.dtypes.act, {T, M, D});
  for (auto& block : m.blocks) block->declare_choices(book, T);
  m.head_hyper.declare_saved(book, m.head_saved, T);
  book.declare(&m.v_TD, TensorKind::kSaved, "head:v", m.dtypes.act, {T, D});
  book.declare(&m.v_rstd_T, TensorKind::kSaved, "head:v_rstd", m.dtypes.acc, {T});
  book.declare(&m.y_TD, TensorKind::kSaved, "head:y", m.dtypes.act, {T, D});
  const int64_t shared = book.mark(TensorKind::kSaved);
  for (auto& block : m.blocks) {
    if (m.keep.share_saved) book.rewind(TensorKind::kSaved, shared);
    block->declare_saved(book, T);
  }
  book.seal(TensorKind::kSaved);

  if (options_.train) {
    book.declare(&m.dx_TMD, TensorKind::kScratch, "dstreams", m.dtypes.acc, {T, M, D});
    book.declare(&m.dv_TD, TensorKind::kScratch, "head:dv", m.dtypes.acc, {T, D});
  }
  const ScratchScope scope(book);
  for (auto& block : m.blocks) block->declare_scratch(book, T, options_.num_threads, options_.train);
  if (options_.train) m.head_hyper.declare_scratch(book, T);
  m.lm_head.declare_scratch(book, options_.train);
}

void Model::prepare(Ctx& ctx) {
  for (Parameter* p : parameters_)
    if (!p->master.defined() && p->dtype == impl_->dtypes.acc && p->trainable) p->master = p->value;
  impl_->main_rotary.prepare(ctx);
  impl_->compress_rotary.prepare(ctx);
}

void Model::refresh_values(Ctx& ctx) {
  for (Parameter* p : parameters_)
    if (p->master.defined() && p->master.raw() != p->value.raw()) ctx.ops.copy(ctx.stream, p->value, p->master);
}

void Model::zero_gradients(Ctx& ctx) {
  for (Parameter* p : parameters_)
    if (p->grad.defined()) ctx.ops.fill(ctx.stream, p->grad, 0);
}

void Model::forward(Ctx& ctx, const layers::MicroBatch& batch, bool given_choices) {
  Impl& m = *impl_;
  CHECK(!batch.tokens.empty() && batch.cu_seqlens.back() == static_cast<int64_t>(batch.tokens.size()));
  m.layout.upload(ctx.device, ctx.stream, batch,
                  layers::make_layout(batch.cu_seqlens, config_.sliding_window, config_.compress_rates()));
  m.targets = batch.targets;
  m.given = given_choices;
  ctx.ops.embedding_forward(ctx.stream, m.streams(0), m.embedding.value, m.layout.token_T);
  for (int64_t l = 0; l < config_.num_hidden_layers; ++l)
    m.blocks[l]->forward(ctx, m.streams(l + 1), m.streams(l),
                         given_choices ? layers::ChoiceSource::kGiven : layers::ChoiceSource::kCompute, m.layout,
                         m.rotary(config_, l));
  m.collapse(ctx, m.streams(config_.num_hidden_layers));
}

TokenResults Model::logprobs(Ctx& ctx) {
  Impl& m = *impl_;
  TokenResults results;
  m.lm_head.logprobs(ctx, m.y_TD.first(m.layout.num_tokens()), m.targets, results.logp_T, results.best_T);
  return results;
}

void Model::logits(Ctx& ctx, int64_t begin, int64_t end, std::vector<double>& logits_TV) {
  impl_->lm_head.logits(ctx, impl_->y_TD.first(impl_->layout.num_tokens()), begin, end, logits_TV);
}

void Model::backward(Ctx& ctx, std::span<const double> dlogp_T) {
  Impl& m = *impl_;
  const int64_t T = m.layout.num_tokens(), L = config_.num_hidden_layers;
  CHECK(options_.train && static_cast<int64_t>(dlogp_T.size()) == T, dlogp_T.size(), T);
  const View dx_TMD = m.dx_TMD.first(T), dv_TD = m.dv_TD.first(T);

  ctx.ops.fill(ctx.stream, dv_TD, 0);
  m.lm_head.backward(ctx, dv_TD, m.y_TD.first(T), dlogp_T);
  m.norm.backward(ctx, dv_TD, dv_TD, m.v_TD.first(T), m.v_rstd_T.first(T));
  ctx.ops.fill(ctx.stream, dx_TMD, 0);
  m.head_hyper.backward_pre(ctx, dx_TMD, dv_TD, m.streams(L), m.head_saved.first(T));

  const int64_t segment = m.keep.segment;
  for (int64_t l = L - 1; l >= 0; --l) {
    const bool is_last = l == L - 1;
    if (segment > 1 && l % segment == segment - 1 && !is_last) {
      for (int64_t k = l - segment + 1; k < l; ++k) m.rebuild(ctx, config_, k);
    }
    if (m.keep.share_saved && !is_last) m.rebuild(ctx, config_, l);
    m.blocks[l]->backward(ctx, dx_TMD, m.streams(l), m.replay(), m.layout, m.rotary(config_, l));
  }
  ctx.ops.embedding_backward(ctx.stream, m.embedding.grad, dx_TMD, m.layout.token_T);
}

Model::Choices Model::choices(int64_t layer) const {
  const auto chosen = impl_->blocks[layer]->choices(impl_->layout.num_tokens());
  return {chosen.expert_TK, chosen.selected_TA};
}

View Model::streams(int64_t layer) const { return impl_->streams(layer); }

}  // namespace temper::model
