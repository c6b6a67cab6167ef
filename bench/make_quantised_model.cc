// Writes a model directory as the released instruct checkpoints are stored: routed experts FP4, projections FP8, the
// rest BF16 and F32, with the MTP block. Numbers are random and small enough that the model computes finite things. For
// measuring what reads such directories: temper convert, temper verify.
//
//   make_quantised_model DIR [EXPERTS]     default 64 experts in each of 7 layers: 7.4e9 parameters, 4.2 GB
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/encoding.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/tensor_dir.h"
#include "model/model.h"

namespace {

namespace fs = std::filesystem;
using namespace temper;
using namespace temper::checkpoint;

constexpr int64_t kShardBytes = 1'000'000'000;

std::string config_json(int64_t num_experts) {
  const nlohmann::ordered_json json = {
      {"architectures", {"DeepseekV4ForCausalLM"}},
      {"model_type", "deepseek_v4"},
      {"vocab_size", 8192},
      {"hidden_size", 4096},
      {"num_hidden_layers", 6},
      {"num_nextn_predict_layers", 1},
      {"compress_ratios", {0, 0, 4, 128, 4, 128, 0}},
      {"num_hash_layers", 1},
      {"num_attention_heads", 16},
      {"num_key_value_heads", 1},
      {"head_dim", 128},
      {"qk_rope_head_dim", 64},
      {"q_lora_rank", 512},
      {"o_groups", 4},
      {"o_lora_rank", 512},
      {"sliding_window", 128},
      {"index_n_heads", 16},
      {"index_head_dim", 128},
      {"index_topk", 64},
      {"n_routed_experts", num_experts},
      {"num_experts_per_tok", 6},
      {"n_shared_experts", 1},
      {"moe_intermediate_size", 1280},
      {"scoring_func", "sqrtsoftplus"},
      {"topk_method", "noaux_tc"},
      {"norm_topk_prob", true},
      {"routed_scaling_factor", 1.5},
      {"swiglu_limit", 10.0},
      {"hc_mult", 4},
      {"hc_sinkhorn_iters", 20},
      {"hc_eps", 1e-6},
      {"rms_norm_eps", 1e-6},
      {"rope_theta", 10000},
      {"compress_rope_theta", 160000},
      {"rope_scaling",
       {{"type", "yarn"},
        {"factor", 16},
        {"beta_fast", 32},
        {"beta_slow", 1},
        {"original_max_position_embeddings", 65536}}},
      {"max_position_embeddings", 1048576},
      {"bos_token_id", 0},
      {"eos_token_id", 1},
      {"torch_dtype", "bfloat16"},
      {"expert_dtype", "fp4"},
      {"quantization_config",
       {{"quant_method", "fp8"},
        {"fmt", "e4m3"},
        {"scale_fmt", "ue8m0"},
        {"weight_block_size", {128, 128}},
        {"activation_scheme", "dynamic"}}},
  };
  return json.dump(2) + "\n";
}

// A tensor to be written, with the parameter that it belongs to.
struct Target {
  TensorInfo info;
  std::string parameter;
};

std::vector<Target> list_targets(const model::Model& model) {
  std::vector<Target> targets;
  for (const layers::Parameter* parameter : model.parameters())
    for (const auto& [stored, name] : stored_names(parameter->name, parameter->shape, NameStyle::kOfficial)) {
      const Shape part = part_of(View(nullptr, DType::kF32, parameter->shape), name).shape;
      std::vector<int64_t> shape;
      for (int i = 0; i < part.rank(); ++i) shape.push_back(part[i]);
      const auto add = [&](const std::string& tensor, FileDType dtype, const std::vector<int64_t>& dims) {
        targets.push_back({{tensor, dtype, dims}, parameter->name});
      };
      switch (release_dtype(parameter->name)) {
        case ReleaseDType::kFp4:
          add(stored, FileDType::kI8, stored_shape(Encoding::kFp4, shape));
          add(scale_name(stored), FileDType::kF8E8M0, scale_shape(Encoding::kFp4, shape));
          break;
        case ReleaseDType::kFp8:
          add(stored, FileDType::kF8E4M3, shape);
          add(scale_name(stored), FileDType::kF8E8M0, scale_shape(Encoding::kFp8, shape));
          break;
        case ReleaseDType::kBF16:
          add(stored, FileDType::kBF16, shape);
          break;
        case ReleaseDType::kF32:
          add(stored, FileDType::kF32, shape);
          break;
        case ReleaseDType::kI64:
          add(stored, FileDType::kI64, shape);
          break;
      }
    }
  return targets;
}

// Fills a buffer with the bytes of a tensor; draws differ from tensor to tensor.
class Filler {
 public:
  explicit Filler(int64_t num_experts) : num_experts_(num_experts) {}

