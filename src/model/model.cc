#include "model/model.h"

#include <algorithm>

#include "base/error.h"
#include "model/freeze.h"
#include "model/model_impl.h"
#include "model/parameter_memory.h"

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

layers::Dtypes dtypes_of(const ModelOptions& options) {
  return {layers::act_dtype(options.precision), layers::acc_dtype(options.precision),
          options.part.weights_later ? TensorKind::kSaved : TensorKind::kScratch};
}

void check_part(const ModelOptions& options, const Config& c) {
  const ModelPart& part = options.part;
  if (part.ep_size < 1 || c.n_routed_experts % part.ep_size != 0 || part.ep_rank < 0 || part.ep_rank >= part.ep_size)
    fail(ErrorCode::kInvalidArgument,
         "rank {} of {} for the experts was asked for; the {} experts of a layer must be "
         "divisible by the number of ranks",
         part.ep_rank, part.ep_size, c.n_routed_experts);
  CHECK(part.cp_size > 0 && part.cp_rank >= 0 && part.cp_rank < part.cp_size, part.cp_rank, part.cp_size);
  const int64_t rows = options.own_rows();
  const int64_t least = layers::most_expert_rows({}, rows, c.n_routed_experts, c.num_experts_per_tok);
  if (part.ep_size > 1 && part.expert_rows > 0 && part.expert_rows < least)
    fail(ErrorCode::kInvalidArgument,
         "expert_rows is {}; {} tokens with {} experts each need at least {}, as many as without expert parallelism",
         part.expert_rows, rows, c.num_experts_per_tok, least);
}

}  // namespace

Model::Impl::Impl(const Config& c, const ModelOptions& options)
    : dtypes(dtypes_of(options)),
      tensor_part(options.part.tensor()),
      embedding(c.vocab_size, c.hidden_size, dtypes, options.part.tensor()),
      head_hyper("model.hc_head.", {c.hc_mult, c.hidden_size, c.hc_sinkhorn_iters, c.rms_norm_eps, c.hc_eps}, true,
                 dtypes),
      norm{fine_parameter("model.norm.weight", {c.hidden_size}, dtypes, layers::Init::kOnes), c.rms_norm_eps},
      lm_head(c.vocab_size, c.hidden_size, std::min(options.logit_chunk, options.rows().max_rows), dtypes,
              options.part.tensor()),
      main_rotary("rotary:main", rotary_spec(c.main_rope, c.qk_rope_head_dim)),
      compress_rotary("rotary:compress", rotary_spec(c.compress_rope, c.qk_rope_head_dim)) {
  for (int64_t l = 0; l < c.num_hidden_layers; ++l)
    blocks.push_back(
        std::make_unique<Block>("model.layers." + std::to_string(l) + ".", block_dims(c, l, options.part), dtypes));
  for (const SiteRange& sites :
       options.part.chunks.empty() ? std::vector<SiteRange>{{0, 2 * c.num_hidden_layers}} : options.part.chunks) {
    Chunk& chunk = chunks.emplace_back();
    chunk.sites = sites;
    chunk.keep = make_keep_plan(options.recompute, sites.end_layer() - sites.first_layer(), options.train);
    chunk.stream_buffers.resize(chunk.keep.num_stream_buffers);
  }
  if (options.mtp) {
    if (c.num_nextn_predict_layers != 1) {
      fail(ErrorCode::kInvalidArgument,
           "multi-token prediction was asked for, but config.json has num_nextn_predict_layers = {}; a V4 model that "
           "can "
           "be trained with it has 1",
           c.num_nextn_predict_layers);
    }
    with_mtp = true;
    mtp = std::make_unique<Mtp>(c, dtypes, options.part);
  }
  counted_rows_L.assign(num_blocks(), 0);
}

// What stands behind the main layers.
void Model::Impl::collect_ends(layers::ParameterList& list) {
  list.push_back(&norm.w);
  head_hyper.collect(list);
  lm_head.collect(list);
  if (mtp) mtp->collect(list);
}

