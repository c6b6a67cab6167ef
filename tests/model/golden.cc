#include "golden.h"

#include "base/check.h"

namespace temper::model::golden {

namespace {

constexpr int64_t V = 32, D = 16, M = 4, N = 4, H = 16, Q = 12, G = 2, O = 6, E = 8, K = 3, F = 10;
constexpr int64_t I = 8, P = 16;  // indexer heads and their width
constexpr int64_t kRates[] = {0, 4, 8, 4};

// Element i of tensor number id: uniform in [offset - scale, offset + scale).
double hashed(uint32_t i, uint32_t id, double scale, double offset) {
  uint32_t x = ((i + 1) * 0x9E3779B1u) ^ (id * 0x85EBCA6Bu);
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return offset + scale * (2 * (x / 4294967296.0) - 1);
}

// Makes the tensors in the order of page 14.1, each with the next number.
class Maker {
 public:
  Tensor next(Shape shape, double scale, double offset = 0) {
    ++id_;
    Tensor tensor{shape, {}};
    for (int64_t i = 0; i < shape.size(); ++i) tensor.values.push_back(hashed(i, id_, scale, offset));
    return tensor;
  }
  void skip() { ++id_; }
  void add(const std::string& name, Shape shape, double scale) { tensors_[name] = next(shape, scale); }
  void add_norm(const std::string& name, Shape shape) { tensors_[name] = next(shape, 0.2, 1); }
  void put(const std::string& name, Tensor tensor) { tensors_[name] = std::move(tensor); }
  std::map<std::string, Tensor> take() { return std::move(tensors_); }