  const std::vector<std::byte>& fill(const Target& target) {
    bytes_.resize(static_cast<size_t>(target.info.num_bytes()));
    const bool is_norm = target.parameter.ends_with("norm.weight");
    switch (target.info.dtype) {
      case FileDType::kI8:  // every byte is two codes
        each<uint64_t>([&] { return next(); });
        break;
      case FileDType::kF8E4M3:  // exponents 0 to 7: no NaN, magnitudes up to 1.875
        each<uint64_t>([&] { return next() & 0xBFBFBFBFBFBFBFBFu; });
        break;
      case FileDType::kF8E8M0: {  // 2^-6 for FP8, 2^-8 for FP4
        const bool is_fp4 = target.parameter.find(".mlp.experts.") != std::string::npos;
        std::fill(bytes_.begin(), bytes_.end(), std::byte{static_cast<unsigned char>(is_fp4 ? 119 : 121)});
        break;
      }
      case FileDType::kBF16:  // ones, or up to 2^-5 in magnitude
        each<uint16_t>([&] { return is_norm ? 0x3F80 : static_cast<uint16_t>(0x3C80 | (next() & 0x807F)); });
        break;
      case FileDType::kF32:
        each<float>([&] { return static_cast<float>(static_cast<int64_t>(next() % 2001) - 1000) * 2e-5f; });
        break;
      default: {  // experts of a token id: neighbours
        int64_t index = 0;
        const int64_t width = target.info.shape.back();
        each<int64_t>([&] {
          const int64_t at = index++;
          return (at / width + at % width) % num_experts_;
        });
      }
    }
    return bytes_;
  }

 private:
  template <class Value, class Draw>
  void each(const Draw& draw) {
    for (size_t at = 0; at < bytes_.size(); at += sizeof(Value)) {
      const Value value = draw();
      std::memcpy(bytes_.data() + at, &value, std::min(sizeof value, bytes_.size() - at));
    }
  }
  uint64_t next() {  // xorshift64*
    state_ ^= state_ >> 12, state_ ^= state_ << 25, state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1Du;
  }

  const int64_t num_experts_;
  uint64_t state_ = 88172645463325252u;
  std::vector<std::byte> bytes_;
};

std::vector<std::vector<Target>> cut(const std::vector<Target>& targets) {
  std::vector<std::vector<Target>> shards(1);
  int64_t num_bytes = 0;
  for (const auto& target : targets) {
    if (num_bytes > kShardBytes) {
      shards.emplace_back();
      num_bytes = 0;
    }
    shards.back().push_back(target);
    num_bytes += target.info.num_bytes();
  }
  for (auto& shard : shards)
    std::stable_sort(shard.begin(), shard.end(), [](const Target& a, const Target& b) {
      return file_dtype_bytes(a.info.dtype) > file_dtype_bytes(b.info.dtype);
    });
  return shards;
}

void make(const fs::path& dir, int64_t num_experts) {
  fs::create_directories(dir);
  const std::string config = config_json(num_experts);
  model::ModelOptions options;
  options.max_tokens = 1;
  options.train = false;
  options.mtp = true;
  const model::Model model(model::parse_config(config, "the bench's config.json"), options);
  nlohmann::json index;
  int64_t total_bytes = 0;
  Filler filler(num_experts);
  const auto shards = cut(list_targets(model));
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    std::vector<TensorInfo> infos;
    for (const auto& target : shards[i]) {
      infos.push_back(target.info);
      index["weight_map"][target.info.name] = name;
      total_bytes += target.info.num_bytes();
    }
    SafetensorsWriter writer(dir / name, infos);
    for (const auto& target : shards[i]) writer.write(filler.fill(target).data(), target.info.num_bytes());
    writer.commit();
  }
  index["metadata"] = {{"total_size", total_bytes}};
  write_file_atomically(dir / std::string(kIndexFileName), index.dump(2) + "\n");
  write_file_atomically(dir / "config.json", config);
  int64_t num_parameters = 0;
  for (const layers::Parameter* parameter : model.parameters()) num_parameters += parameter->shape.size();
  fmt::print("{}: {} parameters, {} bytes in {} files\n", dir.string(), num_parameters, total_bytes, shards.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: make_quantised_model DIR [EXPERTS]\n");
    return 2;
  }
  try {
    make(argv[1], argc > 2 ? std::max(6, std::atoi(argv[2])) : 64);
  } catch (const Error& error) {
    fmt::print(stderr, "make_quantised_model: {}\n", error.what());
    return exit_code(error.code());
  }
  return 0;
}
