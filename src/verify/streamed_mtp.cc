#include "verify/streamed_mtp.h"

#include <map>

#include "backend/registry.h"

namespace temper::verify {

using layers::Parameter;
using layers::ParameterList;

EmbeddingRows::EmbeddingRows(layers::Ctx& ctx, const Weights& weights, const std::vector<int32_t>& tokens) {
  std::map<int32_t, int32_t> row_of;
  for (const int32_t token : tokens) row_of.emplace(token, 0);
  const auto& config = weights.config();
  book_.declare(&table_UD_, TensorKind::kParameter, "embedding rows", ctx.act,
                {static_cast<int64_t>(row_of.size()), config.hidden_size});
  arena_ = std::make_unique<backend::Arena>(ctx.device, book_);
  int32_t row = 0;
  for (auto& [token, at] : row_of) {
    weights.load_rows(ctx, table_UD_.rows(row, row + 1), "model.embed_tokens.weight", token, token + 1);
    at = row++;
  }
  for (const int32_t token : tokens) rows_.push_back(row_of[token]);
}

void declare_mtp(Book& book, model::Mtp& mtp, bool with_parameters, int64_t num_tokens) {
  ParameterList list;
  mtp.collect(list);
  for (Parameter* p : list)
    if (with_parameters) book.declare(&p->value, TensorKind::kParameter, p->name, p->dtype, p->shape);
  mtp.declare_saved(book, num_tokens);
  mtp.declare_scratch(book, num_tokens, 1, false);
}

LoadedMtp::LoadedMtp(StreamedModel& model)
    : model_(model),
      mtp_(model.config(), model.dtypes()),
      embedding_(model.ctx(), model.weights(), model.tokens().tokens),
      batch_(model.tokens()) {
  batch_.tokens = embedding_.rows();
  mtp_.begin(batch_);
  mtp_.collect(parameters_);
  declare_mtp(book_, mtp_, true, model.num_tokens());
  arena_ = std::make_unique<backend::Arena>(model.ctx().device, book_);
  model.weights().load(model.ctx(), parameters_);
}

layers::Embedding LoadedMtp::embedding() const {
  const View& table_UD = embedding_.table_UD();
  layers::Embedding embedding(table_UD.dim(0), table_UD.dim(1), model_.dtypes());
  embedding.w.value = table_UD;
  return embedding;
}

View LoadedMtp::forward(const View& x_TMD) {
  mtp_.forward(model_.ctx(), x_TMD, embedding(), {}, model_.config().sliding_window, model_.main_rotary());
  return mtp_.y_RD();
}

ReferenceMtp::ReferenceMtp(StreamedModel& model, LoadedMtp& fast)
    : model_(model),
      fast_(fast),
      mtp_(model.config(), {DType::kF64, DType::kF64}),
      ctx_{backend::cpu_reference().ops, backend::cpu_reference().device, nullptr, DType::kF64, DType::kF64} {
  mtp_.begin(fast.batch());
  declare_mtp(book_, mtp_, false, model.num_tokens());
  arena_ = std::make_unique<backend::Arena>(ctx_.device, book_);
  ParameterList mine;
  mtp_.collect(mine);
  CHECK(mine.size() == fast.parameters().size(), mine.size(), fast.parameters().size());
  for (size_t i = 0; i < mine.size(); ++i) mine[i]->value = fast.parameters()[i]->value;
}

View ReferenceMtp::run(const View& x_TMD) {
  const int64_t R = mtp_.num_rows();
  ctx_.ops.copy(nullptr, mtp_.block().choices(R).expert_TK, fast_.mtp().block().choices(R).expert_TK);
  mtp_.forward(ctx_, x_TMD, fast_.embedding(), {{true, {}}, {true, {}}}, model_.config().sliding_window,
               model_.main_rotary());
  return mtp_.y_RD();
}

}  // namespace temper::verify
