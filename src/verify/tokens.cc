#include "verify/tokens.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/lines.h"
#include "base/philox.h"

namespace temper::verify {
namespace {

void append_line(layers::MicroBatch& batch, std::string_view text, int64_t vocab_size, const std::string& origin) {
  const auto json = parse_json<nlohmann::json>(text, origin);
  const auto ids = json.is_object() ? json.find("input_ids") : json.end();
  if (!json.is_object() || ids == json.end() || !ids->is_array() || ids->empty())
    fail(ErrorCode::kInvalidArgument, "{}: expected {{\"input_ids\": [token ids]}}, found {}", origin,
         describe_json(json));
  for (const auto& id : *ids) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocab_size)
      fail(ErrorCode::kInvalidArgument, "{}: {} among input_ids; the model has token ids 0 to {}", origin,
           describe_json(id), vocab_size - 1);
    batch.tokens.push_back(id.get<int32_t>());
  }
  batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
}

}  // namespace

int64_t default_num_tokens(const model::Config& config) {
  int64_t slowest = 0;
  for (const int64_t rate : config.compress_rates()) slowest = std::max(slowest, rate);
  return std::min(std::max({config.sliding_window, slowest, int64_t{15}}) + 1, config.max_position_embeddings);
}

layers::MicroBatch read_tokens(const TokenOptions& options, const model::Config& config) {
  layers::MicroBatch batch;
  batch.cu_seqlens = {0};
  if (options.file.empty()) {
    const int64_t count = options.num_tokens > 0 ? options.num_tokens : default_num_tokens(config);
    const Philox random{options.seed, RandomPurpose::kTest};
    for (int64_t t = 0; t < count; ++t)
      batch.tokens.push_back(static_cast<int32_t>(random.below(0, static_cast<uint64_t>(t), config.vocab_size)));
    batch.cu_seqlens.push_back(static_cast<int32_t>(count));
  } else {
    const std::string contents = read_file(options.file);
    for_each_line(contents, [&](std::string_view text, int64_t number) {
      append_line(batch, text, config.vocab_size, fmt::format("{}:{}", options.file.string(), number));
    });
    if (batch.tokens.empty()) fail(ErrorCode::kInvalidArgument, "{}: no line with input_ids", options.file.string());
  }
  batch.targets.assign(batch.tokens.size(), -1);
  batch.weights.assign(batch.tokens.size(), 0);
  return batch;
}

}  // namespace temper::verify
