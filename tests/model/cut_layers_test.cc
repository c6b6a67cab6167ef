// A model whose layers are on several ranks, cut between layers and within them, is the whole one to the bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "golden.h"

namespace temper::model {
namespace {

constexpr int64_t kLayers = 4;
const ExtraLosses kExtra{.balance = 3, .indexer = 0.5};

ModelOptions options_of(Recompute recompute, std::vector<SiteRange> chunks = {}, bool weights_later = false) {
  ModelOptions options;
  options.max_tokens = 29, options.logit_chunk = 8;
  options.recompute = recompute, options.indexer = IndexerUse::kTrain;
  options.part.chunks = std::move(chunks), options.part.weights_later = weights_later;
  return options;
}

std::unique_ptr<Rig> make_rig(const ModelOptions& options) {
  auto rig = std::make_unique<Rig>(golden::config(), options, backend::cpu());
  for (layers::Parameter* p : rig->model().parameters()) rig->set(*p, golden::parameters().at(p->name).values);
  rig->refresh();
  return rig;
}

layers::MicroBatch batch() {
  const std::vector<int32_t> tokens = golden::tokens();
  return next_token_batch({{tokens.begin(), tokens.begin() + 21}, {tokens.begin() + 21, tokens.end()}});
}

// What a step of two micro-batches leaves.
struct Result {
  double loss = 0;
  std::map<std::string, std::vector<double>> gradients;  // of every parameter; empty where it is not trained
  std::vector<double> balance_L = std::vector<double>(kLayers), indexer_L = balance_L;
  std::vector<std::vector<int32_t>> load_LE = std::vector<std::vector<int32_t>>(kLayers);
  std::vector<Choices::Layer> choices = std::vector<Choices::Layer>(kLayers);
};

void add(Result& result, Rig& rig) {
  for (const layers::Parameter* p : rig.model().parameters()) {
    const auto gradient = p->grad.defined() ? rig.read(p->grad) : std::vector<double>();
    EXPECT_TRUE(result.gradients.emplace(p->name, gradient).second) << p->name << " is there twice";
  }
  const AuxiliaryLosses losses = rig.model().auxiliary_losses(rig.ctx());
  const std::vector<MoeStatistics> moe_L = rig.model().moe_statistics(rig.ctx());
  const Choices choices = rig.model().choices(rig.ctx());
  for (int64_t l = 0; l < kLayers; ++l) {
    result.balance_L[l] += losses.balance_L[l], result.indexer_L[l] += losses.indexer_L[l];
    auto &load_E = result.load_LE[l], &chosen = result.choices[l].expert_TK, &selected = result.choices[l].selected_TA;
    load_E.resize(moe_L[l].load_E.size());
    std::transform(load_E.begin(), load_E.end(), moe_L[l].load_E.begin(), load_E.begin(), std::plus());
    const Choices::Layer& found = choices.layers[l];
    chosen.insert(chosen.end(), found.expert_TK.begin(), found.expert_TK.end());
    selected.insert(selected.end(), found.selected_TA.begin(), found.selected_TA.end());
  }
}

Result run_whole(Recompute recompute) {
  const auto rig = make_rig(options_of(recompute));
  Result result;
  result.loss = rig->loss_and_gradients(batch(), kExtra) + rig->add_gradients(batch(), kExtra);
  add(result, *rig);
  return result;
}

// The parts as stages of a pipeline, whose messages are copies.
Result run_parts(const std::vector<SiteRange>& parts, Recompute recompute, bool weights_later) {
  std::vector<std::unique_ptr<Rig>> rigs;
  for (const SiteRange& part : parts) rigs.push_back(make_rig(options_of(recompute, {part}, weights_later)));
  for (const auto& rig : rigs) rig->model().zero_gradients(rig->ctx());
  Result result;
  const layers::MicroBatch rows = batch();
  for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
    for (size_t p = 0; p < rigs.size(); ++p) {
      Rig& rig = *rigs[p];
      rig.model().begin(rig.ctx(), rows);
      if (p > 0) rig.ctx().ops.copy(nullptr, rig.model().input_streams(), rigs[p - 1]->model().output_streams());
      rig.model().forward_layers(rig.ctx());
    }
    const TokenResults found = rigs.back()->model().logprobs(rigs.back()->ctx());
    std::vector<double> dlogp_T(rows.tokens.size());
    for (size_t t = 0; t < dlogp_T.size(); ++t)
      if (rows.targets[t] >= 0) dlogp_T[t] = -rows.weights[t], result.loss -= rows.weights[t] * found.logp_T[t];
    for (size_t p = rigs.size(); p-- > 0;) {
      Rig& rig = *rigs[p];
      if (p + 1 < rigs.size())
        rig.ctx().ops.copy(nullptr, rig.model().streams_gradient(), rigs[p + 1]->model().streams_gradient());
      const LossGradients gradients{dlogp_T, {}, kExtra.balance, kExtra.indexer};
      if (!weights_later) rig.model().backward(rig.ctx(), gradients);
      if (weights_later) rig.model().backward_inputs(rig.ctx(), gradients), rig.model().backward_weights(rig.ctx());
    }
  }
  for (const auto& rig : rigs) add(result, *rig);
  return result;
}

void expect_equal(const Result& parts, const Result& whole) {
  EXPECT_EQ(parts.loss, whole.loss);
  EXPECT_EQ(parts.gradients.size(), whole.gradients.size());
  for (const auto& [name, gradient] : whole.gradients) EXPECT_EQ(parts.gradients.at(name), gradient) << name;
  EXPECT_EQ(parts.balance_L, whole.balance_L);
  EXPECT_EQ(parts.indexer_L, whole.indexer_L);
  EXPECT_EQ(parts.load_LE, whole.load_LE);
  for (int64_t l = 0; l < kLayers; ++l) {
    EXPECT_EQ(parts.choices[l].expert_TK, whole.choices[l].expert_TK);
    EXPECT_EQ(parts.choices[l].selected_TA, whole.choices[l].selected_TA);
  }
}

std::vector<SiteRange> parts_with_ends(const std::vector<int64_t>& ends) {
  std::vector<SiteRange> parts;
  for (const int64_t end : ends) parts.push_back({parts.empty() ? 0 : parts.back().end, end});
  return parts;
}

const std::vector<std::vector<int64_t>> kCuts = {{4, 8},    {3, 8},       {5, 8},
                                                 {1, 6, 8}, {3, 4, 7, 8}, {1, 2, 3, 4, 5, 6, 7, 8}};

TEST(CutLayers, GiveTheBitsOfTheWholeModelWhateverIsRebuilt) {
  for (const Recompute recompute : {Recompute::kNone, Recompute::kBlock, Recompute::kFull}) {
    const Result whole = run_whole(recompute);
    EXPECT_GT(whole.balance_L[1], 0);
    EXPECT_GT(whole.indexer_L[1], 0);
    for (const auto& ends : kCuts) {
      SCOPED_TRACE(::testing::PrintToString(ends));
      expect_equal(run_parts(parts_with_ends(ends), recompute, false), whole);
    }
  }
}

TEST(CutLayers, GiveTheBitsOfTheWholeModelInABackwardOfTwoPasses) {
  const Result whole = run_whole(Recompute::kNone);
  for (const auto& ends : kCuts) {
    SCOPED_TRACE(::testing::PrintToString(ends));
    expect_equal(run_parts(parts_with_ends(ends), Recompute::kNone, true), whole);
  }
}

// A rank declares nothing of a site that it does not have, and lists what it has in the order of the whole model.
TEST(CutLayers, HaveTheirShareOfMemoryAndParameters) {
  Model whole(golden::config(), options_of(Recompute::kNone));
  Book whole_book;
  whole.declare(whole_book);
  for (const auto& ends : kCuts) {
    int64_t parameter_bytes = 0, saved_bytes = 0;
    for (const SiteRange& part : parts_with_ends(ends)) {
      Model model(golden::config(), options_of(Recompute::kNone, {part}));
      Book book;
      model.declare(book);
      parameter_bytes += book.region_bytes(TensorKind::kParameter);
      saved_bytes += book.region_bytes(TensorKind::kSaved);
      auto place = whole.parameters().begin();
      for (const layers::Parameter* p : model.parameters()) {
        place =
            std::find_if(place, whole.parameters().end(), [&](const auto* other) { return other->name == p->name; });
        ASSERT_NE(place, whole.parameters().end()) << p->name;
      }
    }
    EXPECT_EQ(parameter_bytes, whole_book.region_bytes(TensorKind::kParameter));
    // The streams at a cut are on both sides of it.
    const Config config = golden::config();
    const int64_t streams = 29 * config.hc_mult * config.hidden_size * dtype_bytes(DType::kF32);
    const int64_t padded = (streams + Book::kAlignment - 1) / Book::kAlignment * Book::kAlignment;
    EXPECT_EQ(saved_bytes - whole_book.region_bytes(TensorKind::kSaved), (std::ssize(ends) - 1) * padded);
  }
}

}  // namespace
}  // namespace temper::model
