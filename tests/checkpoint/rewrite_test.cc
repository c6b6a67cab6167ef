#include "checkpoint/rewrite.h"

#include <gmock/gmock.h>
#include <xxhash.h>

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "base/thread.h"
#include "checkpoint/files.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/release.h"
#include "checkpoint/weight_source.h"

namespace temper::checkpoint {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// Bytes of every stored tensor with dtype and shape, by name.
std::map<std::string, std::string> contents(const fs::path& dir) {
  std::map<std::string, std::string> out;
  const TensorDir tensors(dir);
  for (const auto& [tensor, file] : tensors.items())
    out[tensor->name] = tensor->to_string() + std::string(reinterpret_cast<const char*>(tensor->data),
                                                          static_cast<size_t>(tensor->num_bytes()));
  return out;
}

// Every weight in f32, by parameter and part.
std::map<std::string, std::vector<float>> numbers(const fs::path& dir) {
  std::map<std::string, std::vector<float>> out;
  const WeightSource source(dir);
  for (const auto& tensor : source.tensors()) {
    if (tensor.encoded.weight->dtype == FileDType::kI64) continue;
    auto& values = out[tensor.name->parameter + std::to_string(tensor.name->expert) +
                       std::to_string(static_cast<int>(tensor.name->part))];
    values.resize(static_cast<size_t>(tensor.encoded.size()));
    decode_rows(tensor.encoded, 0, tensor.encoded.num_rows(), values.data(), FileDType::kF32);
  }
  return out;
}

// Every file of a directory, by its path.
std::map<std::string, std::string> files(const fs::path& dir) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(dir))
    if (entry.is_regular_file()) out[entry.path().lexically_relative(dir).string()] = read_file(entry.path());
  return out;
}

// The names under which two maps differ: a comparison that can be read.
template <class Value>
std::vector<std::string> differences(const std::map<std::string, Value>& a, const std::map<std::string, Value>& b) {
  std::vector<std::string> names;
  for (const auto& [name, value] : a)
    if (!b.contains(name) || b.at(name) != value) names.push_back(name);
  for (const auto& [name, value] : b)
    if (!a.contains(name)) names.push_back(name);
  return names;
}

RewriteOptions options(RewriteDType dtype, std::optional<NameStyle> style = {}, int64_t max_shard_bytes = 1 << 30) {
  RewriteOptions options;
  options.dtype = dtype;
  options.style = style;
  options.max_shard_bytes = max_shard_bytes;
  return options;
}

std::string rewrite_error(const fs::path& source, const fs::path& destination, const RewriteOptions& options) {
  return error_of([&] { rewrite(source, destination, options); });
}

fs::path fixture(const std::string& name) { return fs::path(TEMPER_SOURCE_DIR) / "tests/fixtures/v4" / name; }

nlohmann::json read_json(const fs::path& path) { return nlohmann::json::parse(read_file(path)); }

