// A model that is streamed computes what the same model computes when it is whole.
#include "verify/streamed_model.h"

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "checkpoint/model_dir.h"
#include "verify/memory.h"
#include "verify/tiny_dir.h"
#include "verify/tokens.h"

namespace temper::verify::test {
namespace {

std::vector<float> read(layers::Ctx& ctx, const View& view) {
  std::vector<float> values(static_cast<size_t>(view.size()));
  ctx.device.copy_to_host(ctx.stream, values.data(), view);
  return values;
}

class StreamedModelTest : public testing::TestWithParam<const char*> {};

TEST_P(StreamedModelTest, ComputesTheLogitsOfTheWholeModel) {
  const auto dir = fixture(GetParam());
  const model::Config config = checkpoint::load_config(dir);
  const backend::Backend& cpu = backend::cpu();
  layers::MicroBatch tokens = read_tokens({{}, 40, 3}, config);
  tokens.cu_seqlens = {0, 13, 40};
  model::ModelOptions options;
  options.max_tokens = 40;
  options.train = false;

  model::Model whole(config, options);
  Book book;
  whole.declare(book);
  const backend::Arena arena(cpu.device, book);
  backend::Stream* stream = cpu.device.stream_create();
  layers::Ctx ctx{cpu.ops, cpu.device, stream, DType::kF32, DType::kF32};
  whole.prepare(ctx);
  checkpoint::load_weights(dir, ctx, whole.parameters());
  whole.forward(ctx, tokens);
  std::vector<double> expected;
  whole.logits(ctx, 0, 40, expected);

  const Weights weights(dir);
  weights.refuse_misfits();
  StreamedModel model(cpu, stream, weights, layers::Precision::kFp32, tokens);
  model.embed();
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
    LoadedLayer layer(model, l);
    layer.forward(model.next_streams(), model.streams());
    model.swap();
  }
  std::vector<float> logits(expected.size());
  Head head(model, model.collapse());
  for (int64_t chunk = 0; chunk < head.num_chunks(); ++chunk) {
    const View logits_TC = head.logits(chunk);
    const auto values = read(model.ctx(), logits_TC);
    for (int64_t t = 0; t < 40; ++t)
      for (int64_t c = 0; c < logits_TC.dim(1); ++c)
        logits[t * config.vocab_size + head.first_id(chunk) + c] = values[t * logits_TC.dim(1) + c];
  }
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(logits[i], expected[i], 1e-5) << i;
  cpu.device.stream_destroy(stream);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, StreamedModelTest, testing::Values("mixed_rate16", "official_spelling", "sliding"));

TEST(MemoryTest, MeasuresAPeakThatIsGone) {
  const int64_t before = private_bytes();
  ASSERT_GT(before, 0);
  PeakMemory peak;
  {
    std::vector<char> block(size_t{64} << 20, 1);
    for (int wait = 0; wait < 1000 && peak.bytes() < before + (60 << 20); ++wait)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_GE(peak.bytes(), before + (60 << 20));
}

}  // namespace
}  // namespace temper::verify::test
