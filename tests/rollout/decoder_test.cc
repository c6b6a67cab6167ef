// Decoding with the cache equals the full forward pass, token by token, across window and compression borders.
#include "rollout/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "backend/registry.h"
#include "base/error.h"

namespace temper::rollout {
namespace {

using model::AttentionKind;

// Every layer kind; window, rates and top-k so small that 40 tokens cross each border several times.
model::Config tiny_config() {
  model::Config c;
  c.vocab_size = 40, c.hidden_size = 24, c.num_hidden_layers = 4;
  c.num_attention_heads = 4, c.head_dim = 16, c.qk_rope_head_dim = 8, c.q_lora_rank = 12;
  c.o_groups = 2, c.o_lora_rank = 6, c.sliding_window = 5;
  c.index_n_heads = 3, c.index_head_dim = 16, c.index_topk = 3;
  c.n_routed_experts = 6, c.num_experts_per_tok = 2, c.moe_intermediate_size = 10;
  c.routed_scaling_factor = 1.5, c.hc_mult = 4, c.initializer_range = 0.3;
  c.layer_types = {AttentionKind::kSliding, AttentionKind::kCsa, AttentionKind::kHca, AttentionKind::kCsa};
  c.is_hash_moe = {true, false, false, false};
  c.csa_rate = 4, c.hca_rate = 8;
  c.compress_rope = {160000, true, 16, 32, 1, 64};
  return c;
}

struct TinyRun {
  model::Model model;
  std::unique_ptr<Decoder> decoder;
  Book book;
  std::unique_ptr<backend::Arena> arena;
  const backend::Backend& device;
  backend::Stream* stream;
  layers::Ctx ctx;

  TinyRun(const backend::Backend& backend, layers::Precision precision, int64_t max_tokens, int64_t max_sequences)
      : model(tiny_config(), {.precision = precision, .max_tokens = max_tokens, .max_document = 64, .train = false}),
        device(backend),
        stream(backend.device.stream_create()),
        ctx{backend.ops, backend.device, stream, layers::act_dtype(precision), layers::acc_dtype(precision)} {
    model.declare(book);
    if (max_sequences > 0) {
      decoder = std::make_unique<Decoder>(model, max_sequences, 64);
      decoder->declare(book);
    }
    arena = std::make_unique<backend::Arena>(backend.device, book);
    model.prepare(ctx);
    model.initialize(ctx, 7);
  }
  ~TinyRun() { device.device.stream_destroy(stream); }
};

std::vector<int32_t> sequence(int64_t length, int32_t seed) {
  std::vector<int32_t> tokens;
  for (int32_t t = 0; t < length; ++t) tokens.push_back((7 * t * t + 3 * t + seed) % 40);
  return tokens;
}

double largest_difference(const std::vector<double>& a, const double* b, int64_t count) {
  double largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

void compare(const backend::Backend& backend, layers::Precision precision, double tolerance) {
  constexpr int64_t kLength = 40, kSequences = 2, V = 40;
  TinyRun full(backend, precision, kLength, 0), cached(backend, precision, 8, 3);
  std::vector<std::vector<double>> expected(kSequences);
  std::vector<std::vector<int32_t>> tokens;
  for (int64_t s = 0; s < kSequences; ++s) {
    tokens.push_back(sequence(kLength, static_cast<int32_t>(5 + 9 * s)));
    full.model.forward(full.ctx, {tokens[s], {0, kLength}, {}, {}});
    full.model.logits(full.ctx, 0, kLength, expected[s]);
  }
  // The second sequence starts three tokens late and in a slot of its own, so positions differ within a step.
  for (int32_t t = 0; t < kLength + 3; ++t) {
    std::vector<SlotToken> step;
    if (t < kLength) step.push_back({2, tokens[0][t], t});
    if (t >= 3) step.push_back({0, tokens[1][t - 3], t - 3});
    const auto& logits = cached.decoder->step(cached.ctx, step);
    for (size_t i = 0; i < step.size(); ++i) {
      const auto& want = expected[step[i].slot == 2 ? 0 : 1];
      const std::vector<double> row(want.begin() + step[i].position * V, want.begin() + (step[i].position + 1) * V);
      EXPECT_LE(largest_difference(row, &logits[i * V], V), tolerance) << "position " << step[i].position;
    }
  }
}

TEST(Decoder, EqualsFullForwardInFp64) { compare(backend::cpu_reference(), layers::Precision::kFp64, 1e-12); }
TEST(Decoder, EqualsFullForwardInFp32) { compare(backend::cpu(), layers::Precision::kFp32, 2e-4); }

TEST(Decoder, GenerateDoesNotDependOnHowManySequencesShareAStep) {
  std::vector<std::vector<int32_t>> prompts = {sequence(4, 1), sequence(9, 2), sequence(1, 3), sequence(6, 4)};
  const GenerateOptions options{.max_new_tokens = 12, .sampling = {.temperature = 0.8, .top_p = 0.9}, .seed = 3};
  TinyRun one(backend::cpu_reference(), layers::Precision::kFp64, 8, 1),
      three(backend::cpu_reference(), layers::Precision::kFp64, 8, 3);
  const auto answers = one.decoder->generate(one.ctx, prompts, options);
  EXPECT_EQ(answers, three.decoder->generate(three.ctx, prompts, options));
  for (const auto& answer : answers) EXPECT_EQ(answer.size(), 12u);
}

TEST(Decoder, StopsAtStopTokenAndAtLength) {
  TinyRun run(backend::cpu_reference(), layers::Precision::kFp64, 8, 2);
  const auto free_run = run.decoder->generate(run.ctx, {sequence(4, 1)}, {.max_new_tokens = 8});
  const int32_t stop = free_run[0][2];
  const auto stopped = run.decoder->generate(run.ctx, {sequence(4, 1)}, {.max_new_tokens = 8, .stop_token = stop});
  const auto first = std::find(free_run[0].begin(), free_run[0].end(), stop);
  EXPECT_EQ(stopped[0], std::vector<int32_t>(free_run[0].begin(), first + 1));
  EXPECT_EQ(run.decoder->generate(run.ctx, {sequence(60, 1)}, {.max_new_tokens = 100})[0].size(), 5u);
  EXPECT_THROW(run.decoder->generate(run.ctx, {sequence(64, 1)}, {}), Error);
}

TEST(Sampler, GreedyTakesTheLowestIdOfTheLargest) {
  const std::vector<double> logits = {0, 3, 1, 3};
  EXPECT_EQ(sample_token(logits, {}, {1, RandomPurpose::kSample}, 0, 0), 1);
}

TEST(Sampler, TopPCutsTheTailAndFrequenciesFollowTheSoftmax) {
  const std::vector<double> logits = {std::log(0.5), std::log(0.3), std::log(0.15), std::log(0.05)};
  const Philox random{11, RandomPurpose::kSample};
  std::vector<int> counts(4), nucleus(4);
  for (uint64_t i = 0; i < 20000; ++i) {
    ++counts[sample_token(logits, {.temperature = 1}, random, i, 0)];
    ++nucleus[sample_token(logits, {.temperature = 1, .top_p = 0.75}, random, i, 1)];
  }
  EXPECT_NEAR(counts[0] / 20000.0, 0.5, 0.015);
  EXPECT_NEAR(counts[3] / 20000.0, 0.05, 0.006);
  EXPECT_NEAR(nucleus[0] / 20000.0, 0.625, 0.015);
  EXPECT_EQ(nucleus[2] + nucleus[3], 0);
}

}  // namespace
}  // namespace temper::rollout
