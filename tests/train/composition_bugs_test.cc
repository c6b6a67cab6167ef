// The bugs that audits of other trainers found where parallelisms meet, and ours, each as a case by its name: a layout
// and data on which it would show, against one rank. Numbers of public threads say where it was seen.
//
// A new axis adds its cases to the table. A case is worth something if the bug, planted, makes it fail.
#include <gtest/gtest.h>

#include <functional>

#include "train/layouts.h"

namespace temper::train {
namespace {

using layers::MicroBatch;
using parallel::Layout;
using testing::TrainedCase;
using Lengths = std::vector<int64_t>;

MicroBatch documents(const Lengths& lengths, uint64_t seed) {
  return testing::pack_row(testing::random_documents(lengths, testing::tiny_config().vocab_size, seed));
}

// Trained from that position on; from the end on: a micro-batch without a trained token.
MicroBatch trained_from(MicroBatch batch, size_t first) {
  for (size_t t = 0; t < std::min(first, batch.targets.size()); ++t) batch.targets[t] = -1, batch.weights[t] = 0;
  return batch;
}
MicroBatch untrained(MicroBatch batch) { return trained_from(std::move(batch), batch.targets.size()); }

// Three steps of what `step` makes from a seed.
TrainedCase steps_of(const std::function<std::vector<MicroBatch>(uint64_t seed)>& step) {
  TrainedCase c;
  c.options.precision = layers::Precision::kFp32;
  c.options.logit_chunk = 24;
  for (uint64_t i = 0; i < 3; ++i) c.steps.push_back(step(100 * i));
  return c;
}

// Micro-batches of unequal lengths and shares of trained tokens.
TrainedCase uneven(size_t num_micro_batches) {
  return steps_of([=](uint64_t seed) {
    std::vector<MicroBatch> batches;
    for (size_t m = 0; m < num_micro_batches; ++m) {
      const auto length = static_cast<int64_t>(10 + 17 * m % 41);
      batches.push_back(trained_from(documents({length, 6, 23}, seed + m), 9 * m % 29));
    }
    return batches;
  });
}

TrainedCase with_prediction_block(TrainedCase c) {
  c.options.mtp = true, c.auxiliary.mtp = 0.5;
  return c;
}

TrainedCase frozen(const char* pattern, TrainedCase c) {
  c.options.frozen = {pattern};
  return c;
}

TrainedCase with_balance_loss(TrainedCase c) {
  c.auxiliary.balance = 0.5;
  return c;
}

// At the start this loss is small: with such a weight its gradient is as large as the others.
TrainedCase with_indexer_loss(TrainedCase c) {
  c.options.indexer = model::IndexerUse::kTrain, c.auxiliary.indexer = 100;
  return c;
}

// Six layers, of which the second and the fifth choose their entries.
TrainedCase of_six_layers(TrainedCase c) {
  c.config = testing::layout_config(6);
  return c;
}

TrainedCase with_router_biases(TrainedCase c) {
  c.auxiliary.bias_update_speed = 1e-2;
  return c;
}

TrainedCase with_expert_rounds(TrainedCase c) {
  c.has_expert_rounds = true;
  return c;
}

TrainedCase clipped(TrainedCase c) {
  c.max_grad_norm = 0.1;
  return c;
}

TrainedCase with_recompute(TrainedCase c) {
  c.options.recompute = model::Recompute::kFull;
  return c;
}

// Only the first of three micro-batches, the longest, is trained.
TrainedCase one_trained_of_three() {
  return steps_of([](uint64_t seed) {
    return std::vector{documents({40, 12}, seed), untrained(documents({30, 9}, seed + 1)),
                       untrained(documents({21}, seed + 2))};
  });
}

// The last micro-batch, of rank 1, has documents too short for a token after next.
TrainedCase one_without_prediction_rows() {
  return steps_of([](uint64_t seed) { return std::vector{documents({30, 9}, seed), documents({2, 2, 2}, seed + 1)}; });
}

TrainedCase one_document_of_many_shards() {
  return steps_of([](uint64_t seed) { return std::vector{documents({61}, seed), documents({3}, seed + 1)}; });
}

TrainedCase weighed_by_document(TrainedCase c) {
  c.objective.reduction = objective::ObjectiveOptions::Reduction::kSample;
  return c;
}

// As many tokens each. The long document costs more in the layers, the short ones more where the prediction block and
// its pass of the head are counted, too: they have more targets.
TrainedCase long_and_short_documents() {
  return steps_of([](uint64_t seed) {
    return std::vector{documents({16, 16, 16}, seed), trained_from(documents({48}, seed + 1), 14)};
  });
}

struct Bug {
  const char* name;
  Layout layout;
  TrainedCase trained;
  // What one rank trains, where it is not that.
  std::optional<TrainedCase> reference = std::nullopt;
};

// By what is wrong.
std::vector<Bug> bugs() {
  return {
      // The loss: a mean of ranks' or micro-batches' means instead of sum over Z (transformers #35207, mlx-lm #1544).
      {"MeanOfRanksMeans", {.dp = 2, .zero = 1}, uneven(2)},
      {"MeanOfMicroBatchesMeans", {.dp = 2, .zero = 2}, uneven(6)},
      {"RankWithoutTrainedTokenDividesByZero", {.dp = 3, .zero = 1}, one_trained_of_three()},
      {"RankWithoutTrainedTokenSkipsACollective", {.dp = 3, .ep = 1, .zero = 3}, one_trained_of_three()},
      {"MicroBatchesThatDpDoesNotDivideAreLost", {.dp = 4, .zero = 1}, uneven(6)},
      {"RankWithoutMicroBatchDoesNotJoinItsExperts", {.dp = 4, .ep = 4, .zero = 1}, uneven(3)},

      // The prediction block's loss divided once more (Megatron-LM #3943), or a rank without rows of it left behind.
      {"PredictionLossDividedByRanks", {.dp = 4, .zero = 1}, with_prediction_block(uneven(4))},
      {"PredictionLossDividedByStages", {.dp = 1, .pp = 2, .zero = 0}, with_prediction_block(uneven(4))},
      {"RankWithoutPredictionRowsDoesNotJoinItsExperts",
       {.dp = 2, .ep = 2, .zero = 1},
       with_prediction_block(one_without_prediction_rows())},
      // The embedding is read by the first stage and by the prediction block in the last one. Megatron-Bridge #5380:
      // its
      // copies drift apart; Megatron-LM #844: its gradients are added after each stage has shared them out in its way.
      {"EmbeddingOfThePredictionBlockDriftsAway", {.dp = 1, .pp = 3, .zero = 0}, with_prediction_block(uneven(4))},
      {"EmbeddingGradientsAddedAfterSharding", {.dp = 2, .pp = 2, .zero = 1}, with_prediction_block(uneven(4))},

      // Ours: a stage knew nothing of the block of another one, and refused the pattern as one that names nothing.
      {"FrozenPredictionBlockOfAnotherStage",
       {.dp = 1, .pp = 2, .zero = 1},
       frozen("mtp.*", with_prediction_block(uneven(2)))},

      // Losses beside the main one, counted by micro-batch or rank (Megatron-LM #5798, #7213, #7452).
      {"BalanceLossCountedByMicroBatch", {.dp = 2, .zero = 1}, with_balance_loss(uneven(6))},
      {"BalanceLossCountedByRank", {.dp = 4, .ep = 2, .zero = 0}, with_balance_loss(uneven(4))},
      {"BalanceLossOfAnEmptyMicroBatch", {.dp = 4, .ep = 2, .zero = 2}, with_balance_loss(uneven(5))},
      {"BalanceLossGrowsWithStages", {.dp = 1, .pp = 3, .zero = 0}, with_balance_loss(uneven(4))},  // megablocks #85
      {"IndexerLossOfTheRanksTokens", {.dp = 2, .zero = 1}, with_indexer_loss(uneven(3))},
      {"IndexerLossOfTheStagesLayers", {.dp = 1, .pp = 2, .zero = 1}, with_indexer_loss(uneven(3))},

      // Ours: a layer whose indexer was frozen beside others that are trained had no memory for its loss.
      {"IndexerFrozenInOneLayerOnly",
       {.dp = 1, .pp = 2, .zero = 1},
       frozen("model.layers.1.*", with_indexer_loss(of_six_layers(uneven(2))))},

      // Router biases follow loads that one rank has counted, or that recompute counted again (torchtitan #1593).
      {"RouterBiasFollowsLocalLoads", {.dp = 4, .zero = 1}, with_router_biases(uneven(4))},
      {"RouterBiasOfExpertsElsewhere", {.dp = 2, .ep = 2, .zero = 1}, with_router_biases(uneven(4))},
      {"LoadsCountedAgainByRecompute",
       {.dp = 2, .ep = 2, .zero = 1},
       with_recompute(with_router_biases(uneven(4))),
       with_router_biases(uneven(4))},

      // Gradients of experts: divided by the wrong group (megablocks #86), not added up over ranks with the same ones
      // (fairseq #4220), kept from the step before where no row came, lost in further rounds.
      {"ExpertGradientDividedByTheWrongGroup", {.dp = 4, .ep = 2, .zero = 0}, uneven(4)},
      {"ExpertGradientOfEqualExpertsNotAdded", {.dp = 4, .ep = 2, .zero = 2}, uneven(4)},
      {"ExpertWithoutRowsKeepsItsGradient", {.dp = 2, .ep = 2, .zero = 1}, steps_of([](uint64_t seed) {
         return std::vector{documents({4}, seed), documents({3}, seed + 1)};
       })},
      {"RowsBeyondTheBudgetAreDropped", {.dp = 4, .ep = 4, .zero = 0}, with_expert_rounds(uneven(4))},

      // Norms: copies counted twice (NeMo-RL #3788), experts not at all or as a mean (Megatron-LM #5916, DeepSpeed
      // #8475), a clip factor of a part of the model (ColossalAI #2192).
      {"NormOfCopiesCountedTwice", {.dp = 4, .ep = 2, .zero = 0}, uneven(4)},
      {"NormOfExpertsAveraged", {.dp = 4, .ep = 4, .zero = 1}, uneven(4)},
      {"NormOfTheEmbeddingCountedByBothEnds", {.dp = 1, .pp = 2, .zero = 0}, with_prediction_block(uneven(2))},
      {"ClipFactorOfOneStage", {.dp = 1, .pp = 3, .zero = 1}, clipped(uneven(3))},
      {"ClipFactorOfOneShard", {.dp = 3, .zero = 2}, clipped(uneven(3))},

      // Tensor parallelism. Norms and results counted by each of its ranks; a target, or the best word, that another
      // rank
      // has; heads, queries or rows of one rank taken for all; rows that ranks cannot share evenly.
      {"NormOfWholeParametersCountedByTensorRank", {.dp = 1, .tp = 2, .zero = 0}, clipped(uneven(3))},
      {"NormOfSlicesCountedOnce", {.dp = 2, .tp = 2, .zero = 0}, uneven(4)},
      {"LossCountedByTensorRank", {.dp = 2, .tp = 2, .zero = 1}, uneven(2)},
      {"TargetIsAWordOfAnotherRank", {.dp = 1, .tp = 4, .zero = 0}, uneven(3)},
      {"PredictionRowsOwnedByOtherRanksThanMainRows",
       {.dp = 1, .tp = 4, .zero = 0},
       with_prediction_block(one_without_prediction_rows())},
      {"IndexerFollowsTheRanksHeads", {.dp = 1, .tp = 2, .zero = 1}, with_indexer_loss(uneven(3))},
      {"BalanceLossOfTheRanksRows", {.dp = 1, .tp = 2, .zero = 1}, with_balance_loss(uneven(3))},
      {"LoadsCountedByTensorRank", {.dp = 1, .ep = 2, .tp = 2, .zero = 1}, with_router_biases(uneven(3))},
      {"FewerRowsThanTensorRanks", {.dp = 1, .ep = 2, .tp = 4, .zero = 2}, steps_of([](uint64_t seed) {
         return std::vector{documents({2, 3}, seed), documents({2}, seed + 1), documents({21}, seed + 2)};
       })},
      {"RowsSentToStagesOfOtherTensorRanks",
       {.dp = 1, .pp = 2, .tp = 2, .zero = 2},
       with_recompute(uneven(4)),
       uneven(4)},

      // Shared memory: the weights of the layer that ran last taken for the new ones, pieces of unequal size.
      {"StaleWeightsAfterTheUpdate", {.dp = 2, .zero = 3}, uneven(2)},
      {"StaleWeightsOfRecompute", {.dp = 2, .pp = 2, .zero = 3}, with_recompute(uneven(4)), uneven(4)},
      {"LastPieceShorterThanTheOthers", {.dp = 3, .zero = 1}, uneven(3)},

      // Documents cut over ranks: gradients divided by cp once or twice; labels shifted and positions counted after the
      // cut instead of before it; documents' weights, balance and indexer losses of each shard by itself; gradients of
      // rows that the next rank read forgotten.
      {"ContextParallelQuartersAGradient", {.dp = 1, .cp = 2, .zero = 0}, uneven(2)},
      {"ContextParallelQuartersAShardedGradient", {.dp = 2, .cp = 2, .zero = 2}, uneven(4)},
      {"LabelsShiftedWithinTheShard", {.dp = 1, .cp = 4, .zero = 1}, with_prediction_block(uneven(2))},
      {"PositionsRestartAtTheShard", {.dp = 1, .cp = 3, .zero = 1}, one_document_of_many_shards()},
      {"DocumentsWeighedByTheirShards", {.dp = 1, .cp = 2, .zero = 1}, weighed_by_document(uneven(3))},
      {"BalanceLossOfTheShardsLoads", {.dp = 1, .cp = 2, .zero = 1}, with_balance_loss(uneven(3))},
      {"IndexerLossOfTheShardsTokens", {.dp = 1, .cp = 3, .zero = 1}, with_indexer_loss(uneven(3))},
      {"GradientOfBoundaryRowsForgotten", {.dp = 1, .cp = 8, .zero = 1}, one_document_of_many_shards()},
      {"RankWithoutRowsSkipsTheExchange", {.dp = 1, .ep = 4, .cp = 4, .zero = 1}, one_without_prediction_rows()},

      // Ours: stages dealt their micro-batches by what their own layers cost, and so in different orders.
      {"StagesDealMicroBatchesInDifferentOrders",
       {.dp = 2, .pp = 2, .zero = 1},
       with_prediction_block(long_and_short_documents())},
  };
}

class CompositionBug : public ::testing::TestWithParam<Bug> {};

TEST_P(CompositionBug, IsNotHere) {
  const Bug& bug = GetParam();
  const auto one = testing::train_alone(bug.reference ? *bug.reference : bug.trained);
  const auto d = testing::difference(testing::train_on(bug.layout, bug.trained), one);
  EXPECT_LE(d.first_step, 1e-6);
  EXPECT_LE(d.auxiliary, 1e-6);
  EXPECT_LE(d.gradient, 1e-6);
  EXPECT_LE(d.worst_gradient, 1e-4) << d.worst_parameter;
  EXPECT_LE(d.curve, 1e-5);
  // AdamW's first steps are as long for a gradient of nearly 0 whose sign is a matter of rounding; where documents or
  // heads are cut, every sum is another.
  EXPECT_LE(d.weight, bug.layout.cp * bug.layout.tp > 1 ? 2e-5 : 1e-5);
  EXPECT_LE(d.bias, 1e-6);
  EXPECT_TRUE(d.same_loads);
  if (bug.trained.max_grad_norm < 1) EXPECT_GT(one.norms[0], bug.trained.max_grad_norm) << "to be clipped";
}

INSTANTIATE_TEST_SUITE_P(Named, CompositionBug, ::testing::ValuesIn(bugs()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace temper::train
