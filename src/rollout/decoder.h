// Token-by-token decoding with a cache, by the same ops as training. Equals the full forward pass at every position.
//
// The prompt, too, is fed one token at a time; many sequences advance together, one token each per step.
#pragma once

#include <map>
#include <vector>

#include "model/model.h"
#include "rollout/cache.h"
#include "rollout/sampler.h"

namespace temper::rollout {

struct GenerateOptions {
  int64_t max_new_tokens = 256;
  SamplingOptions sampling{};
  uint64_t seed = 0;
  int32_t stop_token = -1;  // ends an answer; it is part of the result. -1: none
};

class Decoder {
 public:
  // The model must have been made with train = false, max_tokens >= max_sequences and max_document >= max_length.
  Decoder(model::Model& model, int64_t max_sequences, int64_t max_length);

  // Call once, after model.declare(book).
  void declare(Book& book);

  // Decodes one token of each of up to max_sequences different slots; positions of a slot must come in order from 0.
  // Returns the logits [T, V] that predict the next tokens.
  const std::vector<double>& step(layers::Ctx& ctx, const std::vector<SlotToken>& tokens);

  // Continues every prompt until the stop token, max_new_tokens or max_length. Sequences enter free slots as others
  // finish; results are in the order of the prompts and hold new tokens only. A prompt of max_length tokens or more is
  // refused.
  std::vector<std::vector<int32_t>> generate(layers::Ctx& ctx, const std::vector<std::vector<int32_t>>& prompts,
                                             const GenerateOptions& options);

 private:
  struct DeviceStepEntries {
    View entry_begin_T, entry_count_T, projection_row_T, row_C, prev_row_C, position_C, entry_row_C;  // i32
    int64_t num_new = 0, max_count = 0;
  };
  // New entries of a step before they go to the cache, and projections of a step's tokens; shared by all layers.
  struct EntryScratch {
    View z_TZ, g_TZ, v_CH, k_CH, v_rstd_C;
  };

  void declare_step(Book& book);
  void upload_step(layers::Ctx& ctx, const std::vector<SlotToken>& tokens);
  void attention(layers::Ctx& ctx, int64_t layer, int64_t num_tokens);
  // Projects h, stores it, and makes the entries of windows that end in this step.
  void compress(layers::Ctx& ctx, const layers::Compressor& compressor, const CompressorCache& cache,
                const EntryScratch& scratch, const DeviceStepEntries& step, View h_TD,
                const layers::RotaryTable& rotary);

  model::Model& model_;
  CacheShape shape_;
  std::vector<LayerCache> caches_;
  View token_T_, position_T_, key_begin_T_, key_end_T_, ring_row_T_;  // i32, full capacity
  std::map<int64_t, DeviceStepEntries> full_entries_, entries_;       // by rate
  EntryScratch entry_scratch_, indexer_scratch_;
  View q_TIP_, w_TI_, selected_TA_;
  int64_t num_tokens_ = 0;
  std::vector<double> logits_TV_;
};

}  // namespace temper::rollout