 private:
  uint32_t id_ = 0;
  std::map<std::string, Tensor> tensors_;
};

void add_compressor(Maker& maker, const std::string& prefix, int64_t rate, int64_t Z, int64_t width) {
  maker.add(prefix + "kv_proj.weight", {Z, D}, 0.4);
  maker.add(prefix + "gate_proj.weight", {Z, D}, 0.5);
  maker.add(prefix + "position_bias", {rate, Z}, 0.5);
  maker.add_norm(prefix + "kv_norm.weight", {width});
}

void add_attention(Maker& maker, const std::string& prefix, int64_t rate) {
  maker.add(prefix + "q_a_proj.weight", {Q, D}, 0.4);
  maker.add_norm(prefix + "q_a_norm.weight", {Q});
  maker.add(prefix + "q_b_proj.weight", {N * H, Q}, 0.5);
  maker.add(prefix + "kv_proj.weight", {H, D}, 0.4);
  maker.add_norm(prefix + "kv_norm.weight", {H});
  maker.add(prefix + "sinks", {N}, 0.5);
  maker.add(prefix + "o_a_proj.weight", {G * O, N * H / G}, 0.3);
  maker.add(prefix + "o_b_proj.weight", {D, G * O}, 0.4);
  if (rate == 0) return;
  add_compressor(maker, prefix + "compressor.", rate, rate == 4 ? 2 * H : H, H);
  if (rate != 4) return;
  maker.add(prefix + "compressor.indexer.q_b_proj.weight", {I * P, Q}, 0.5);
  maker.add(prefix + "compressor.indexer.scorer.weights_proj.weight", {I, D}, 0.5);
  add_compressor(maker, prefix + "compressor.indexer.", 4, 2 * P, P);
}

// w1 and w3 of every expert, stacked as transformers has them: [E, 2F, D], gate rows first.
Tensor gate_up(Maker& maker) {
  const Tensor w1 = maker.next({E, F, D}, 0.6), w3 = maker.next({E, F, D}, 0.6);
  Tensor stacked{{E, 2 * F, D}, {}};
  for (int64_t e = 0; e < E; ++e) {
    for (const Tensor* half : {&w1, &w3}) {
      const auto begin = half->values.begin() + e * F * D;
      stacked.values.insert(stacked.values.end(), begin, begin + F * D);
    }
  }
  return stacked;
}

void add_moe(Maker& maker, const std::string& prefix, bool hash) {
  maker.add(prefix + "gate.weight", {E, D}, 0.6);
  if (hash) {
    maker.skip();
    Tensor table{{V, K}, {}};
    for (int64_t t = 0; t < V; ++t)
      for (const int64_t shift : {0, 3, 5}) table.values.push_back(static_cast<double>((t + shift) % E));
    maker.put(prefix + "gate.tid2eid", std::move(table));
  } else {
    maker.add(prefix + "gate.e_score_correction_bias", {E}, 0.05);
  }
  maker.put(prefix + "experts.gate_up_proj", gate_up(maker));
  maker.add(prefix + "experts.down_proj", {E, D, F}, 0.5);
  maker.add(prefix + "shared_experts.gate_proj.weight", {F, D}, 0.6);
  maker.add(prefix + "shared_experts.up_proj.weight", {F, D}, 0.6);
  maker.add(prefix + "shared_experts.down_proj.weight", {D, F}, 0.5);
}

void add_block(Maker& maker, const std::string& prefix, int64_t rate, bool hash) {
  for (const char* site : {"attn_hc.", "ffn_hc."}) {
    maker.add(prefix + site + "fn", {(2 + M) * M, M * D}, 0.3);
    maker.add(prefix + site + "base", {(2 + M) * M}, 0.3);
    maker.add_norm(prefix + site + "scale", {3});
  }
  maker.add_norm(prefix + "input_layernorm.weight", {D});
  maker.add_norm(prefix + "post_attention_layernorm.weight", {D});
  add_attention(maker, prefix + "self_attn.", rate);
  add_moe(maker, prefix + "mlp.", hash);
}

std::map<std::string, Tensor> make_parameters() {
  Maker maker;
  maker.add("model.embed_tokens.weight", {V, D}, 1.0);
  maker.add("lm_head.weight", {V, D}, 0.4);
  maker.add_norm("model.norm.weight", {D});
  maker.add("model.hc_head.hc_fn", {M, M * D}, 0.3);
  maker.add("model.hc_head.hc_base", {M}, 0.3);
  maker.add_norm("model.hc_head.hc_scale", {1});
  for (int64_t layer = 0; layer < 4; ++layer)
    add_block(maker, "model.layers." + std::to_string(layer) + ".", kRates[layer], layer == 0);
  add_block(maker, "mtp.0.", 0, false);
  maker.add("mtp.0.e_proj.weight", {D, D}, 0.3);
  maker.add("mtp.0.h_proj.weight", {D, D}, 0.3);
  for (const char* name : {"enorm", "hnorm", "norm"}) maker.add_norm(std::string("mtp.0.") + name + ".weight", {D});
  maker.add("mtp.0.hc_head.hc_fn", {M, M * D}, 0.3);
  maker.add("mtp.0.hc_head.hc_base", {M}, 0.3);
  maker.add_norm("mtp.0.hc_head.hc_scale", {1});
  return maker.take();
}

}  // namespace

Config config() {
  return parse_config(R"({
    "model_type": "deepseek_v4", "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 4, "num_nextn_predict_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 16, "qk_rope_head_dim": 8, "q_lora_rank": 12, "o_groups": 2, "o_lora_rank": 6,
    "sliding_window": 6, "index_n_heads": 8, "index_head_dim": 16, "index_topk": 3,
    "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 3, "moe_intermediate_size": 10,
    "scoring_func": "sqrtsoftplus", "routed_scaling_factor": 1.5, "swiglu_limit": 1.0,
    "hc_mult": 4, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6, "rms_norm_eps": 1e-6, "max_position_embeddings": 1024,
    "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention",
                    "compressed_sparse_attention"],
    "mlp_layer_types": ["hash_moe", "moe", "moe", "moe"],
    "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
    "rope_theta": 10000, "compress_rope_theta": 160000,
    "rope_scaling": {"type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1,
                     "original_max_position_embeddings": 64}})",
                      "golden model");
}

std::vector<int32_t> tokens() {
  std::vector<int32_t> out;
  for (int32_t t = 0; t < 29; ++t) out.push_back((7 * t * t + 3 * t + 5) % 32);
  return out;
}

const std::map<std::string, Tensor>& parameters() {
  static const std::map<std::string, Tensor> tensors = make_parameters();
  return tensors;
}

std::unique_ptr<Rig> make_rig(layers::Precision precision, const backend::Backend& backend, ModelOptions options) {
  options.precision = precision;
  options.max_tokens = 29;
  options.logit_chunk = 8;
  auto rig = std::make_unique<Rig>(config(), options, backend);
  size_t num_expected = 0;
  for (const auto& [name, tensor] : parameters()) num_expected += options.mtp || !name.starts_with("mtp.");
  CHECK(rig->model().parameters().size() == num_expected, rig->model().parameters().size(), num_expected);
  for (layers::Parameter* p : rig->model().parameters()) {
    const Tensor& tensor = parameters().at(p->name);
    CHECK(tensor.shape == p->shape, p->name);
    rig->set(*p, tensor.values);
  }
  rig->refresh();
  return rig;
}

}  // namespace temper::model::golden
