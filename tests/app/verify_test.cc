// temper verify on directories that transformers wrote: its logits, loss and gradients are transformers' own.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "app/run_binary.h"
#include "base/file.h"
#include "base/scratch_dir.h"
#include "checkpoint/safetensors.h"

namespace temper::test {
namespace {

using checkpoint::FileDType;
using checkpoint::SafetensorsFile;
using checkpoint::StoredTensor;

template <class T>
std::vector<T> values(const StoredTensor* tensor, FileDType dtype) {
  std::vector<T> out;
  if (tensor == nullptr || tensor->dtype != dtype) return out;
  out.resize(tensor->size());
  std::memcpy(out.data(), tensor->data, out.size() * sizeof(T));
  return out;
}

// ||a - b|| / ||b||
double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{b[i]} * b[i];
  }
  return std::sqrt(difference / norm);
}

std::string input_lines(const SafetensorsFile& golden) {
  std::string lines;
  for (int i = 0; const StoredTensor* ids = golden.find(fmt::format("input_ids.{}", i)); ++i) {
    const nlohmann::json line = {
        {"input_ids", values<int64_t>(ids, FileDType::kI64)},
        {"labels", values<int64_t>(golden.find(fmt::format("labels.{}", i)), FileDType::kI64)}};
    lines += line.dump() + "\n";
  }
  return lines;
}

class Verify : public testing::TestWithParam<const char*> {};

TEST_P(Verify, EqualsTransformers) {
  const SafetensorsFile golden(fixture(GetParam()) / "golden.safetensors");
  ScratchDir directory;
  const std::string input = directory.write("tokens.jsonl", input_lines(golden));
  const std::string dump = directory.path() / "out.safetensors";
  const RunResult result = run_temper({"verify", fixture(GetParam()), "--input", input, "--dump", dump, "--gradients"});
  ASSERT_EQ(result.exit_code, 0) << result.output;

  const SafetensorsFile ours(dump);
  int num_logits = 0, num_gradients = 0;
  for (const StoredTensor& expected : golden.tensors()) {
    std::string name = expected.name;
    if (name.starts_with("logits.")) {
      ++num_logits;
    } else if (name.starts_with("grad.")) {
      name = name.substr(5);
      ++num_gradients;
    } else {
      continue;
    }
    const StoredTensor* found = ours.find(name);
    ASSERT_NE(found, nullptr) << name;
    ASSERT_EQ(found->shape, expected.shape) << name;
    EXPECT_LT(relative_error(values<float>(found, FileDType::kF32), values<float>(&expected, FileDType::kF32)), 1e-4)
        << name;
  }
  EXPECT_GE(num_logits, 2);
  EXPECT_GE(num_gradients, 30);
  EXPECT_EQ(ours.tensors().size(), static_cast<size_t>(2 * num_logits + num_gradients));
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Verify, testing::Values("mixed_rate16", "official_spelling"));

TEST(VerifyCommand, TakesTheTokensThemselvesAsLabels) {
  ScratchDir directory;
  const std::string plain = directory.write("plain.jsonl", R"({"input_ids": [3, 5, 7, 9]})");
  const std::string labelled =
      directory.write("labelled.jsonl", R"({"input_ids": [3, 5, 7, 9], "labels": [-100, 5, 7, 9]})");
  const std::string a = directory.path() / "a.safetensors", b = directory.path() / "b.safetensors";
  ASSERT_EQ(run_temper({"verify", fixture("sliding"), "--input", plain, "--dump", a}).exit_code, 0);
  ASSERT_EQ(run_temper({"verify", fixture("sliding"), "--input", labelled, "--dump", b}).exit_code, 0);
  const SafetensorsFile file_a(a), file_b(b);
  const auto loss = values<float>(file_a.find("loss.0"), FileDType::kF32);
  ASSERT_EQ(loss.size(), 1u);
  EXPECT_GT(loss[0], 0);
  EXPECT_EQ(loss, values<float>(file_b.find("loss.0"), FileDType::kF32));
}

struct BadLine {
  const char* text;
  const char* message;
};

class VerifyBadLine : public testing::TestWithParam<BadLine> {};

TEST_P(VerifyBadLine, IsRefusedWithItsPlace) {
  ScratchDir directory;
  const std::string input =
      directory.write("tokens.jsonl", std::string("{\"input_ids\": [1, 2]}\n\n") + GetParam().text);
  const std::string dump = directory.path() / "out.safetensors";
  const RunResult result = run_temper({"verify", fixture("sliding"), "--input", input, "--dump", dump});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.output.find(input + ":3"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find(GetParam().message), std::string::npos) << result.output;
  EXPECT_FALSE(std::filesystem::exists(dump));
}

INSTANTIATE_TEST_SUITE_P(Lines, VerifyBadLine,
                         testing::Values(BadLine{"{\"input_ids\": [1, 2", "line"},
                                         BadLine{"[1, 2]", "expected {\"input_ids\""},
                                         BadLine{"{\"input_ids\": []}", "expected a list of token ids"},
                                         BadLine{"{\"input_ids\": [1, 2.5]}", "input_ids[1] is 2.5"},
                                         BadLine{"{\"input_ids\": [1, 1000000]}", "input_ids[1] is 1000000"},
                                         BadLine{"{\"input_ids\": [1, -100]}", "input_ids[1] is -100"},
                                         BadLine{"{\"input_ids\": [1, 2], \"labels\": [1]}", "1 labels for 2"}));

TEST(VerifyCommand, ChecksADirectoryAndWritesItsReport) {
  ScratchDir directory;
  const std::string json = directory.path() / "verify.json";
  const RunResult result = run_temper({"verify", fixture("sliding"), "--num-tokens", "12", "--json", json});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(result.output.find("every gate passed"), std::string::npos) << result.output;
  const auto report = nlohmann::json::parse(read_file(json));
  EXPECT_TRUE(report["passed"].get<bool>());
  EXPECT_EQ(report["self"]["layers"].size(), 2u);
  EXPECT_EQ(report["structure"]["layers"].size(), 3u);
}

TEST(VerifyCommand, AFailedGateExitsWithTwoAndIsNamed) {
  const RunResult result =
      run_temper({"verify", fixture("sliding"), "--mode", "self", "--num-tokens", "12", "--max-error", "1e-12"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.output.find("FAILED layer 1, streams: token"), std::string::npos) << result.output;
}

TEST(VerifyCommand, ComparesWithLogitsOfTransformers) {
  const RunResult result =
      run_temper({"verify", fixture("csa_yarn"), "--against", fixture("csa_yarn") / "golden.safetensors"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(result.output.find("100.00%"), std::string::npos) << result.output;
}

}  // namespace
}  // namespace temper::test
