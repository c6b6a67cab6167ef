#include "checkpoint/release.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "checkpoint/tensor_dir.h"
#include "tensor/dtype.h"

namespace temper::checkpoint {
namespace {

using Shape64 = std::vector<int64_t>;

// Collects the tensors of a release in the order of the page's table.
class Lister {
 public:
  explicit Lister(const Release& release) : r_(release) {}

  std::vector<TensorInfo> list() {
    const int64_t V = r_.vocab_size, d = r_.hidden_size, n = r_.hc_mult;
    add("embed.weight", FileDType::kBF16, {V, d});
    add("head.weight", FileDType::kBF16, {V, d});
    add("norm.weight", FileDType::kBF16, {d});
    hyper("hc_head", n, n * d, 1);
    for (int64_t layer = 0; layer < r_.num_hidden_layers; ++layer) {
      const std::string prefix = "layers." + std::to_string(layer) + ".";
      block(prefix, layer < r_.num_hash_layers);
      const int64_t ratio = layer < 2 ? r_.first_ratio : layer % 2 == 0 ? 4 : 128;
      if (ratio == 4) csa(prefix + "attn.");
      if (ratio == 128) hca(prefix + "attn.");
    }
    block("mtp.0.", false);
    fp8("mtp.0.e_proj", d, d);
    fp8("mtp.0.h_proj", d, d);
    for (const char* norm : {"enorm", "hnorm", "norm"})
      add(std::string("mtp.0.") + norm + ".weight", FileDType::kBF16, {d});
    hyper("mtp.0.hc_head", n, n * d, 1);
    return std::move(tensors_);
  }

 private:
  void add(const std::string& name, FileDType dtype, const Shape64& shape) { tensors_.push_back({name, dtype, shape}); }
  void fp8(const std::string& stem, int64_t out, int64_t in) {
    add(stem + ".weight", FileDType::kF8E4M3, {out, in});
    add(stem + ".scale", FileDType::kF8E8M0, {(out + 127) / 128, (in + 127) / 128});
  }
  void fp4(const std::string& stem, int64_t out, int64_t in) {
    add(stem + ".weight", FileDType::kI8, {out, in / 2});
    add(stem + ".scale", FileDType::kF8E8M0, {out, in / 32});
  }
  void hyper(const std::string& stem, int64_t rows, int64_t columns, int64_t num_scales) {
    add(stem + "_fn", FileDType::kF32, {rows, columns});
    add(stem + "_base", FileDType::kF32, {rows});
    add(stem + "_scale", FileDType::kF32, {num_scales});
  }

  // What every block has: 29 tensors and 6 for each expert.
  void block(const std::string& prefix, bool is_hash) {
    const int64_t d = r_.hidden_size, H = r_.num_attention_heads, D = r_.head_dim, rq = r_.q_lora_rank;
    const int64_t G = r_.o_groups, ro = r_.o_lora_rank, E = r_.n_routed_experts, f = r_.moe_intermediate_size;
    const int64_t n = r_.hc_mult;
    add(prefix + "attn_norm.weight", FileDType::kBF16, {d});
    add(prefix + "ffn_norm.weight", FileDType::kBF16, {d});
    hyper(prefix + "hc_attn", (2 + n) * n, n * d, 3);
    hyper(prefix + "hc_ffn", (2 + n) * n, n * d, 3);
    add(prefix + "attn.attn_sink", FileDType::kF32, {H});
    fp8(prefix + "attn.wq_a", rq, d);
    add(prefix + "attn.q_norm.weight", FileDType::kBF16, {rq});
    fp8(prefix + "attn.wq_b", H * D, rq);
    fp8(prefix + "attn.wkv", D, d);
    add(prefix + "attn.kv_norm.weight", FileDType::kBF16, {D});
    fp8(prefix + "attn.wo_a", G * ro, H * D / G);
    fp8(prefix + "attn.wo_b", d, G * ro);
    add(prefix + "ffn.gate.weight", FileDType::kBF16, {E, d});
    if (is_hash)
      add(prefix + "ffn.gate.tid2eid", FileDType::kI64, {r_.vocab_size, r_.num_experts_per_tok});
    else
      add(prefix + "ffn.gate.bias", FileDType::kF32, {E});
    for (int64_t e = 0; e < E; ++e) {
      const std::string expert = prefix + "ffn.experts." + std::to_string(e);
      fp4(expert + ".w1", f, d);
      fp4(expert + ".w3", f, d);
      fp4(expert + ".w2", d, f);
    }
    fp8(prefix + "ffn.shared_experts.w1", f, d);
    fp8(prefix + "ffn.shared_experts.w3", f, d);
    fp8(prefix + "ffn.shared_experts.w2", d, f);
  }