TEST(RewriteTest, TransformersDirectoriesComeBackByteForByte) {
  const std::pair<const char*, NameStyle> fixtures[] = {{"hca_rate8", NameStyle::kTransformers},
                                                        {"mixed_rate16", NameStyle::kModules}};
  for (const auto& [name, own] : fixtures)
    for (const auto style : {NameStyle::kModules, NameStyle::kOfficial, NameStyle::kTransformers}) {
      ScratchDir there, back;
      rewrite(fixture(name), there / "model", options(RewriteDType::kSource, style, 40'000));
      rewrite(there / "model", back / "model", options(RewriteDType::kSource, own));
      EXPECT_THAT(differences(contents(back / "model"), contents(fixture(name))), testing::IsEmpty());
    }
}

TEST(RewriteTest, Bf16ComesBackFromOfficialNames) {
  ScratchDir narrow, there, back;
  rewrite(fixture("sliding"), narrow / "model", options(RewriteDType::kBF16));
  rewrite(narrow / "model", there / "model", options(RewriteDType::kBF16, NameStyle::kOfficial));
  rewrite(there / "model", back / "model", options(RewriteDType::kBF16));
  EXPECT_THAT(differences(contents(back / "model"), contents(narrow / "model")), testing::IsEmpty());
}

TEST(RewriteTest, Bf16HoldsTheDecodedNumbersAndKeepsFp32) {
  ScratchDir source, out;
  write_filled(source.path(), tiny(), release_tensors(tiny()), false);
  for (const auto style : {NameStyle::kTransformers, NameStyle::kModules, NameStyle::kOfficial}) {
    const fs::path dir = out / std::to_string(static_cast<int>(style));
    rewrite(source.path(), dir, options(RewriteDType::kBF16, style));
    const WeightSource written(dir);
    for (const auto& tensor : written.tensors()) {
      const FileDType dtype = tensor.encoded.weight->dtype;
      if (dtype == FileDType::kI64) continue;
      EXPECT_EQ(dtype, is_kept_in_fp32(tensor.name->parameter) ? FileDType::kF32 : FileDType::kBF16);
    }
    if (style != NameStyle::kModules) {
      EXPECT_THAT(differences(numbers(dir), numbers(source.path())), testing::IsEmpty());
    }
    const auto config = read_json(dir / "config.json");
    EXPECT_FALSE(config.contains("quantization_config") || config.contains("expert_dtype"));
    EXPECT_EQ(config["torch_dtype"], "bfloat16");
  }
}

TEST(RewriteTest, QuantisedDirectoriesComeBack) {
  for (const bool full_range : {true, false})
    for (const auto style : {NameStyle::kTransformers, NameStyle::kModules}) {
      ScratchDir source, wide, back;
      write_filled(source.path(), tiny(), release_tensors(tiny()), full_range);
      rewrite(source.path(), wide / "model", options(RewriteDType::kBF16, style));
      rewrite(wide / "model", back / "model", options(RewriteDType::kOfficial));
      EXPECT_THAT(differences(numbers(back / "model"), numbers(source.path())), testing::IsEmpty());
      if (full_range) {
        EXPECT_THAT(differences(contents(back / "model"), contents(source.path())), testing::IsEmpty());
      }
      const auto config = read_json(back / "model" / "config.json");
      EXPECT_EQ(config["quantization_config"]["fmt"], "e4m3");
      EXPECT_EQ(config["expert_dtype"], "fp4");
    }
}

TEST(RewriteTest, QuantisedTensorsAreCopiedWhereTheFormIsTheSame) {
  ScratchDir source, out;
  write_filled(source.path(), tiny(), release_tensors(tiny()), false);
  const RewriteReport report = rewrite(source.path(), out / "model", options(RewriteDType::kOfficial, {}, 20'000));
  EXPECT_EQ(report.num_copied, report.num_tensors);
  EXPECT_GT(report.num_files, 3);
  EXPECT_THAT(differences(contents(out / "model"), contents(source.path())), testing::IsEmpty());
  EXPECT_THAT(rewrite_error(source.path(), out / "stacked", options(RewriteDType::kSource, NameStyle::kModules)),
              HasSubstr("either stacked or quantised"));
}

TEST(RewriteTest, TheReceiptHoldsEveryTensorWithItsChecksums) {
  ScratchDir source, out;
  auto tensors = release_tensors(tiny());
  tensors.push_back({"mtp.0.head.weight", FileDType::kBF16, {64, 64}});
  write_filled(source.path(), tiny(), tensors, false);
  rewrite(source.path(), out / "model", options(RewriteDType::kBF16, NameStyle::kModules, 50'000));
  const auto receipt = read_json(out / "model" / "conversion.json");
  EXPECT_EQ(receipt["options"]["dtype"], "bf16");
  std::map<std::string, const StoredTensor*> from, to;
  const TensorDir from_dir(source.path()), to_dir(out / "model");
  for (const auto& item : from_dir.items()) from[item.tensor->name] = item.tensor;
  for (const auto& item : to_dir.items()) to[item.tensor->name] = item.tensor;
  const auto check = [](const nlohmann::json& side, const auto& stored) {
    const StoredTensor& tensor = *stored.at(side["name"]);
    EXPECT_EQ(side["dtype"], file_dtype_name(tensor.dtype));
    int64_t begin = 0, num_bytes = tensor.num_bytes();
    if (side.contains("rows")) {
      const int64_t row = tensor.shape.back() * file_dtype_bytes(tensor.dtype);
      begin = row * side["rows"][0].get<int64_t>();
      num_bytes = row * side["rows"][1].get<int64_t>() - begin;
    }
    EXPECT_EQ(side["xxh3"], fmt::format("{:016x}", XXH3_64bits(tensor.data + begin, static_cast<size_t>(num_bytes))));
  };
  std::map<std::string, int> actions;
  size_t num_sources = 0;
  for (const auto& entry : receipt["tensors"]) {
    ++actions[entry["action"]];
    num_sources += 1 + entry.contains("source_scale");
    check(entry["source"], from);
    if (entry.contains("source_scale")) check(entry["source_scale"], from);
    if (entry.contains("destination")) check(entry["destination"], to);
  }
  EXPECT_EQ(num_sources, tensors.size());
  EXPECT_EQ(actions["dropped"], 1);
  EXPECT_EQ(actions["dequantised, stacked"], 4 * 4 * 3);  // layers, experts, matrices; not of mtp.0
  EXPECT_EQ(receipt["totals"]["dropped"], 1);
}

TEST(RewriteTest, AnInterruptedRunIsTakenUpAndEndsEqual) {
  ScratchDir source, whole, parts;
  write_filled(source.path(), tiny(), release_tensors(tiny()), false);
  put(source / "tokenizer.json", "{}");
  put(source / "generation_config.json", "{\"top_p\": 1.0}");
  const auto how = options(RewriteDType::kBF16, NameStyle::kModules, 60'000);
  rewrite(source.path(), whole / "model", how);
  const fs::path dir = parts / "model";
  for (const int64_t stop : {1, 40, 70}) {
    EXPECT_THROW(rewrite(source.path(), dir, how,
                         [&](const RewriteProgress& progress) {
                           if (progress.tensors_done >= stop) throw std::runtime_error("stopped by the test");
                         }),
                 std::runtime_error);
    EXPECT_FALSE(fs::exists(dir / "config.json"));
  }
  EXPECT_THAT(rewrite_error(source.path(), dir, options(RewriteDType::kF32)), HasSubstr("unfinished conversion"));
  // A byte of a finished file is lost: the file is made again.
  const fs::path first = dir / ".converting" / fs::path(files(whole / "model").upper_bound("model-")->first);
  ASSERT_TRUE(fs::exists(first));
  std::string damaged = read_file(first);
  damaged.back() ^= 1;
  put(first, damaged);
  const RewriteReport report = rewrite(source.path(), dir, how);
  EXPECT_GT(report.num_resumed_files, 0);
  EXPECT_THAT(differences(files(dir), files(whole / "model")), testing::IsEmpty());
}

TEST(RewriteTest, AnOlderModelIsReplacedOnlyWhenAsked) {
  ScratchDir source, out;
  write_filled(source.path(), tiny(), release_tensors(tiny()), false);
  rewrite(source.path(), out / "model", options(RewriteDType::kF32, {}, 50'000));
  const auto again = options(RewriteDType::kBF16);
  EXPECT_THAT(rewrite_error(source.path(), out / "model", again), HasSubstr("not empty"));
  auto overwrite = again;
  overwrite.overwrite = true;
  rewrite(source.path(), out / "model", overwrite);
  EXPECT_FALSE(fs::exists(out / "model" / "model.safetensors.index.json"));
  EXPECT_TRUE(fs::exists(out / "model" / "model.safetensors"));
  EXPECT_THAT(rewrite_error(source.path(), source.path(), overwrite), HasSubstr("the same directory"));
  EXPECT_THAT(rewrite_error(out.path(), out / "other", again), HasSubstr("config.json"));
}

TEST(RewriteTest, WrongKeysAreNamedBeforeAnythingIsWritten) {
  ScratchDir source, out;
  auto tensors = release_tensors(tiny());
  const auto find = [&](const std::string& name) {
    return std::find_if(tensors.begin(), tensors.end(), [&](const auto& tensor) { return tensor.name == name; });
  };
  tensors.erase(find("layers.3.ffn.experts.1.w2.weight"));
  tensors.erase(find("layers.3.ffn.experts.1.w2.scale"));
  write_filled(source.path(), tiny(), tensors, false);
  EXPECT_THAT(rewrite_error(source.path(), out / "model", options(RewriteDType::kBF16)),
              HasSubstr("missing: layers.3.ffn.experts.1.w2.weight"));
  EXPECT_FALSE(fs::exists(out / "model"));
  auto allow = options(RewriteDType::kBF16);
  allow.allow_missing = "layers\\.3\\.ffn\\.experts\\.1\\..*";
  EXPECT_THAT(rewrite(source.path(), out / "model", allow).missing,
              testing::ElementsAre("layers.3.ffn.experts.1.w2.weight"));
  EXPECT_FALSE(contents(out / "model").contains("model.layers.3.ffn.experts.1.w2.weight"));
  allow.style = NameStyle::kModules;
  EXPECT_THAT(rewrite_error(source.path(), out / "stacked", allow), HasSubstr("no place for what is not there"));
  ScratchDir extra;
  tensors = release_tensors(tiny());
  tensors.push_back({"layers.3.attn.unknown", FileDType::kF32, {3}});
  write_filled(extra.path(), tiny(), tensors, false);
  EXPECT_THAT(rewrite_error(extra.path(), out / "extra", allow), HasSubstr("unknown: layers.3.attn.unknown"));
}

// Changes a byte of a tensor in dir/model.safetensors.
void set_byte(const fs::path& dir, const std::string& tensor, int64_t index, char value) {
  std::string bytes;
  int64_t offset = 0;
  {
    const SafetensorsFile file(dir / "model.safetensors");
    offset = file.offset_of(*file.find(tensor)) + index;
    bytes = read_file(dir / "model.safetensors");
  }
  bytes[static_cast<size_t>(offset)] = value;
  put(dir / "model.safetensors", bytes);
}

TEST(RewriteTest, NumbersThatAreNotFiniteNameTheirTensor) {
  struct Case {
    const char *tensor, *named;
    int64_t index;
    int code;
  };
  const Case cases[] = {
      {"layers.1.attn.wq_b.scale", "layers.1.attn.wq_b.weight", 0, 0xFF},                // NaN
      {"layers.1.attn.wq_b.weight", "layers.1.attn.wq_b.weight", 5, 0x7F},               // NaN
      {"layers.2.ffn.experts.3.w1.scale", "layers.2.ffn.experts.3.w1.weight", 1, 0xFF},  // NaN
      {"layers.2.ffn.experts.3.w1.scale", "layers.2.ffn.experts.3.w1.weight", 1, 0xFE},  // 6 * 2^127 is too large
      {"head.weight", "head.weight", 3, 0x7F},                                           // with the byte before: NaN
  };
  for (const auto& [tensor, named, index, code] : cases) {
    ScratchDir source, out;
    write_filled(source.path(), tiny(), release_tensors(tiny()), true);
    set_byte(source.path(), tensor, index, static_cast<char>(code));
    if (std::strcmp(tensor, "head.weight") == 0) set_byte(source.path(), tensor, 2, static_cast<char>(0xFF));
    EXPECT_THAT(rewrite_error(source.path(), out / "model", options(RewriteDType::kF32)),
                AllOf(HasSubstr(named), HasSubstr("not a finite number")));
    EXPECT_FALSE(fs::exists(out / "model" / "config.json"));
  }
}

TEST(RewriteTest, AForeignDrafterIsCopiedAsItIs) {
  ScratchDir source, out;
  auto tensors = release_tensors(tiny());
  tensors.push_back({"mtp.1.attn.wq_a.weight", FileDType::kF8E4M3, {8, 8}});
  tensors.push_back({"mtp.1.attn.wq_a.scale", FileDType::kF8E8M0, {1, 1}});
  write_filled(source.path(), tiny(), tensors, false);
  const RewriteReport report = rewrite(source.path(), out / "model", options(RewriteDType::kBF16));
  EXPECT_GT(report.num_foreign, 2);
  const auto from = contents(source.path()), to = contents(out / "model");
  for (const auto& [name, bytes] : from) {
    if (!is_mtp_name(name)) continue;
    EXPECT_TRUE(to.contains(name) && to.at(name) == bytes) << name;
  }
}

TEST(RewriteTest, AFullDiskIsFoundBeforehand) {
  Release release = flash();
  release.n_routed_experts = 8;
  release.moe_intermediate_size = 1 << 17;  // 2.2 TB in fp32
  ScratchDir source, out;
  if (!write_sparse(source.path(), release, release_tensors(release))) GTEST_SKIP() << "no holes in files here";
  if (fs::space(out.path()).available > 1'000'000'000'000) GTEST_SKIP() << "this disk has room for the whole model";
  EXPECT_THAT(rewrite_error(source.path(), out / "model", options(RewriteDType::kF32)),
              AllOf(HasSubstr("bytes more"), HasSubstr("free")));
}

}  // namespace
}  // namespace temper::checkpoint
