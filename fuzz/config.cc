// The bytes are config.json of a model. An accepted one is valid and bounded, and its source reads back as the same.
#include "model/config.h"

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace temper;
  fuzz::accepts([&] {
    const auto config = model::parse_config(std::string(fuzz::as_text(data, size)), "fuzz");
    CHECK(std::ssize(config.layer_types) == config.num_hidden_layers, config.num_hidden_layers);
    CHECK(std::ssize(config.is_hash_moe) == config.num_hidden_layers, config.num_hidden_layers);
    CHECK(config.num_hidden_layers <= model::kMaxLayers && config.vocab_size <= 1 << 24);
    CHECK(config.compress_rates().size() <= 2);
    CHECK(model::parse_config(config.source, "again").source == config.source);
  });
  return 0;
}
