#include "train/tiny.h"

#include "base/file.h"
#include "base/philox.h"

namespace temper::train::testing {

model::Config tiny_config() {
  const std::string path = TEMPER_SOURCE_DIR "/tests/fixtures/v4/mixed_rate16/config.json";
  return model::parse_config(read_file(path), path);
}

std::vector<Document> random_documents(const std::vector<int64_t>& lengths, int64_t vocab_size, uint64_t seed) {
  const Philox random{seed, RandomPurpose::kTest};
  std::vector<Document> documents;
  for (size_t i = 0; i < lengths.size(); ++i) {
    Document document;
    for (int64_t t = 0; t < lengths[i]; ++t) document.push_back(static_cast<int32_t>(random.below(i, t, vocab_size)));
    documents.push_back(document);
  }
  return documents;
}

layers::MicroBatch pack_row(const std::vector<Document>& documents) {
  layers::MicroBatch batch;
  batch.cu_seqlens.push_back(0);
  for (const Document& document : documents) {
    for (size_t t = 0; t < document.size(); ++t) {
      const bool last = t + 1 == document.size();
      batch.tokens.push_back(document[t]);
      batch.targets.push_back(last ? -1 : document[t + 1]);
      batch.weights.push_back(last ? 0.0f : t % 3 == 0 ? 0.5f : 1.0f);
    }
    batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
  }
  return batch;
}

std::vector<double> to_host(layers::Ctx& ctx, View view) {
  std::vector<double> values(view.size());
  if (view.dtype == DType::kF64) {
    ctx.device.copy_to_host(ctx.stream, values.data(), view);
  } else {
    std::vector<float> narrow(view.size());
    CHECK(view.dtype == DType::kF32, view.to_string());
    ctx.device.copy_to_host(ctx.stream, narrow.data(), view);
    values.assign(narrow.begin(), narrow.end());
  }
  return values;
}

}  // namespace temper::train::testing