  void compressor(const std::string& prefix, int64_t rate, int64_t width, int64_t dim) {
    add(prefix + "wkv.weight", FileDType::kBF16, {width, r_.hidden_size});
    add(prefix + "wgate.weight", FileDType::kBF16, {width, r_.hidden_size});
    add(prefix + "ape", FileDType::kF32, {rate, width});
    add(prefix + "norm.weight", FileDType::kBF16, {dim});
  }
  void csa(const std::string& prefix) {
    compressor(prefix + "compressor.", 4, 2 * r_.head_dim, r_.head_dim);
    fp8(prefix + "indexer.wq_b", r_.index_n_heads * r_.index_head_dim, r_.q_lora_rank);
    add(prefix + "indexer.weights_proj.weight", FileDType::kBF16, {r_.index_n_heads, r_.hidden_size});
    compressor(prefix + "indexer.compressor.", 4, 2 * r_.index_head_dim, r_.index_head_dim);
  }
  void hca(const std::string& prefix) { compressor(prefix + "compressor.", 128, r_.head_dim, r_.head_dim); }

  const Release& r_;
  std::vector<TensorInfo> tensors_;
};

// Runs of tensors of about the same number of bytes, as many as there are shards.
std::vector<std::vector<TensorInfo>> deal(const std::vector<TensorInfo>& tensors, int num_shards) {
  int64_t total = 0, done = 0;
  for (const auto& tensor : tensors) total += tensor.num_bytes();
  std::vector<std::vector<TensorInfo>> shards(static_cast<size_t>(num_shards));
  for (const auto& tensor : tensors) {
    shards[static_cast<size_t>(static_cast<double>(done) / static_cast<double>(total) * num_shards)].push_back(tensor);
    done += tensor.num_bytes();
  }
  return shards;
}

// The header as the makers' library writes it; then a hole. Data may be unaligned, as in real files.
void write_file_with_hole(const std::filesystem::path& path, const std::vector<TensorInfo>& tensors) {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  int64_t end = 0;
  for (const auto& tensor : tensors) {
    const int64_t begin = end;
    end += tensor.num_bytes();
    header += ",\"" + tensor.name + "\":{\"dtype\":\"" + std::string(file_dtype_name(tensor.dtype)) +
              "\",\"shape\":" + nlohmann::json(tensor.shape).dump() + ",\"data_offsets\":[" + std::to_string(begin) +
              "," + std::to_string(end) + "]}";
  }
  header += "}";
  const uint64_t length = header.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file << header;
  file.close();
  std::filesystem::resize_file(path, sizeof length + length + static_cast<uint64_t>(end));
}

// Valid elements of a tensor.
std::string fill(const TensorInfo& tensor, int64_t num_experts, bool full_range, uint32_t& state) {
  std::string bytes;
  for (int64_t i = 0; i < tensor.size(); ++i) {
    state = state * 1664525u + 1013904223u;
    const uint32_t random = state >> 8;
    const float number = static_cast<float>(random % 20011) / 10007 - 1;
    const auto put = [&](const auto& value) { bytes.append(reinterpret_cast<const char*>(&value), sizeof value); };
    switch (tensor.dtype) {
      case FileDType::kI64:
        put(static_cast<int64_t>(random) % num_experts);
        break;
      case FileDType::kF32:
        put(number);
        break;
      case FileDType::kBF16:
        put(bf16(number));
        break;
      case FileDType::kF8E4M3: {
        const bool is_first = i % tensor.shape[1] % 128 == 0 && i / tensor.shape[1] % 128 == 0;
        const uint32_t code = random % 127 | (random >> 10 & 1) << 7;
        put(static_cast<uint8_t>(full_range && is_first ? 0x7E : code));
        break;
      }
      case FileDType::kI8:
        put(static_cast<uint8_t>(full_range && i % 16 == 0 ? 0xF0 | random % 16 : random % 256));
        break;
      default:  // scales from 2^-12 to 2^-5
        put(static_cast<uint8_t>(115 + random % 8));
    }
  }
  return bytes;
}

}  // namespace

Release flash() {
  return {"Flash", 129280, 4096, 43, 64, 512, 1024, 8, 1024, 64, 128, 512, 256, 6, 2048, 3, 4, 0, 1.5, 46};
}
Release pro() {
  return {"Pro", 129280, 7168, 61, 128, 512, 1536, 16, 1024, 64, 128, 1024, 384, 6, 3072, 3, 4, 128, 2.5, 64};
}

Release tiny() { return {"Tiny", 64, 64, 4, 2, 64, 32, 2, 32, 2, 64, 4, 4, 2, 32, 1, 4, 0, 1.5, 1}; }

std::string config_json(const Release& r) {
  nlohmann::ordered_json json = {
      {"architectures", {"DeepseekV4ForCausalLM"}},
      {"model_type", "deepseek_v4"},
      {"vocab_size", r.vocab_size},
      {"hidden_size", r.hidden_size},
      {"num_hidden_layers", r.num_hidden_layers},
      {"num_nextn_predict_layers", 1},
      {"num_attention_heads", r.num_attention_heads},
      {"num_key_value_heads", 1},
      {"head_dim", r.head_dim},
      {"qk_rope_head_dim", 64},
      {"q_lora_rank", r.q_lora_rank},
      {"o_groups", r.o_groups},
      {"o_lora_rank", r.o_lora_rank},
      {"sliding_window", 128},
      {"compress_rope_theta", 160000},
      {"rope_theta", 10000},
      {"rope_scaling",
       {{"type", "yarn"},
        {"factor", 16},
        {"beta_fast", 32},
        {"beta_slow", 1},
        {"original_max_position_embeddings", 65536}}},
      {"max_position_embeddings", 1048576},
      {"index_n_heads", r.index_n_heads},
      {"index_head_dim", r.index_head_dim},
      {"index_topk", r.index_topk},
      {"n_routed_experts", r.n_routed_experts},
      {"num_experts_per_tok", r.num_experts_per_tok},
      {"n_shared_experts", 1},
      {"moe_intermediate_size", r.moe_intermediate_size},
      {"scoring_func", "sqrtsoftplus"},
      {"topk_method", "noaux_tc"},
      {"norm_topk_prob", true},
      {"routed_scaling_factor", r.routed_scaling_factor},
      {"num_hash_layers", r.num_hash_layers},
      {"swiglu_limit", 10.0},
      {"hc_mult", r.hc_mult},
      {"hc_sinkhorn_iters", 20},
      {"hc_eps", 1e-6},
      {"rms_norm_eps", 1e-6},
      {"hidden_act", "silu"},
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
  auto& ratios = json["compress_ratios"] = {r.first_ratio, r.first_ratio};
  for (int64_t layer = 2; layer < r.num_hidden_layers; ++layer) ratios.push_back(layer % 2 == 0 ? 4 : 128);
  ratios.push_back(0);  // the MTP block
  return json.dump(2);
}

std::vector<TensorInfo> release_tensors(const Release& release) { return Lister(release).list(); }

void write_filled(const std::filesystem::path& dir, const Release& release, const std::vector<TensorInfo>& tensors,
                  bool full_range) {
  std::vector<TensorInfo> ordered = tensors;
  std::stable_sort(ordered.begin(), ordered.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return file_dtype_bytes(a.dtype) > file_dtype_bytes(b.dtype);
  });
  SafetensorsWriter writer(dir / std::string(kSingleFileName), ordered);
  uint32_t state = 1;
  for (const auto& tensor : ordered) {
    const std::string bytes = fill(tensor, release.n_routed_experts, full_range, state);
    writer.write(bytes.data(), static_cast<int64_t>(bytes.size()));
  }
  writer.commit();
  std::ofstream(dir / "config.json") << config_json(release);
}

bool write_sparse(const std::filesystem::path& dir, const Release& release, const std::vector<TensorInfo>& tensors) {
  nlohmann::json index;
  const auto shards = deal(tensors, release.num_shards);
  for (size_t i = 0; i < shards.size(); ++i) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
    write_file_with_hole(dir / name, shards[i]);
    struct stat info {};
    CHECK(::stat((dir / name).c_str(), &info) == 0);
    if (info.st_blocks * 512 > info.st_size / 2 + (1 << 20)) return false;  // the header takes blocks, too
    for (const auto& tensor : shards[i]) index["weight_map"][tensor.name] = name;
  }
  std::ofstream(dir / std::string(kIndexFileName)) << index.dump();
  std::ofstream(dir / "config.json") << config_json(release);
  return true;
}

}  // namespace temper::checkpoint
