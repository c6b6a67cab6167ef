// Random start of a model (architecture page 8).
#include <cstring>

#include "base/philox.h"
#include "model/model.h"

namespace temper::model {
namespace {

using layers::Ctx;
using layers::Init;
using layers::Parameter;

// FNV-1a: names a tensor in the random key, whatever its place in the list.
uint64_t hash_name(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const unsigned char c : name) hash = (hash ^ c) * 0x100000001b3ull;
  return hash;
}

// Elements [begin, begin + count) of the rank's part.
std::vector<double> initial_values(const Parameter& p, int64_t begin, int64_t count, double stddev, uint64_t seed) {
  std::vector<double> values(count, p.init == Init::kOnes ? 1.0 : 0.0);
  if (p.init != Init::kNormal) return values;
  const Philox random{seed, RandomPurpose::kInit};
  const uint64_t key = hash_name(p.name);
  for (int64_t i = 0; i < count; ++i) values[i] = stddev * random.normal(key, p.whole_index(begin + i));
  return values;
}

// K distinct experts per token: a random start and a fixed odd stride would favour patterns, so each row is a partial
// shuffle.
std::vector<int64_t> initial_hash_table(const Parameter& p, int64_t num_experts, uint64_t seed) {
  const int64_t V = p.shape[0], K = p.shape[1];
  const Philox random{seed, RandomPurpose::kInit};
  const uint64_t key = hash_name(p.name);
  std::vector<int64_t> table(V * K), experts(num_experts);
  for (int64_t v = 0; v < V; ++v) {
    for (int64_t e = 0; e < num_experts; ++e) experts[e] = e;
    for (int64_t k = 0; k < K; ++k) {
      std::swap(experts[k], experts[k + random.below(key, v * K + k, num_experts - k)]);
      table[v * K + k] = experts[k];
    }
  }
  return table;
}

}  // namespace

void Model::initialize(Ctx& ctx, uint64_t seed) {
  for (Parameter* p : parameters_) {
    if (p->init == Init::kHashTable) {
      const auto table = initial_hash_table(*p, config_.n_routed_experts, seed);
      ctx.device.copy_to_device(ctx.stream, p->value, table.data());
      continue;
    }
    const bool is_owned = p->master.defined();
    const View target = is_owned ? p->master : p->value;
    const auto values =
        initial_values(*p, is_owned ? p->owned_begin() : 0, target.size(), config_.initializer_range, seed);
    if (target.dtype == DType::kF64) {
      ctx.device.copy_to_device(ctx.stream, target, values.data());
    } else if (target.dtype == DType::kF32) {
      ctx.device.copy_to_device(ctx.stream, target, std::vector<float>(values.begin(), values.end()).data());
    } else {
      std::vector<bf16> rounded;
      rounded.reserve(values.size());
      for (const double value : values) rounded.emplace_back(value);
      ctx.device.copy_to_device(ctx.stream, target, rounded.data());
    }
  }
  refresh_values(ctx);
}

}  // namespace temper::model
