#include "train/spike_detector.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"

namespace temper::train {
namespace {

// Losses that fall from 8 to 2 over some hundred steps, with noise of 0.1 that depends on the step only.
double loss_at(int64_t step) {
  return 2 + 6 * std::exp(-static_cast<double>(step) / 150) + 0.1 * std::sin(12.9898 * static_cast<double>(step));
}
double norm_at(int64_t step) { return 1 + 0.5 * std::sin(78.233 * static_cast<double>(step)); }

SpikeDetector after(int64_t num_steps) {
  SpikeDetector detector(6, 10);
  for (int64_t i = 0; i < num_steps; ++i) detector.see(loss_at(i), norm_at(i));
  return detector;
}

TEST(SpikeDetector, IsQuietOverAnOrdinaryRun) {
  SpikeDetector detector(6, 10);
  for (int64_t i = 0; i < 1000; ++i)
    EXPECT_EQ(detector.see(loss_at(i), norm_at(i)).anomaly, Anomaly::kNone) << "step " << i;
}

TEST(SpikeDetector, SigmaIsThatOfTheWeights) {
  // Losses 1, 3, 1, 3, ...: mean 2, sigma 1 over any even number up to the window.
  SpikeDetector detector(6, 10);
  for (int64_t i = 0; i < 64; ++i) detector.see(i % 2 == 0 ? 1 : 3, 1);
  EXPECT_EQ(SpikeDetector(detector).see(7.99, 1).anomaly, Anomaly::kNone);
  const Judgement spike = detector.see(8.01, 1);
  EXPECT_EQ(spike.anomaly, Anomaly::kLossSpike);
  EXPECT_NEAR(spike.limit, 8, 1e-12);
  EXPECT_NEAR(spike.usual, 2, 1e-12);
}

TEST(SpikeDetector, GradientNormIsComparedWithTheMedian) {
  SpikeDetector detector = after(200);
  const double usual = detector.see(loss_at(200), 100).usual;
  EXPECT_NEAR(usual, 1, 0.1);
  EXPECT_EQ(detector.see(loss_at(200), 9.9 * usual).anomaly, Anomaly::kNone);
  EXPECT_EQ(detector.see(loss_at(201), 10.5 * usual).anomaly, Anomaly::kGradientSpike);
}

TEST(SpikeDetector, WhatIsNotFiniteIsSeenFromTheFirstStep) {
  SpikeDetector detector(6, 10);
  EXPECT_EQ(detector.see(std::numeric_limits<double>::quiet_NaN(), 1).anomaly, Anomaly::kNonFinite);
  EXPECT_EQ(detector.see(1, std::numeric_limits<double>::infinity()).anomaly, Anomaly::kNonFinite);
}

TEST(SpikeDetector, JudgesSpikesFromThe33rdStepOn) {
  EXPECT_EQ(after(31).see(1000, 1).anomaly, Anomaly::kNone);
  EXPECT_EQ(after(32).see(1000, 1).anomaly, Anomaly::kLossSpike);
}

TEST(SpikeDetector, AnomalousStepsDoNotEnter) {
  SpikeDetector detector = after(100);
  const auto before = detector.to_json();
  detector.see(std::numeric_limits<double>::quiet_NaN(), 1);
  EXPECT_EQ(detector.to_json(), before);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(detector.see(1000, 1).anomaly, Anomaly::kLossSpike);
  EXPECT_EQ(detector.num_spikes_in_row(), 20);
  EXPECT_EQ(detector.to_json()["loss_mean"], before["loss_mean"]);
  EXPECT_EQ(detector.see(loss_at(100), 1).anomaly, Anomaly::kNone);
  EXPECT_EQ(detector.num_spikes_in_row(), 0);
}

TEST(SpikeDetector, BeginsAnewWhenTheLevelHasMoved) {
  SpikeDetector detector = after(100);
  for (int64_t i = 0; i < SpikeDetector::kNeeded; ++i) EXPECT_EQ(detector.see(1000, 1).anomaly, Anomaly::kLossSpike);
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(detector.see(1000, 1).anomaly, Anomaly::kNone);
}

TEST(SpikeDetector, ConstantLossesHaveNoSpikeWithinThreePercent) {
  SpikeDetector detector(6, 10);
  for (int i = 0; i < 200; ++i) detector.see(2, 0);
  EXPECT_EQ(detector.see(2.05, 1).anomaly, Anomaly::kNone);
  EXPECT_EQ(detector.see(2.10, 1).anomaly, Anomaly::kLossSpike);
}

TEST(SpikeDetector, StateIsExact) {
  for (const int64_t num_steps : {0, 1, 57, 300}) {
    SpikeDetector detector = after(num_steps), restored(6, 10);
    restored.from_json(nlohmann::ordered_json::parse(detector.to_json().dump()));
    for (int64_t i = num_steps; i < num_steps + 200; ++i) {
      detector.see(loss_at(i), norm_at(i)), restored.see(loss_at(i), norm_at(i));
      ASSERT_EQ(detector.to_json().dump(), restored.to_json().dump());
    }
  }
}

TEST(SpikeDetector, RefusesAStateThatCannotBe) {
  SpikeDetector detector(6, 10);
  auto json = after(10).to_json();
  json.erase("loss_mean");
  EXPECT_THROW(detector.from_json(json), Error);
  json = after(10).to_json();
  json["grad_norms"] = {1.0};
  EXPECT_THROW(detector.from_json(json), Error);
  EXPECT_THROW(detector.from_json("nonsense"), Error);
}

}  // namespace
}  // namespace temper::train