namespace {

bool is_indexer(const Parameter& p) { return p.name.find(".indexer.") != std::string::npos; }

void choose_trainable(const std::vector<Parameter*>& parameters, const ModelOptions& options) {
  for (Parameter* p : parameters) {
    if (options.indexer == IndexerUse::kFrozen && is_indexer(*p)) p->trainable = false;
    if (options.indexer == IndexerUse::kWarmUp && !is_indexer(*p)) p->trainable = false;
  }
  freeze(parameters, options.frozen);
}

}  // namespace

Model::Model(Config config, ModelOptions options) : config_(std::move(config)), options_(std::move(options)) {
  CHECK(options_.max_tokens > 0);
  check_part(options_, config_);
  impl_ = std::make_unique<Impl>(config_, options_);
  Impl& m = *impl_;
  m.embedding.collect(parameters_);
  std::vector<size_t> block_ends;
  for (auto& block : m.blocks) {
    block->collect(parameters_);
    block_ends.push_back(parameters_.size());
  }
  m.collect_ends(parameters_);
  choose_trainable(parameters_, options_);
  m.lowest_trained = m.embedding.w.trainable ? -1 : config_.num_hidden_layers + 1;
  for (size_t i = 1; i < parameters_.size() && m.lowest_trained > config_.num_hidden_layers; ++i) {
    if (!parameters_[i]->trainable || is_indexer(*parameters_[i])) continue;
    m.lowest_trained = std::upper_bound(block_ends.begin(), block_ends.end(), i) - block_ends.begin();
  }
  m.attends_to_all = options_.indexer == IndexerUse::kWarmUp;
  m.entry_uses.resize(config_.num_hidden_layers);
  m.indexer_is_trained = std::any_of(parameters_.begin(), parameters_.end(),
                                     [](const Parameter* p) { return p->trainable && is_indexer(*p); });
  drop_other_stages();
  share_parameters(parameters_, options_);
  m.units = parameter_units(parameters_, config_.num_hidden_layers, m.with_mtp);
}

// Until here every rank knows the whole model; now its list is that of what it has. The prediction block reads the
// embedding, too.
void Model::drop_other_stages() {
  Impl& m = *impl_;
  if (!m.has_last()) m.mtp.reset();
  parameters_.clear();
  if (m.has_first() || m.mtp) m.embedding.collect(parameters_);
  for (auto& block : m.blocks) block->collect(parameters_, block->here());
  if (m.has_last()) m.collect_ends(parameters_);
}

Model::~Model() = default;

