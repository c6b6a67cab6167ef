// Vectors of post-training 7.4: max 1e-5, min 1e-6, warm-up 100, total 1000.
#include "optim/schedule.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace temper::optim {
namespace {

Schedule make(ScheduleKind kind, DecayKind decay = DecayKind::kCosine) {
  Schedule s;
  s.kind = kind, s.decay = decay, s.max_lr = 1e-5, s.min_lr = 1e-6;
  s.warmup_steps = 100, s.decay_steps = 200, s.total_steps = 1000;
  return s;
}

TEST(ScheduleTest, WarmupIsTheSameForEveryKind) {
  for (auto kind : {ScheduleKind::kConstant, ScheduleKind::kLinear, ScheduleKind::kCosine, ScheduleKind::kWsd}) {
    const Schedule s = make(kind);
    EXPECT_DOUBLE_EQ(s.at(0), 0);
    EXPECT_DOUBLE_EQ(s.at(50), 5e-6);
    EXPECT_DOUBLE_EQ(s.at(100), 1e-5);
  }
}

TEST(ScheduleTest, WarmupOffsetStartsAboveZero) {
  Schedule s = make(ScheduleKind::kConstant);
  s.warmup_offset = 1;
  EXPECT_DOUBLE_EQ(s.at(0), 1e-7);
  EXPECT_DOUBLE_EQ(s.at(99), 1e-5);
}

TEST(ScheduleTest, WsdDecays) {
  const struct {
    DecayKind decay;
    double at_850, at_900;
  } cases[] = {{DecayKind::kLinear, 7.75e-6, 5.5e-6},
               {DecayKind::kCosine, 8.6820e-6, 5.5e-6},
               {DecayKind::kMinusSqrt, 5.5e-6, 3.6360e-6},
               {DecayKind::kExponential, 7.1361e-6, 4.7279e-6}};
  for (const auto& c : cases) {
    const Schedule s = make(ScheduleKind::kWsd, c.decay);
    EXPECT_DOUBLE_EQ(s.at(799), 1e-5);
    EXPECT_DOUBLE_EQ(s.at(800), 1e-5);
    EXPECT_NEAR(s.at(850), c.at_850, 5e-11);
    EXPECT_NEAR(s.at(900), c.at_900, 5e-11);
    EXPECT_NEAR(s.at(1000), 1e-6, 1e-18);
    EXPECT_NEAR(s.at(5000), 1e-6, 1e-18);
  }
}

TEST(ScheduleTest, CosineAndLinear) {
  const Schedule cosine = make(ScheduleKind::kCosine);
  EXPECT_NEAR(cosine.at(325), 8.6820e-6, 5e-11);
  EXPECT_NEAR(cosine.at(550), 5.5e-6, 1e-15);
  EXPECT_NEAR(cosine.at(775), 2.3180e-6, 5e-11);
  EXPECT_NEAR(cosine.at(1000), 1e-6, 1e-18);
  const Schedule linear = make(ScheduleKind::kLinear);
  EXPECT_NEAR(linear.at(550), 5.5e-6, 1e-15);
  EXPECT_NEAR(linear.at(1000), 1e-6, 1e-18);
}

TEST(ScheduleTest, RefusesWhatDoesNotFit) {
  Schedule s = make(ScheduleKind::kWsd);
  EXPECT_NO_THROW(validate(s));
  s.decay_steps = 901;
  EXPECT_THROW(validate(s), Error);
  s = make(ScheduleKind::kCosine);
  s.warmup_steps = 1001;
  EXPECT_THROW(validate(s), Error);
  s = make(ScheduleKind::kCosine);
  s.min_lr = 2e-5;
  EXPECT_THROW(validate(s), Error);
  EXPECT_THROW(parse_schedule("cosin"), Error);
  EXPECT_THROW(parse_decay("sqrt"), Error);
  EXPECT_EQ(parse_schedule("wsd"), ScheduleKind::kWsd);
  EXPECT_EQ(parse_decay("minus-sqrt"), DecayKind::kMinusSqrt);
}

}  // namespace
}  // namespace temper::optim
