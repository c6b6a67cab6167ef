// temper inspect: what a file, a model directory or the states of a run hold, and this machine's devices.
#include <fmt/format.h>

#include <map>
#include <memory>

#include "app/commands.h"
#include "app/inspect_state.h"
#include "backend/registry.h"
#include "base/error.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/tensor_dir.h"
#include "data/tokenizer.h"
#include "model/model.h"
#include "optim/clip.h"
#include "report/model_size.h"
#include "tensor/book.h"

namespace temper::app {
namespace {

struct DTypeTotal {
  int64_t num_tensors = 0, num_elements = 0, num_bytes = 0;
};

void add(std::map<std::string, DTypeTotal>& totals, const checkpoint::TensorInfo& tensor) {
  DTypeTotal& total = totals[std::string(checkpoint::file_dtype_name(tensor.dtype))];
  total.num_tensors += 1;
  total.num_elements += tensor.size();
  total.num_bytes += tensor.num_bytes();
}

void print_totals(const std::map<std::string, DTypeTotal>& totals) {
  for (const auto& [dtype, total] : totals) {
    fmt::print("{:<10} {:>7} tensors {:>15} values {:>12}\n", dtype, total.num_tensors, total.num_elements,
               format_bytes(total.num_bytes));
  }
}

void inspect_safetensors(const std::filesystem::path& path) {
  const checkpoint::SafetensorsFile file(path);
  std::map<std::string, DTypeTotal> totals;
  for (const auto& tensor : file.tensors()) {
    fmt::print("{:<72} {}\n", tensor.name, tensor.to_string());
    add(totals, tensor);
  }
  for (const auto& [key, value] : file.metadata()) fmt::print("metadata   {} = {}\n", key, value);
  print_totals(totals);
}

const char* attention_name(model::AttentionKind kind) {
  switch (kind) {
    case model::AttentionKind::kSliding:
      return "sliding";
    case model::AttentionKind::kCsa:
      return "csa";
    case model::AttentionKind::kHca:
      return "hca";
  }
  return "";
}

void print_config(const model::Config& config) {
  fmt::print("hidden {}, {} layers, vocabulary {}, {} heads of {} ({} rotary), query rank {}, window {}\n",
             config.hidden_size, config.num_hidden_layers, config.vocab_size, config.num_attention_heads,
             config.head_dim, config.qk_rope_head_dim, config.q_lora_rank, config.sliding_window);
  fmt::print("{} experts of width {}, {} a token, and a shared one; {} residual streams; longest document {}\n",
             config.n_routed_experts, config.moe_intermediate_size, config.num_experts_per_tok, config.hc_mult,
             config.max_position_embeddings);
  fmt::print("compression: csa {}, hca {}; indexer {} heads of {}, {} entries\nlayers:", config.csa_rate,
             config.hca_rate, config.index_n_heads, config.index_head_dim, config.index_topk);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    fmt::print(" {}{}", attention_name(config.layer_types[layer]), config.is_hash_moe[layer] ? "/hash" : "/score");
  }
  fmt::print("\n");
}

// Bytes that a run would take, from the same Book that it would allocate from.
void print_memory(const model::Config& config) {
  constexpr int64_t kTokens = 2048;
  for (const auto precision : {layers::Precision::kFp32, layers::Precision::kBf16}) {
    for (const bool train : {false, true}) {
      model::ModelOptions options;
      options.precision = precision;
      options.max_tokens = kTokens;
      options.train = train;
      model::Model model(config, options);
      Book book;
      model.declare(book);
      fmt::print("memory in {} {:<9} {:>12}   ({} tokens at once)\n",
                 precision == layers::Precision::kBf16 ? "bf16" : "fp32", train ? "training" : "inference",
                 format_bytes(book.total_bytes()), kTokens);
    }
  }
}

void print_parameters(const model::Config& config) {
  const report::ModelSize size = report::measure(config);
  for (int g = 0; g < optim::kNumParameterGroups; ++g) {
    fmt::print("{:<18} {:>15} parameters {:6.2f} %\n", optim::group_name(static_cast<optim::ParameterGroup>(g)),
               size.by_group[g], 100.0 * static_cast<double>(size.by_group[g]) / static_cast<double>(size.total));
  }
  fmt::print("{:<18} {:>15} parameters, {} of them active for a token (without the input embedding)\n", "all",
             size.total, size.active);
  if (size.prediction_block > 0)
    fmt::print("{:<18} {:>15} parameters, not among these\n", "prediction block", size.prediction_block);
}

void inspect_directory(const std::filesystem::path& dir) {
  const model::Config config = checkpoint::load_config(dir);
  print_config(config);
  print_parameters(config);
  if (checkpoint::TensorDir::exists(dir)) {
    std::map<std::string, DTypeTotal> totals;
    const checkpoint::TensorDir tensors(dir);
    for (const auto& item : tensors.items()) add(totals, *item.tensor);
    print_totals(totals);
  } else {
    fmt::print("no weights\n");
  }
  if (std::filesystem::exists(dir / "tokenizer.json")) {
    fmt::print("tokenizer with {} ids\n", data::Tokenizer::load(dir).vocab_size());
  } else {
    fmt::print("no tokenizer\n");
  }
  print_memory(config);
}

void inspect_devices() {
  const backend::DeviceInfo info = backend::cpu().device.info();
  fmt::print("{}, {} free\n", info.name, format_bytes(info.memory_bytes));
}

void run(const std::filesystem::path& path) {
  if (path.empty()) return inspect_devices();
  if (!std::filesystem::exists(path)) fail(ErrorCode::kNotFound, "{} is not there", path.string());
  if (std::filesystem::is_directory(path)) {
    return holds_run_states(path) ? inspect_run_states(path) : inspect_directory(path);
  }
  if (path.extension() == ".safetensors") return inspect_safetensors(path);
  fail(ErrorCode::kUnsupported, "{}: expected a directory of a model, a run or a run state, or a .safetensors file",
       path.string());
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto path = std::make_shared<std::filesystem::path>();
  CLI::App* command = app.add_subcommand(
      "inspect", "tensors of a file; shape, parameters and memory of a model; states of a run; devices");
  command->add_option(
      "PATH", *path,
      "safetensors file, or directory of a model, a run or a run state; nothing: this machine's devices");
  command->callback([path] { run(*path); });
}

}  // namespace temper::app
