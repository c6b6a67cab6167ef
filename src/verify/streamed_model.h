// A model of which one part is in memory at a time: the embedding's rows that the tokens need, then a layer after the
// other, then the head by chunks of vocabulary rows.
//
//   StreamedModel model(backend, stream, config, precision, tokens);
//   model.embed(weights);
//   for (layer...) { LoadedLayer loaded(model, layer); loaded.load(weights); loaded.forward(out, in); model.swap(); }
//   model.collapse(weights);  model.logits(weights, [](begin, logits_TC) {...});
#pragma once

#include <functional>
#include <memory>

#include "model/model_impl.h"
#include "verify/weights.h"

namespace temper::verify {

// Bytes by what they are for.
struct MemoryPlan {
  int64_t shared_bytes = 0;         // streams, positions, rotary tables: as long as the model runs
  int64_t largest_layer_bytes = 0;  // parameters and activations of the largest layer
  int64_t head_bytes = 0;           // a chunk of the head and its logits
  int64_t peak_bytes() const { return shared_bytes + std::max(largest_layer_bytes, head_bytes); }
};

class StreamedModel {
 public:
  // Allocates what all parts share. The backend and its stream must outlive this; tokens is one packed row.
  StreamedModel(const backend::Backend& backend, backend::Stream* stream, const model::Config& config,
                layers::Precision precision, layers::MicroBatch tokens);

  // What a model on num_tokens tokens would take.
  static MemoryPlan plan(const model::Config& config, layers::Precision precision, int64_t num_tokens);

  layers::Ctx& ctx() { return ctx_; }
  const model::Config& config() const { return model_.config(); }
  layers::Dtypes dtypes() { return model_.impl().dtypes; }
  int64_t num_tokens() const { return static_cast<int64_t>(tokens_.tokens.size()); }
  const layers::MicroBatch& tokens() const { return tokens_; }
  const layers::DeviceLayout& layout() { return model_.impl().layout; }
  const layers::RotaryTable& rotary(int64_t layer) { return model_.impl().rotary(model_.config(), layer); }

  // Streams [T, M, D]: in front of the next layer, and behind it.
  View streams() const { return streams_[0]; }
  View next_streams() const { return streams_[1]; }
  void swap() { std::swap(streams_[0], streams_[1]); }

  // Fills streams() from the tokens.
  void embed(const Weights& weights);
  // y_TD (act): streams() collapsed and normed, what the head reads.
  View collapse(const Weights& weights);
  // Logits of y_TD by chunks of the vocabulary: body(first id, logits_TC), values in acc and on the device.
  using LogitsBody = std::function<void(int64_t begin, const View& logits_TC)>;
  void logits(const Weights& weights, const View& y_TD, const LogitsBody& body);

 private:
  static void declare_shared(Book& book, model::Model& model, View (&streams)[2]);

  layers::MicroBatch tokens_;
  model::Model model_;
  layers::Ctx ctx_;
  Book book_;
  View streams_[2];
  std::unique_ptr<backend::Arena> arena_;
};

// A layer with its memory. All its parameters are undefined until load().
class LoadedLayer {
 public:
  LoadedLayer(StreamedModel& model, int64_t layer);
  LoadedLayer(const LoadedLayer&) = delete;
  LoadedLayer& operator=(const LoadedLayer&) = delete;

  void load(const Weights& weights);
  // xo = layer(x); xo must not alias x.
  void forward(const View& xo_TMD, const View& x_TMD);
  const model::Block& block() const { return block_; }
  const layers::ParameterList& parameters() const { return parameters_; }

 private:
  StreamedModel& model_;
  int64_t layer_;
  model::Block block_;
  layers::ParameterList parameters_;
  Book book_;
  std::unique_ptr<backend::Arena> arena_;
};

// Declares a layer's parameters (unless they lie elsewhere) and everything that its forward pass needs.
void declare_layer(Book& book, model::Block& block, bool with_parameters, int64_t num_tokens);

}  // namespace temper::verify
