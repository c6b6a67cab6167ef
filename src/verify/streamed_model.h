// A model of which one part is in memory at a time: the embedding's rows that the tokens need, then a layer after the
// other, then the head by chunks of vocabulary rows.
//
//   StreamedModel model(backend, stream, weights, precision, tokens);
//   model.embed();
//   for (layer...) { LoadedLayer loaded(model, layer); loaded.forward(out, in); model.swap(); }
//   Head head(model, model.collapse());  for (chunk...) head.logits(chunk);
#pragma once

#include <memory>

#include "model/model_impl.h"
#include "verify/weights.h"

namespace temper::verify {

// Bytes by what they are for.
struct MemoryPlan {
  static constexpr int64_t kBufferBytes = int64_t{32} << 20;  // of the reading of weights, and of the program itself
  int64_t shared_bytes = 0;         // streams, positions, rotary tables: as long as the model runs
  int64_t largest_layer_bytes = 0;  // parameters and activations of the largest layer
  int64_t head_bytes = 0;           // a chunk of the head and its logits
  int64_t extra_bytes = 0;          // what a check needs besides
  int64_t peak_bytes() const {
    return shared_bytes + std::max(largest_layer_bytes, head_bytes) + extra_bytes + kBufferBytes;
  }
};

class OwnedStream {
 public:
  explicit OwnedStream(const backend::DeviceTable& device) : device_(device), stream_(device.stream_create()) {}
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  ~OwnedStream() { device_.stream_destroy(stream_); }
  backend::Stream* get() const { return stream_; }

 private:
  const backend::DeviceTable& device_;
  backend::Stream* stream_;
};

class StreamedModel {
 public:
  // Allocates what all parts share. The backend, its stream and the weights, which must fit, must outlive this; tokens
  // is one packed row.
  StreamedModel(const backend::Backend& backend, backend::Stream* stream, const Weights& weights,
                layers::Precision precision, layers::MicroBatch tokens);

  // What a model on num_tokens tokens would take.
  static MemoryPlan plan(const Weights& weights, layers::Precision precision, int64_t num_tokens);

  const Weights& weights() const { return weights_; }

  layers::Ctx& ctx() { return ctx_; }
  const model::Config& config() const { return model_.config(); }
  layers::Dtypes dtypes() { return model_.impl().dtypes; }
  int64_t num_tokens() const { return static_cast<int64_t>(tokens_.tokens.size()); }
  const layers::MicroBatch& tokens() const { return tokens_; }
  const layers::DeviceLayout& layout() { return model_.impl().layout; }
  const layers::RotaryTable& rotary(int64_t layer) { return model_.impl().rotary(model_.config(), layer); }

  const layers::RotaryTable& main_rotary() { return model_.impl().main_rotary; }  // of layers without a compressor

  // Streams [T, M, D]: in front of the next layer, and behind it.
  View streams() const { return streams_[0]; }
  View next_streams() const { return streams_[1]; }
  void swap() { std::swap(streams_[0], streams_[1]); }

  // Fills streams() from the tokens.
  void embed();
  // y_TD (act): streams() collapsed and normed, what the head reads.
  View collapse();

 private:
  static void declare_shared(Book& book, model::Model& model, View (&streams)[2]);

  const Weights& weights_;
  layers::MicroBatch tokens_;
  model::Model model_;
  layers::Ctx ctx_;
  Book book_;
  View streams_[2];
  std::unique_ptr<backend::Arena> arena_;
};

// Rows of the vocabulary in a chunk of the head.
int64_t head_rows(const model::Config& config, int64_t num_tokens);

// The output head, a chunk of the vocabulary at a time.
class Head {
 public:
  // y_TD: what StreamedModel::collapse made.
  Head(StreamedModel& model, const View& y_TD);
  Head(const Head&) = delete;
  Head& operator=(const Head&) = delete;

  int64_t num_chunks() const;
  int64_t first_id(int64_t chunk) const { return chunk * head_CD_.dim(0); }
  // [T, C] in acc, until the next call.
  View logits(int64_t chunk);

 private:
  StreamedModel& model_;
  View y_TD_, head_CD_, logits_;
  Book book_;
  std::unique_ptr<backend::Arena> arena_;
};

// A main layer with its weights and what its forward pass needs.
class LoadedLayer {
 public:
  LoadedLayer(StreamedModel& model, int64_t layer);
  LoadedLayer(const LoadedLayer&) = delete;
  LoadedLayer& operator=(const LoadedLayer&) = delete;

  // xo = layer(x); xo must not alias x.
  void forward(const View& xo_TMD, const View& x_TMD);
  const model::Block& block() const { return block_; }
  const std::string& prefix() const { return prefix_; }  // of its parameters' names
  const layers::ParameterList& parameters() const { return parameters_; }
  // The value of the parameter of this name behind the prefix.
  const View& value(std::string_view leaf) const;

 private:
  StreamedModel& model_;
  int64_t layer_;
  std::string prefix_;
  model::Block block_;
  layers::ParameterList parameters_;
  Book book_;
  std::unique_ptr<backend::Arena> arena_;
};

// Declares a layer's parameters (unless they lie elsewhere) and everything that its forward pass needs.
void declare_layer(Book& book, model::Block& block, bool with_parameters, int64_t num_tokens);

}  // namespace temper::verify
