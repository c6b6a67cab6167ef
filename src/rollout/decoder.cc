#include "rollout/decoder.h"

#include <algorithm>

#include "base/error.h"
#include "model/model_impl.h"

namespace temper::rollout {

using layers::Ctx;

Decoder::Decoder(model::Model& model, int64_t max_sequences, int64_t max_length)
    : model_(model),
      shape_{max_sequences, max_length, model.config().sliding_window},
      caches_(model.config().num_hidden_layers) {
  CHECK(!model.options().train && model.options().max_tokens >= max_sequences, max_sequences);
  CHECK(std::max(model.options().max_document, model.options().max_tokens) >= max_length, max_length);
}

void Decoder::declare(Book& book) {
  const auto& m = model_.impl();
  for (size_t l = 0; l < caches_.size(); ++l)
    declare_cache(book, caches_[l], m.blocks[l]->attention(), shape_, m.dtypes.act, m.dtypes.acc);
  declare_step(book);
}

void Decoder::declare_step(Book& book) {
  const auto& m = model_.impl();
  const auto& config = model_.config();
  const int64_t B = shape_.max_sequences, H = config.head_dim, P = config.index_head_dim;
  const auto declare_rows = [&](View& view, const char* what) {
    book.declare(&view, TensorKind::kInput, std::string("decode:") + what, DType::kI32, {B});
  };
  declare_rows(token_T_, "token"), declare_rows(position_T_, "position");
  declare_rows(key_begin_T_, "key_begin"), declare_rows(key_end_T_, "key_end"), declare_rows(ring_row_T_, "ring_row");
  for (const int64_t rate : config.compress_rates()) {
    auto& step = full_entries_[rate];
    declare_rows(step.entry_begin_T, "entry_begin"), declare_rows(step.entry_count_T, "entry_count");
    declare_rows(step.projection_row_T, "projection_row"), declare_rows(step.row_C, "row");
    declare_rows(step.prev_row_C, "prev_row"), declare_rows(step.position_C, "entry_position");
    declare_rows(step.entry_row_C, "entry_row");
  }
  const auto declare_scratch = [&](EntryScratch& scratch, int64_t Z, int64_t width) {
    book.declare(&scratch.z_TZ, TensorKind::kSaved, "decode:z", m.dtypes.acc, {B, Z});
    book.declare(&scratch.g_TZ, TensorKind::kSaved, "decode:g", m.dtypes.acc, {B, Z});
    book.declare(&scratch.v_CH, TensorKind::kSaved, "decode:v", m.dtypes.act, {B, width});
    book.declare(&scratch.k_CH, TensorKind::kSaved, "decode:k", m.dtypes.act, {B, width});
    book.declare(&scratch.v_rstd_C, TensorKind::kSaved, "decode:v_rstd", m.dtypes.acc, {B});
  };
  declare_scratch(entry_scratch_, 2 * H, H);
  declare_scratch(indexer_scratch_, 2 * P, P);
  book.declare(&q_TIP_, TensorKind::kSaved, "decode:indexer_q", m.dtypes.act, {B, config.index_n_heads, P});
  book.declare(&w_TI_, TensorKind::kSaved, "decode:indexer_w", m.dtypes.acc, {B, config.index_n_heads});
  book.declare(&selected_TA_, TensorKind::kSaved, "decode:selected", DType::kI32, {B, config.index_topk});
}

void Decoder::upload_step(Ctx& ctx, const std::vector<SlotToken>& tokens) {
  const auto upload = [&](View full, const std::vector<int32_t>& values) {
    const View view = full.first(static_cast<int64_t>(values.size()));
    if (!values.empty()) ctx.device.copy_to_device(ctx.stream, view, values.data());
    return view;
  };
  num_tokens_ = static_cast<int64_t>(tokens.size());
  const StepRows rows = make_step_rows(tokens, shape_);
  upload(token_T_, rows.token_T), upload(position_T_, rows.position_T);
  upload(key_begin_T_, rows.key_begin_T), upload(key_end_T_, rows.key_end_T), upload(ring_row_T_, rows.ring_row_T);
  for (const auto& [rate, full] : full_entries_) {
    const StepEntries host = make_step_entries(tokens, shape_, rate);
    auto& step = entries_[rate];
    step.entry_begin_T = upload(full.entry_begin_T, host.entry_begin_T);
    step.entry_count_T = upload(full.entry_count_T, host.entry_count_T);
    step.projection_row_T = upload(full.projection_row_T, host.projection_row_T);
    step.row_C = upload(full.row_C, host.row_C), step.prev_row_C = upload(full.prev_row_C, host.prev_row_C);
    step.position_C = upload(full.position_C, host.position_C);
    step.entry_row_C = upload(full.entry_row_C, host.entry_row_C);
    step.num_new = static_cast<int64_t>(host.row_C.size());
    step.max_count = *std::max_element(host.entry_count_T.begin(), host.entry_count_T.end());
  }
}

void Decoder::compress(Ctx& ctx, const layers::Compressor& compressor, const CompressorCache& cache,
                       const EntryScratch& scratch, const DeviceStepEntries& step, View h_TD,
                       const layers::RotaryTable& rotary) {
  const int64_t T = h_TD.dim(0), Z = compressor.dims().Z();
  // The scratch is as wide as the widest compressor; a narrower one uses a prefix of its memory.
  const View z_TZ(scratch.z_TZ.base, scratch.z_TZ.dtype, {T, Z}, scratch.z_TZ.offset);
  const View g_TZ(scratch.g_TZ.base, scratch.g_TZ.dtype, {T, Z}, scratch.g_TZ.offset);
  compressor.project(ctx, z_TZ, g_TZ, h_TD);
  ctx.ops.scatter_rows(ctx.stream, cache.z_SZ, z_TZ, step.projection_row_T);
  ctx.ops.scatter_rows(ctx.stream, cache.g_SZ, g_TZ, step.projection_row_T);
  if (step.num_new == 0) return;
  const layers::Compressor::Saved entries{cache.z_SZ, cache.g_SZ, scratch.v_CH.first(step.num_new),
                                          scratch.k_CH.first(step.num_new), scratch.v_rstd_C.first(step.num_new)};
  compressor.make_entries(ctx, entries, {step.row_C, step.prev_row_C, compressor.dims().rate}, step.position_C, rotary);
  ctx.ops.scatter_rows(ctx.stream, cache.k_CH, entries.k_CH, step.entry_row_C);
}

void Decoder::attention(Ctx& ctx, int64_t layer, int64_t num_tokens) {
  auto& m = model_.impl();
  const auto& block = *m.blocks[layer];
  const auto& attention = block.attention();
  const auto& cache = caches_[layer];
  const auto& rotary = m.rotary(model_.config(), layer);
  const int64_t T = num_tokens;
  const View h_TD = block.saved().attention_site.h_TD.first(T), position_T = position_T_.first(T);
  const auto saved = attention.first(block.saved().attention, T);

  attention.project(ctx, saved, h_TD, position_T, rotary);
  ctx.ops.scatter_rows(ctx.stream, cache.c_SH, saved.c_TH, ring_row_T_.first(T));
  backend::KeyRanges ranges;
  ranges.key_begin_T = key_begin_T_.first(T), ranges.key_end_T = key_end_T_.first(T);
  View k_CH;
  if (attention.compressor()) {
    const auto& step = entries_.at(attention.dims().rate);
    compress(ctx, *attention.compressor(), cache.entries, entry_scratch_, step, h_TD, rotary);
    if (const auto* indexer = attention.indexer()) {
      compress(ctx, indexer->compressor(), cache.indexer, indexer_scratch_, step, h_TD, rotary);
      if (step.max_count > indexer->dims().A) {
        const View q_TIP = q_TIP_.first(T), w_TI = w_TI_.first(T), selected_TA = selected_TA_.first(T);
        indexer->queries(ctx, q_TIP, w_TI, h_TD, saved.r_TQ, position_T, rotary);
        indexer->choose(ctx, selected_TA, q_TIP, w_TI, cache.indexer.k_CH, step.entry_begin_T, step.entry_count_T);
        ranges.selected_TA = selected_TA;
      }
    }
    if (step.max_count > 0) {
      k_CH = cache.entries.k_CH;
      ranges.entry_begin_T = step.entry_begin_T, ranges.entry_count_T = step.entry_count_T;
    }
  }
  attention.attend(ctx, saved, cache.c_SH, k_CH, ranges);
  attention.output(ctx, block.saved().attention_site.y_TD.first(T), saved, position_T, rotary);
}

const std::vector<double>& Decoder::step(Ctx& ctx, const std::vector<SlotToken>& tokens) {
  auto& m = model_.impl();
  const int64_t T = static_cast<int64_t>(tokens.size()), L = model_.config().num_hidden_layers;
  CHECK(T > 0 && T <= shape_.max_sequences, T, shape_.max_sequences);
  for (const auto& token : tokens)
    CHECK(token.position < shape_.max_length && token.slot < shape_.max_sequences, token.position, token.slot);
  upload_step(ctx, tokens);
  const auto streams = [&](int64_t l) { return m.chunk().stream_buffers[m.chunk().keep.stream_buffer[l]].first(T); };
  ctx.ops.embedding_forward(ctx.stream, streams(0), m.embedding.w.value, token_T_.first(T));
  for (int64_t l = 0; l < L; ++l) {
    const auto& block = *m.blocks[l];
    block.attention_input(ctx, streams(l));
    attention(ctx, l, T);
    const View x_mid_TMD = block.saved().x_mid_TMD.first(T);
    block.attention_output(ctx, x_mid_TMD, streams(l));
    block.experts(ctx, streams(l + 1), x_mid_TMD, token_T_.first(T), layers::ChoiceRule{});
  }
  m.collapse(ctx, streams(L));
  m.lm_head.logits(ctx, m.y_TD.first(T), 0, T, logits_TV_);
  return logits_TV_;
}

std::vector<std::vector<int32_t>> Decoder::generate(Ctx& ctx, const std::vector<std::vector<int32_t>>& prompts,
                                                    const GenerateOptions& options) {
  struct Sequence {
    int64_t prompt = -1;  // -1: the slot is free
    int32_t position = 0, token = 0;
  };
  const int64_t V = model_.config().vocab_size;
  const Philox random{options.seed, RandomPurpose::kSample};
  std::vector<std::vector<int32_t>> answers(prompts.size());
  std::vector<Sequence> slots(shape_.max_sequences);
  size_t next = 0;
  while (true) {
    std::vector<SlotToken> tokens;
    for (int64_t b = 0; b < shape_.max_sequences; ++b) {
      auto& slot = slots[b];
      if (slot.prompt < 0 && next < prompts.size()) {
        const auto& prompt = prompts[next];
        if (prompt.empty() || static_cast<int64_t>(prompt.size()) >= shape_.max_length)
          fail(ErrorCode::kInvalidArgument,
               "prompt {} has {} tokens; the decoder was made for 1 to {}: shorten it or allow longer sequences", next,
               prompt.size(), shape_.max_length - 1);
        slot = {static_cast<int64_t>(next++), 0, prompt[0]};
      }
      if (slot.prompt >= 0) tokens.push_back({b, slot.token, slot.position});
    }
    if (tokens.empty()) return answers;
    const auto& logits_TV = step(ctx, tokens);
    for (size_t t = 0; t < tokens.size(); ++t) {
      auto& slot = slots[tokens[t].slot];
      const auto& prompt = prompts[slot.prompt];
      auto& answer = answers[slot.prompt];
      ++slot.position;
      if (slot.position < static_cast<int64_t>(prompt.size())) {
        slot.token = prompt[slot.position];
        continue;
      }
      if (options.max_new_tokens > 0) {
        slot.token = sample_token({&logits_TV[t * V], static_cast<size_t>(V)}, options.sampling, random, answer.size(),
                                  slot.prompt);
        answer.push_back(slot.token);
      }
      const bool full = static_cast<int64_t>(answer.size()) >= options.max_new_tokens;
      if (full || slot.token == options.stop_token || slot.position >= shape_.max_length) slot.prompt = -1;
    }
  }
}

}  // namespace temper::rollout
