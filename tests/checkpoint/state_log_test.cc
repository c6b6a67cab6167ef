#include "checkpoint/state_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "files.h"

namespace temper::checkpoint {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A state of few bytes that differs from step to step, with memory of its own.
struct SmallState {
  explicit SmallState(int64_t step, std::optional<double> score = std::nullopt) {
    for (int i = 0; i < 6; ++i) floats.push_back(static_cast<float>(step) + 0.5f * static_cast<float>(i));
    for (int i = 0; i < 3; ++i) counts.push_back(step * 1000 + i);
    for (int i = 0; i < 5; ++i) halves.push_back(bf16(static_cast<float>(step - i)));
    contents.step = step;
    contents.score = score;
    contents.facts = {{"loader", {{"epoch", 2}, {"example", step}}}, {"note", "für \"immer\""}};
    contents.tensors = {{"halves", DType::kBF16, {5}, halves.data()},
                        {"floats", DType::kF32, {2, 3}, floats.data()},
                        {"counts", DType::kI64, {3, 1}, counts.data()},
                        {"empty", DType::kF64, {0, 4}, nullptr}};
  }
  SmallState(const SmallState&) = delete;
  std::vector<float> floats;
  std::vector<int64_t> counts;
  std::vector<bf16> halves;
  StateContents contents;
};

std::string bytes_of(const OpenedState& state, std::string_view name) {
  const ManifestTensor* tensor = state.find(name);
  if (!tensor) return "no tensor";
  std::string bytes(static_cast<size_t>(tensor->num_bytes), '\0');
  state.read(*tensor, bytes.data());
  return bytes;
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

constexpr int64_t kAny = std::numeric_limits<int64_t>::max();

TEST(StateLogTest, WhatIsWrittenIsRead) {
  const TempDir dir;
  StateLog log(dir / "state", {});
  EXPECT_THAT(log.steps(), ElementsAre());
  const SmallState written(120, 1.5);
  const std::string hash = log.write(written.contents);
  EXPECT_THAT(log.steps(), ElementsAre(120));
  const OpenedState read = StateLog(dir / "state", {}).open(120);
  EXPECT_EQ(read.hash(), hash);
  EXPECT_EQ(read.step(), 120);
  EXPECT_EQ(read.score(), 1.5);
  EXPECT_EQ(read.facts(), written.contents.facts);
  EXPECT_EQ(read.facts().dump(), written.contents.facts.dump());
  EXPECT_EQ(bytes_of(read, "floats"), bytes_of(written.floats));
  EXPECT_EQ(bytes_of(read, "counts"), bytes_of(written.counts));
  EXPECT_EQ(bytes_of(read, "halves"), bytes_of(written.halves));
  EXPECT_EQ(bytes_of(read, "empty"), "");
  EXPECT_EQ(read.find("floats")->shape, (Shape{2, 3}));
  EXPECT_EQ(read.find("halves")->dtype, DType::kBF16);
  EXPECT_EQ(read.find("nothing"), nullptr);
}

TEST(StateLogTest, TheTensorsAreASafetensorsFile) {
  const TempDir dir;
  const SmallState written(3);
  StateLog(dir / "state", {}).write(written.contents);
  const SafetensorsFile file(dir / "state" / "step-00000003" / "tensors-00000.safetensors");
  ASSERT_EQ(file.tensors().size(), 4u);
  EXPECT_EQ(file.find("floats")->to_string(), "F32 [2, 3]");
  EXPECT_EQ(std::memcmp(file.find("halves")->data, written.halves.data(), 10), 0);
}

TEST(StateLogTest, EqualStatesHaveEqualHashesAndOthersOthers) {
  const TempDir dir;
  StateLog log(dir / "state", {});
  SmallState state(7);
  const std::string first = log.write(state.contents);
  EXPECT_EQ(log.write(state.contents), first);
  state.halves[4] = bf16(99.0f);
  EXPECT_NE(log.write(state.contents), first);
  EXPECT_EQ(bytes_of(log.open(7), "halves"), bytes_of(state.halves));
  EXPECT_EQ(system_files().list(dir / "state"), std::vector<std::string>{"step-00000007"});
}

}  // namespace
}  // namespace temper::checkpoint
