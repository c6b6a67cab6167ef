// temper convert as a user runs it: results, refusals, memory, and what a kill leaves behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "app/run_binary.h"
#include "base/file.h"
#include "base/scratch_dir.h"

namespace temper::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// Every file of a directory, by its path.
std::map<std::string, std::string> files(const fs::path& dir) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(dir))
    if (entry.is_regular_file()) out[entry.path().lexically_relative(dir).string()] = read_file(entry.path());
  return out;
}

TEST(ConvertCommand, ModulesAndBackGiveTheSameWeights) {
  const ScratchDir dir;
  const std::string source = fixture("sliding").string();
  const auto path = [&](const char* name) { return (dir.path() / name).string(); };
  const auto convert = [](const std::string& from, const std::string& to, const std::string& names) {
    const RunResult result = run_temper({"convert", from, to, "--dtype", "source", "--names", names, "--threads", "2"});
    EXPECT_EQ(result.exit_code, 0) << result.output;
    EXPECT_THAT(result.output, HasSubstr("wrote " + to));
  };
  convert(source, path("straight"), "transformers");
  convert(source, path("there"), "modules");
  convert(path("there"), path("back"), "transformers");
  EXPECT_TRUE(files(path("back"))["model.safetensors"] == files(path("straight"))["model.safetensors"]);
}

TEST(ConvertCommand, MistakesAreTheUsersToMend) {
  const ScratchDir dir;
  const std::string source = fixture("sliding").string(), out = (dir.path() / "out").string();
  EXPECT_THAT(run_temper({"convert", source, out, "--dtype", "fp7"}).output, HasSubstr("fp7"));
  const RunResult same = run_temper({"convert", source, source});
  EXPECT_EQ(same.exit_code, 2);
  EXPECT_THAT(same.output, HasSubstr("the same directory"));
  const RunResult full = run_temper({"convert", source, dir.path().string() + "/../" + dir.path().filename().string()});
  EXPECT_EQ(full.exit_code, 0) << full.output;  // still empty
  EXPECT_THAT(run_temper({"convert", source, dir.path().string()}).output, HasSubstr("not empty"));
  EXPECT_THAT(run_temper({"convert", source, out, "--allow-missing", "("}).output, HasSubstr("regular expression"));
}

// A model whose embedding has num_rows rows of 16: the fixture's, longer. Its data are a hole.
void write_large(const fs::path& dir, int64_t num_rows) {
  auto config = nlohmann::ordered_json::parse(read_file(fixture("sliding") / "config.json"));
  const std::string bytes = read_file(fixture("sliding") / "model.safetensors");
  const auto length = *reinterpret_cast<const uint64_t*>(bytes.data());
  const auto header = nlohmann::ordered_json::parse(bytes.substr(8, length));
  nlohmann::ordered_json large;
  int64_t end = 0;
  for (const auto& item : header.items()) {
    const std::string& name = item.key();
    nlohmann::ordered_json entry = item.value();
    if (name != "__metadata__") {
      if (entry["shape"][0] == config["vocab_size"]) entry["shape"][0] = num_rows;
      int64_t size = entry["dtype"] == "I64" ? 8 : 4;
      for (const auto& dim : entry["shape"]) size *= dim.get<int64_t>();
      entry["data_offsets"] = {end, end + size};
      end += size;
    }
    large[name] = entry;
  }
  config["vocab_size"] = num_rows;
  std::ofstream(dir / "config.json") << config.dump();
  const std::string text = large.dump();
  const uint64_t text_length = text.size();
  std::ofstream(dir / "model.safetensors", std::ios::binary)
      .write(reinterpret_cast<const char*>(&text_length), 8)
      .write(text.data(), static_cast<int64_t>(text.size()));
  fs::resize_file(dir / "model.safetensors", 8 + text_length + static_cast<uint64_t>(end));
}

// Promised: less than twice the largest tensor and 256 MB. Kept: far less than one such tensor.
TEST(ConvertCommand, MemoryDoesNotGrowWithTheTensors) {
  const ScratchDir dir, out;
  const auto config = nlohmann::json::parse(read_file(fixture("sliding") / "config.json"));
  const int64_t tensor_bytes = 96 << 20;
  write_large(dir.path(), tensor_bytes / 4 / config["hidden_size"].get<int64_t>());
  const RunResult result =
      run_temper({"convert", dir.path().string(), (out.path() / "model").string(), "--threads", "2"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_LT(result.peak_bytes, tensor_bytes * 2 / 3);
}

TEST(ConvertCommand, AKilledRunIsTakenUpAndEndsEqual) {
  const ScratchDir dir, out;
  write_large(dir.path(), 200'000);
  const auto arguments = [&](const std::string& name) {
    return std::vector<std::string>{"convert", dir.path().string(), (out.path() / name).string(), "--max-shard-size",
                                    "2MB"};
  };
  EXPECT_EQ(run_temper(arguments("whole")).exit_code, 0);
  const fs::path killed = out.path() / "killed";
  // As soon as there is something to take up; where the kill comes too late, once more.
  for (int attempt = 0; attempt < 50 && !fs::exists(killed / ".converting"); ++attempt) {
    fs::remove_all(killed);
    run_and_signal(arguments("killed"), SIGKILL, [&] {
      std::error_code error;
      const fs::directory_iterator parts(killed / ".converting", error);
      return !error && parts != fs::directory_iterator();
    });
  }
  ASSERT_TRUE(fs::exists(killed / ".converting") && !fs::exists(killed / "config.json"));
  const RunResult result = run_temper(arguments("killed"));
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_TRUE(files(killed) == files(out.path() / "whole"));
}

}  // namespace
}  // namespace temper::test
