// The multi-token-prediction block of a streamed model (architecture page 7): one more part behind the last layer.
#pragma once

#include "model/mtp.h"
#include "verify/streamed_model.h"

namespace temper::verify {

// The rows of the embedding that some tokens need, as a table, and the tokens as rows of it.
class EmbeddingRows {
 public:
  EmbeddingRows(layers::Ctx& ctx, const Weights& weights, const std::vector<int32_t>& tokens);
  const View& table_UD() const { return table_UD_; }
  const std::vector<int32_t>& rows() const { return rows_; }

 private:
  Book book_;
  View table_UD_;
  std::vector<int32_t> rows_;
  std::unique_ptr<backend::Arena> arena_;
};

// The block with its weights and what its forward pass needs.
class LoadedMtp {
 public:
  explicit LoadedMtp(StreamedModel& model);
  LoadedMtp(const LoadedMtp&) = delete;
  LoadedMtp& operator=(const LoadedMtp&) = delete;

  // What the head reads to predict the token after the next, a row for each token but a document's last. x_TMD: the
  // streams behind the last layer.
  View forward(const View& x_TMD);

  int64_t num_rows() const { return mtp_.num_rows(); }
  model::Mtp& mtp() { return mtp_; }
  const layers::ParameterList& parameters() const { return parameters_; }
  const layers::MicroBatch& batch() const { return batch_; }  // tokens as rows of embedding()
  layers::Embedding embedding() const;

 private:
  StreamedModel& model_;
  model::Mtp mtp_;
  layers::ParameterList parameters_;
  EmbeddingRows embedding_;
  layers::MicroBatch batch_;
  Book book_;
  std::unique_ptr<backend::Arena> arena_;
};

// Declares the block's parameters (unless they lie elsewhere) and everything that its forward pass needs.
void declare_mtp(Book& book, model::Mtp& mtp, bool with_parameters, int64_t num_tokens);

// The same block in float64 with the weights where `fast` has them: what it computes with the choices of the fast run.
class ReferenceMtp {
 public:
  ReferenceMtp(StreamedModel& model, LoadedMtp& fast);
  View run(const View& x_TMD);

 private:
  StreamedModel& model_;
  LoadedMtp& fast_;
  model::Mtp mtp_;
  layers::Ctx ctx_;
  Book book_;
  std::unique_ptr<backend::Arena> arena_;
};

}  // namespace temper::verify
