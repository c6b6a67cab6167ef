#include "train/dump.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/lines.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/safetensors.h"
#include "model/config.h"
#include "train/session.h"

namespace temper::train {
namespace {

constexpr int64_t kNoLabel = -100;

struct Line {
  int64_t number;
  layers::MicroBatch batch;
  int64_t num_targets = 0;
};

std::vector<int64_t> read_ids(const nlohmann::json& line, const char* key, int64_t vocab_size, bool labels,
                              const std::string& origin) {
  const nlohmann::json& value = line.at(key);
  if (!value.is_array() || value.empty()) {
    fail(ErrorCode::kInvalidArgument, "{}: {} is {}, expected a list of token ids", origin, key, describe_json(value));
  }
  std::vector<int64_t> ids;
  ids.reserve(value.size());
  for (const nlohmann::json& item : value) {
    const bool whole = item.is_number_integer();
    const int64_t id = whole ? item.get<int64_t>() : -1;
    if (!(whole && ((id >= 0 && id < vocab_size) || (labels && id == kNoLabel)))) {
      fail(ErrorCode::kInvalidArgument, "{}: {}[{}] is {}; the model has token ids 0 to {}{}", origin, key, ids.size(),
           describe_json(item), vocab_size - 1, labels ? ", and -100 means no loss" : "");
    }
    ids.push_back(id);
  }
  return ids;
}

Line parse_line(std::string_view text, int64_t number, int64_t vocab_size, const std::string& origin) {
  const auto json = parse_json<nlohmann::json>(text, origin);
  if (!json.is_object() || !json.contains("input_ids")) {
    fail(ErrorCode::kInvalidArgument, "{}: expected {{\"input_ids\": [...], \"labels\": [...]}}, found {}", origin,
         describe_json(json));
  }
  const std::vector<int64_t> ids = read_ids(json, "input_ids", vocab_size, false, origin);
  const std::vector<int64_t> labels =
      json.contains("labels") ? read_ids(json, "labels", vocab_size, true, origin) : ids;
  if (labels.size() != ids.size()) {
    fail(ErrorCode::kInvalidArgument, "{}: {} labels for {} input_ids; each token needs a label, -100 for no loss",
         origin, labels.size(), ids.size());
  }
  Line line{number, {}, 0};
  line.batch.tokens.assign(ids.begin(), ids.end());
  line.batch.cu_seqlens = {0, static_cast<int32_t>(ids.size())};
  for (size_t t = 0; t < ids.size(); ++t) {
    const int64_t target = t + 1 < ids.size() && labels[t + 1] != kNoLabel ? labels[t + 1] : -1;
    line.batch.targets.push_back(static_cast<int32_t>(target));
    line.batch.weights.push_back(target >= 0 ? 1.0f : 0.0f);
    line.num_targets += target >= 0;
  }
  return line;
}

std::vector<Line> read_lines(const std::filesystem::path& path, int64_t vocab_size) {
  const std::string contents = read_file(path);
  std::vector<Line> lines;
  for_each_line(contents, [&](std::string_view text, int64_t number) {
    lines.push_back(parse_line(text, number, vocab_size, fmt::format("{}:{}", path.string(), number)));
  });
  if (lines.empty()) fail(ErrorCode::kInvalidArgument, "{}: no line with input_ids", path.string());
  return lines;
}

checkpoint::TensorInfo tensor_info(std::string name, std::vector<int64_t> shape) {
  checkpoint::TensorInfo info;
  info.name = std::move(name);
  info.dtype = checkpoint::FileDType::kF32;
  info.shape = std::move(shape);
  return info;
}

std::vector<int64_t> dims(const Shape& shape) {
  std::vector<int64_t> out;
  out.reserve(shape.rank());
  for (int i = 0; i < shape.rank(); ++i) out.push_back(shape[i]);
  return out;
}

void write_floats(checkpoint::SafetensorsWriter& writer, const std::vector<double>& values) {
  const std::vector<float> narrow(values.begin(), values.end());
  writer.write(narrow.data(), static_cast<int64_t>(narrow.size() * sizeof(float)));
}

// A gradient on the host, in double.
std::vector<double> fetch(layers::Ctx& ctx, View grad) {
  std::vector<double> values(grad.size());
  if (grad.dtype == DType::kF64) {
    ctx.device.copy_to_host(ctx.stream, values.data(), grad);
  } else {
    std::vector<float> narrow(grad.size());
    ctx.device.copy_to_host(ctx.stream, narrow.data(), grad);
    values.assign(narrow.begin(), narrow.end());
  }
  return values;
}

// Forward, and backward if asked, of one line; writes its logits and loss.
double run_line(Session& session, const Line& line, int64_t num_targets, bool gradients,
                checkpoint::SafetensorsWriter& writer) {
  model::Model& model = session.model();
  layers::Ctx& ctx = session.ctx();
  model.forward(ctx, line.batch);
  const int64_t num_tokens = static_cast<int64_t>(line.batch.tokens.size());
  std::vector<double> logits_TV;
  for (int64_t begin = 0; begin < num_tokens; begin += model.options().logit_chunk) {
    model.logits(ctx, begin, std::min(begin + model.options().logit_chunk, num_tokens), logits_TV);
    write_floats(writer, logits_TV);
  }
  const model::TokenResults results = model.logprobs(ctx);
  double sum = 0;
  for (int64_t t = 0; t < num_tokens; ++t) sum -= line.batch.targets[t] >= 0 ? results.logp_T[t] : 0;
  const double loss =
      line.num_targets > 0 ? sum / static_cast<double>(line.num_targets) : std::numeric_limits<double>::quiet_NaN();
  write_floats(writer, {loss});
  if (gradients) {
    std::vector<double> dlogp_T(num_tokens);
    for (int64_t t = 0; t < num_tokens; ++t) dlogp_T[t] = -line.batch.weights[t] / static_cast<double>(num_targets);
    model.backward(ctx, {dlogp_T, {}});
  }
  return loss;
}

}  // namespace

DumpReport dump(const DumpOptions& options) {
  const model::Config config = checkpoint::load_config(options.model_dir);
  const std::vector<Line> lines = read_lines(options.input, config.vocab_size);
  int64_t num_targets = 0, longest = 0;
  for (const Line& line : lines) {
    num_targets += line.num_targets;
    longest = std::max(longest, static_cast<int64_t>(line.batch.tokens.size()));
  }
  if (options.gradients && num_targets == 0) {
    fail(ErrorCode::kInvalidArgument, "{}: no line has a labelled token, so there is no loss to differentiate",
         options.input.string());
  }

  model::ModelOptions model_options;
  model_options.precision = options.precision;
  model_options.max_tokens = longest;
  model_options.train = options.gradients;
  model_options.optimizer = false;
  Session session(backend_for(options.precision), config, model_options);
  checkpoint::load_weights(options.model_dir, session.ctx(), session.model().parameters());

  DumpReport report;
  std::vector<checkpoint::TensorInfo> tensors;
  for (size_t i = 0; i < lines.size(); ++i) {
    tensors.push_back(tensor_info(fmt::format("logits.{}", i),
                                  {static_cast<int64_t>(lines[i].batch.tokens.size()), config.vocab_size}));
    tensors.push_back(tensor_info(fmt::format("loss.{}", i), {}));
  }
  for (const layers::Parameter* parameter : session.model().parameters()) {
    if (!options.gradients) break;
    if (parameter->grad.defined()) {
      tensors.push_back(tensor_info(parameter->name, dims(parameter->shape)));
    } else {
      report.without_gradient.push_back(parameter->name);
    }
  }

  checkpoint::SafetensorsWriter writer(options.file, tensors);
  if (options.gradients) session.model().zero_gradients(session.ctx());
  for (const Line& line : lines) {
    const double loss = run_line(session, line, num_targets, options.gradients, writer);
    const int64_t num_tokens = static_cast<int64_t>(line.batch.tokens.size());
    report.lines.push_back({line.number, num_tokens, line.num_targets, loss});
    if (line.num_targets > 0)
      report.loss += loss * static_cast<double>(line.num_targets) / static_cast<double>(num_targets);
  }
  for (const layers::Parameter* parameter : session.model().parameters())
    if (options.gradients && parameter->grad.defined()) write_floats(writer, fetch(session.ctx(), parameter->grad));
  writer.commit();
  return report;
}

}  // namespace temper::train