void Model::declare(Book& book) {
  const layers::RowCapacity rows = options_.rows();
  const int64_t T = rows.max_rows, P = options_.own_rows(), D = config_.hidden_size;
  Impl& m = *impl_;
  declare_parameters(book, m.units, options_, m.dtypes.acc);

  const int64_t positions = options_.max_document > 0 ? options_.max_document : options_.max_tokens;
  m.main_rotary.declare(book, positions, m.dtypes.acc);
  m.compress_rotary.declare(book, positions, m.dtypes.acc);
  m.book = &book;
  m.layout.declare(book, rows, config_.compress_rates());
  m.parked.resize(options_.part.num_slots);
  if (options_.part.weights_later) m.later.resize(options_.part.num_slots);
  for (size_t slot = 1; slot < m.parked.size(); ++slot) {
    m.parked[slot].layout.declare(book, rows, config_.compress_rates());
    m.parked[slot].entry_uses.resize(config_.num_hidden_layers);
  }
  if (m.has_last()) m.lm_head.declare_saved(book, m.lm_saved, "lm_head", T);
  if (m.mtp) m.lm_head.declare_saved(book, m.mtp_lm_saved, "mtp.0:lm_head", T);
  const int64_t L = m.num_blocks();
  book.declare(&m.given_expert_TK, TensorKind::kInput, "given:expert", DType::kI32, {T, config_.num_experts_per_tok});
  book.declare(&m.given_selected_TA, TensorKind::kInput, "given:selected", DType::kI32,
               {T, std::max<int64_t>(config_.index_topk, 1)});
  if (options_.train) {
    book.declare(&m.load_LE, TensorKind::kInput, "expert loads", DType::kI32, {L, config_.n_routed_experts});
    book.declare(&m.entropy_L, TensorKind::kInput, "router entropies", m.dtypes.acc, {L});
    book.declare(&m.clamped_L3, TensorKind::kInput, "clamp counts", DType::kI64, {L, 3});
    book.declare(&m.balance_L, TensorKind::kInput, "balance losses", m.dtypes.acc, {L});
    book.declare(&m.indexer_L, TensorKind::kInput, "indexer losses", m.dtypes.acc, {L});
  }

  const int64_t slot = book.mark(TensorKind::kSaved);
  for (size_t chunk = 0; chunk < m.chunks.size(); ++chunk) {
    book.rewind(TensorKind::kSaved, slot);  // which holds any of the chunks
    declare_saved(book, chunk);
  }
  book.seal(TensorKind::kSaved);
  book.replicate(TensorKind::kSaved, options_.part.num_slots);

  if (options_.train) {
    book.declare(&m.dx_TMD, TensorKind::kScratch, "dstreams", m.dtypes.acc, {P, config_.hc_mult, D});
    if (m.has_last()) book.declare(&m.dv_TD, TensorKind::kScratch, "head:dv", m.dtypes.acc, {P, D});
    if (m.mtp) book.declare(&m.mtp_dv_TD, TensorKind::kScratch, "mtp.0:head:dv", m.dtypes.acc, {P, D});
  }
  const ScratchScope scope(book);
  for (int64_t l = 0; l < config_.num_hidden_layers; ++l)
    if (m.here(l).any()) m.blocks[l]->declare_scratch(book, T, options_.num_threads, options_.train);
  if (m.mtp) m.mtp->declare_scratch(book, T, options_.num_threads, options_.train);
  if (m.has_first() || m.mtp) m.embedding.declare_scratch(book, T, options_.train);
  if (!m.has_last()) return;
  if (options_.train) m.head_hyper.declare_scratch(book, P);
  m.lm_head.declare_scratch(book, T, options_.train);
}

void Model::declare_saved(Book& book, size_t chunk) {
  const int64_t T = options_.rows().max_rows, P = options_.own_rows();
  const int64_t M = config_.hc_mult, D = config_.hidden_size;
  Impl& m = *impl_;
  Impl::Chunk& c = m.chunks[chunk];
  for (auto& buffer : c.stream_buffers) book.declare(&buffer, TensorKind::kSaved, "streams", m.dtypes.act, {P, M, D});
  const int64_t first = c.sites.first_layer(), end = c.sites.end_layer();
  for (int64_t l = first; l < end; ++l) m.blocks[l]->declare_choices(book, T);
  if (m.is_last(c)) {
    m.head_hyper.declare_saved(book, m.head_saved, P);
    book.declare(&m.v_TD, TensorKind::kSaved, "head:v", m.dtypes.act, {P, D});
    book.declare(&m.v_rstd_T, TensorKind::kSaved, "head:v_rstd", m.dtypes.acc, {P});
    book.declare(&m.y_TD, TensorKind::kSaved, "head:y", m.dtypes.act, {P, D});
    if (m.mtp) m.mtp->declare_saved(book, T);
  }
  const int64_t shared = book.mark(TensorKind::kSaved);
  for (int64_t l = first; l < end; ++l) {
    if (c.keep.share_saved) book.rewind(TensorKind::kSaved, shared);
    m.blocks[l]->declare_saved(book, T);
  }
}

void Model::prepare(Ctx& ctx) {
  bind_parameters(impl_->units, impl_->dtypes.acc);
  impl_->main_rotary.prepare(ctx);
  impl_->compress_rotary.prepare(ctx);
}

void Model::refresh_values(Ctx& ctx) {
  for (Parameter* p : parameters_)
    if (p->master.defined() && p->master.raw() != p->owned_value().raw())
      ctx.ops.copy(ctx.stream, p->owned_value(), p->master);
  weights_updated(ctx);
}

}  // namespace temper::model
