#include "verify/against_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "base/error.h"
#include "checkpoint/convert.h"

namespace temper::verify {
namespace {

using checkpoint::FileDType;
using checkpoint::StoredTensor;

// Where in a sequence the logits begin to differ. What acts on every token is no suspect if the first ones agree.
std::string first_wrong(const LogitComparison& comparison, int64_t begin, int64_t end, const model::Config& config) {
  constexpr double kAgree = 1e-3;  // of the worst token's divergence
  double worst = 0;
  for (int64_t t = begin; t < end; ++t) worst = std::max(worst, comparison.kl(t));
  int64_t first = begin;
  while (first < end && comparison.kl(first) <= kAgree * worst) ++first;
  const int64_t position = first - begin;
  if (first == end) return {};
  if (position == 0)
    return "unknown; the first token differs already, on which rotation and compressed entries do not act: "
           "hyper-connections, "
           "norms, experts, router, sinks or the decoding of weights are suspects";
  std::string text = fmt::format("unknown; the logits begin to differ at position {}", position);
  if (position == 1) text += ", where rotation begins to act: of queries and keys, or of the attention output back";
  for (const int64_t rate : config.compress_rates())
    if (position == rate - 1)
      text += fmt::format(
          ", where the first entry of rate {} becomes visible: the compressor of those layers is a suspect", rate);
  if (position == config.sliding_window) text += ", where the sliding window drops its first key";
  return text;
}

}  // namespace

LogitFile::LogitFile(const std::filesystem::path& path, const model::Config& config) : file_(path) {
  const std::string origin = path.string();
  tokens_.cu_seqlens = {0};
  for (int64_t i = 0;; ++i) {
    const StoredTensor* ids = file_.find(fmt::format("input_ids.{}", i));
    const StoredTensor* logits = file_.find(fmt::format("logits.{}", i));
    if (!ids && !logits) break;
    if (!ids || !logits)
      fail(ErrorCode::kInvalidArgument, "{}: has {} but not {}", origin, ids ? ids->name : logits->name,
           fmt::format("{}.{}", ids ? "logits" : "input_ids", i));
    if (ids->dtype != FileDType::kI64 || ids->shape.size() != 1 || ids->size() == 0)
      fail(ErrorCode::kInvalidArgument, "{}: {} is {}, expected I64 [T]", origin, ids->name, ids->to_string());
    const bool is_float =
        logits->dtype == FileDType::kF32 || logits->dtype == FileDType::kF16 || logits->dtype == FileDType::kBF16;
    if (!is_float || logits->shape != std::vector<int64_t>{ids->size(), config.vocab_size})
      fail(ErrorCode::kInvalidArgument, "{}: {} is {}, expected F32, F16 or BF16 [{}, {}]", origin, logits->name,
           logits->to_string(), ids->size(), config.vocab_size);
    for (int64_t t = 0; t < ids->size(); ++t) {
      int64_t id = 0;
      std::memcpy(&id, ids->data + t * static_cast<int64_t>(sizeof id), sizeof id);
      if (id < 0 || id >= config.vocab_size)
        fail(ErrorCode::kInvalidArgument, "{}: {}[{}] is {}; the model has token ids 0 to {}", origin, ids->name, t, id,
             config.vocab_size - 1);
      tokens_.tokens.push_back(static_cast<int32_t>(id));
    }
    tokens_.cu_seqlens.push_back(static_cast<int32_t>(tokens_.tokens.size()));
    logits_.push_back(logits);
  }
  if (logits_.empty())
    fail(ErrorCode::kInvalidArgument, "{}: expected input_ids.0 and logits.0; docs/verify.md says how to make them",
         origin);
  tokens_.targets.assign(tokens_.tokens.size(), -1);
  tokens_.weights.assign(tokens_.tokens.size(), 0);
}

void LogitFile::columns(int64_t begin, int64_t count, std::vector<float>& logits_TC) const {
  logits_TC.resize(tokens_.tokens.size() * static_cast<size_t>(count));
  float* to = logits_TC.data();
  for (const StoredTensor* logits : logits_) {
    const int64_t width = checkpoint::file_dtype_bytes(logits->dtype), V = logits->shape[1];
    for (int64_t t = 0; t < logits->shape[0]; ++t, to += count)
      checkpoint::convert_elements(to, FileDType::kF32, logits->data + (t * V + begin) * width, logits->dtype, count);
  }
}

nlohmann::json check_against_file(const Weights& weights, const LogitFile& file, const backend::Backend& fast,
                                  layers::Precision precision, const LogitGates& gates, Findings& findings,
                                  const Print& print) {
  const double start = now_seconds();
  const OwnedStream stream(fast.device);
  nlohmann::json sequences = nlohmann::json::array();
  StreamedModel model(fast, stream.get(), weights, precision, file.tokens());
  model.embed();
  for (int64_t l = 0; l < weights.config().num_hidden_layers; ++l) {
    LoadedLayer layer(model, l);
    layer.forward(model.next_streams(), model.streams());
    model.swap();
  }
  LogitComparison comparison(model.num_tokens());
  std::vector<float> theirs;
  Head head(model, model.collapse());
  for (int64_t chunk = 0; chunk < head.num_chunks(); ++chunk) {
    const View logits_TC = head.logits(chunk);
    file.columns(head.first_id(chunk), logits_TC.dim(1), theirs);
    comparison.add(0, logits_TC, View(theirs.data(), DType::kF32, logits_TC.shape));
  }
  print(logits_header());
  const auto& borders = file.tokens().cu_seqlens;
  for (size_t s = 0; s + 1 < borders.size(); ++s) {
    const auto result = comparison.result(borders[s], borders[s + 1]);
    const std::string name = fmt::format("logits.{}", s);
    print(logits_line(name, result));
    sequences.push_back(to_json(result));
    judge_logits(name, result, gates, first_wrong(comparison, borders[s], borders[s + 1], weights.config()), findings);
  }
  print(logits_line("all", comparison.result(0, model.num_tokens())));
  return {{"sequences", sequences}, {"seconds", now_seconds() - start}};
}

}  // namespace temper::verify
