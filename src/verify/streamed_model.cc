#include "verify/streamed_model.h"

#include <algorithm>

#include "verify/streamed_mtp.h"

namespace temper::verify {
namespace {

using layers::Parameter;
using layers::ParameterList;

// Elements of the head and of its logits that are in memory at once; a chunk has at least one row of the vocabulary.
constexpr int64_t kHeadElements = 1 << 23;

model::ModelOptions options(layers::Precision precision, const layers::MicroBatch& tokens) {
  model::ModelOptions out;
  out.precision = precision;
  out.max_tokens = static_cast<int64_t>(tokens.tokens.size());
  out.train = false;
  return out;
}

void declare_parameters(Book& book, const ParameterList& list) {
  for (Parameter* p : list) book.declare(&p->value, TensorKind::kParameter, p->name, p->dtype, p->shape);
}

// The parameters between the last layer and the head.
ParameterList collapse_parameters(model::Model& model) {
  ParameterList list;
  model.impl().head_hyper.collect(list);
  list.push_back(&model.impl().norm.w);
  return list;
}

}  // namespace

void declare_layer(Book& book, model::Block& block, bool with_parameters, int64_t num_tokens) {
  if (with_parameters) {
    ParameterList list;
    block.collect(list);
    declare_parameters(book, list);
  }
  block.declare_choices(book, num_tokens);
  block.declare_saved(book, num_tokens);
  block.declare_scratch(book, num_tokens, 1, false);
}

void StreamedModel::declare_shared(Book& book, model::Model& model, View (&streams)[2]) {
  model::Model::Impl& m = model.impl();
  const model::Config& c = model.config();
  const int64_t T = model.options().max_tokens;
  m.main_rotary.declare(book, T, m.dtypes.acc);
  m.compress_rotary.declare(book, T, m.dtypes.acc);
  m.layout.declare(book, {T}, c.compress_rates());
  for (View& view : streams)
    book.declare(&view, TensorKind::kSaved, "streams", m.dtypes.act, {T, c.hc_mult, c.hidden_size});
  m.head_hyper.declare_saved(book, m.head_saved, T);
  book.declare(&m.v_TD, TensorKind::kSaved, "head:v", m.dtypes.act, {T, c.hidden_size});
  book.declare(&m.v_rstd_T, TensorKind::kSaved, "head:v_rstd", m.dtypes.acc, {T});
  book.declare(&m.y_TD, TensorKind::kSaved, "head:y", m.dtypes.act, {T, c.hidden_size});
  declare_parameters(book, collapse_parameters(model));
}

MemoryPlan StreamedModel::plan(const Weights& weights, layers::Precision precision, int64_t num_tokens) {
  const model::Config& config = weights.config();
  layers::MicroBatch tokens;
  tokens.tokens.resize(static_cast<size_t>(num_tokens));
  model::Model model(config, options(precision, tokens));
  View streams[2];
  Book shared;
  declare_shared(shared, model, streams);
  MemoryPlan out;
  out.shared_bytes = shared.total_bytes();
  const layers::Dtypes dtypes = model.impl().dtypes;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    model::Block block("", model::block_dims(config, layer), dtypes);
    Book book;
    declare_layer(book, block, true, num_tokens);
    out.largest_layer_bytes = std::max(out.largest_layer_bytes, book.total_bytes());
  }
  out.head_bytes = head_rows(config, num_tokens) *
                   (config.hidden_size * dtype_bytes(dtypes.act) + num_tokens * dtype_bytes(dtypes.acc));
  return out;
}

int64_t head_rows(const model::Config& config, int64_t num_tokens) {
  return std::clamp<int64_t>(kHeadElements / (config.hidden_size + num_tokens), 1, config.vocab_size);
}

StreamedModel::StreamedModel(const backend::Backend& backend, backend::Stream* stream, const Weights& weights,
                             layers::Precision precision, layers::MicroBatch tokens)
    : weights_(weights),
      tokens_(std::move(tokens)),
      model_(weights.config(), options(precision, tokens_)),
      ctx_{backend.ops, backend.device, stream, layers::act_dtype(precision), layers::acc_dtype(precision)} {
  declare_shared(book_, model_, streams_);
  arena_ = std::make_unique<backend::Arena>(backend.device, book_);
  model::Model::Impl& m = model_.impl();
  m.main_rotary.prepare(ctx_);
  m.compress_rotary.prepare(ctx_);
  m.layout.upload(ctx_.device, ctx_.stream, tokens_,
                  layers::make_layout(tokens_.cu_seqlens, config().sliding_window, config().compress_rates()));
}

void StreamedModel::embed() {
  const EmbeddingRows embedding(ctx_, weights_, tokens_.tokens);
  Book book;
  View row_T;
  book.declare(&row_T, TensorKind::kInput, "embedding row of a token", DType::kI32, {num_tokens()});
  const backend::Arena arena(ctx_.device, book);
  ctx_.device.copy_to_device(ctx_.stream, row_T, embedding.rows().data());
  ctx_.ops.embedding_forward(ctx_.stream, streams(), embedding.table_UD(), row_T);
}

View StreamedModel::collapse() {
  weights_.load(ctx_, collapse_parameters(model_));
  model_.impl().collapse(ctx_, streams());
  return model_.impl().y_TD.first(num_tokens());
}

Head::Head(StreamedModel& model, const View& y_TD) : model_(model), y_TD_(y_TD) {
  const int64_t chunk = head_rows(model.config(), model.num_tokens());
  book_.declare(&head_CD_, TensorKind::kParameter, "head rows", model.dtypes().act,
                {chunk, model.config().hidden_size});
  book_.declare(&logits_, TensorKind::kScratch, "logits", model.dtypes().acc, {y_TD.dim(0) * chunk});
  arena_ = std::make_unique<backend::Arena>(model.ctx().device, book_);
}

int64_t Head::num_chunks() const { return (model_.config().vocab_size + head_CD_.dim(0) - 1) / head_CD_.dim(0); }

View Head::logits(int64_t chunk) {
  const int64_t begin = first_id(chunk), T = y_TD_.dim(0);
  const int64_t count = std::min(head_CD_.dim(0), model_.config().vocab_size - begin);
  model_.weights().load_rows(model_.ctx(), head_CD_.first(count), "lm_head.weight", begin, begin + count);
  const View logits_TC = logits_.first(T * count).reshape({T, count});
  model_.ctx().ops.matmul(model_.ctx().stream, logits_TC, y_TD_, head_CD_.first(count).t(), 0);
  return logits_TC;
}

LoadedLayer::LoadedLayer(StreamedModel& model, int64_t layer)
    : model_(model),
      layer_(layer),
      prefix_("model.layers." + std::to_string(layer) + "."),
      block_(prefix_, model::block_dims(model.config(), layer), model.dtypes()) {
  block_.collect(parameters_);
  declare_layer(book_, block_, true, model.num_tokens());
  arena_ = std::make_unique<backend::Arena>(model.ctx().device, book_);
  model.weights().load(model.ctx(), parameters_);
}

const View& LoadedLayer::value(std::string_view leaf) const {
  for (const Parameter* parameter : parameters_)
    if (parameter->name.ends_with(leaf)) return parameter->value;
  CHECK(false, prefix_, leaf);
}

void LoadedLayer::forward(const View& xo_TMD, const View& x_TMD) {
  block_.forward(model_.ctx(), xo_TMD, x_TMD, {}, model_.layout(), model_.rotary(layer_));
}

}  // namespace temper::verify
