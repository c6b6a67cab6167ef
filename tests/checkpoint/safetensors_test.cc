#include "checkpoint/safetensors.h"

#include <gmock/gmock.h>

#include <cstring>

#include "checkpoint/files.h"
#include "checkpoint/tensor_dir.h"

namespace temper::checkpoint {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string open_error(const std::filesystem::path& path) {
  return error_of([&] { SafetensorsFile file(path); });
}

TEST(SafetensorsTest, ReadsWhatItWrites) {
  ScratchDir dir;
  const std::vector<TensorInfo> infos = {{"i", FileDType::kI64, {2}},
                                         {"odd \"name\"", FileDType::kF32, {1, 3}},
                                         {"scalar", FileDType::kF32, {}},
                                         {"none", FileDType::kBF16, {0, 4}},
                                         {"b", FileDType::kBF16, {3}}};
  const int64_t i[] = {-1, 1LL << 40};
  const float f[] = {1.5f, -2.0f, 3.25f, 7.0f};
  const uint16_t b[] = {1, 2, 0x8000};
  {
    SafetensorsWriter writer(dir / "a.safetensors", infos);
    writer.write(i, sizeof i);
    writer.write(f, sizeof f);
    EXPECT_FALSE(std::filesystem::exists(dir / "a.safetensors"));
    writer.write(b, sizeof b);
    writer.commit();
  }
  const std::string bytes = read_file(dir / "a.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  EXPECT_EQ(length % 8, 0u);
  EXPECT_EQ(bytes[8], '{');
  const SafetensorsFile file(dir / "a.safetensors");
  ASSERT_EQ(file.tensors().size(), infos.size());
  EXPECT_EQ(file.metadata().at("format"), "pt");
  for (const auto& info : infos) {
    const StoredTensor* tensor = file.find(info.name);
    ASSERT_NE(tensor, nullptr) << info.name;
    EXPECT_EQ(tensor->dtype, info.dtype);
    EXPECT_EQ(tensor->shape, info.shape);
  }
  EXPECT_EQ(std::memcmp(file.find("i")->data, i, sizeof i), 0);
  EXPECT_EQ(std::memcmp(file.find("odd \"name\"")->data, f, 12), 0);
  EXPECT_EQ(std::memcmp(file.find("scalar")->data, f + 3, 4), 0);
  EXPECT_EQ(std::memcmp(file.find("b")->data, b, sizeof b), 0);
  EXPECT_EQ(file.find("missing"), nullptr);
}

TEST(SafetensorsTest, NothingAppearsWithoutCommit) {
  ScratchDir dir;
  { SafetensorsWriter writer(dir / "a.safetensors", {{"x", FileDType::kF32, {4}}}); }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(SafetensorsTest, BadFilesAreRefusedByName) {
  struct Case {
    const char* header;
    int64_t num_data_bytes;
    std::vector<std::string> message;
  };
  const std::vector<Case> cases = {
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       7,
       {"tensor x", "[0,8]", "7 data bytes", "truncated"}},
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 9, {"end at data byte 8", "the file at 9"}},
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 8, {"tensor x", "F32 [2] takes 8 bytes", "give 4"}},
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, {"tensor x", "[8,0]"}},
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})", 8, {"tensor x", "[-8,0]"}},
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12, {"bytes 0 to 4", "no tensor"}},
      {R"({"x":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, {"tensor x", "shape", "[-2]"}},
      {R"({"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})",
       0,
       {"tensor x", "every memory"}},
      {R"({"x":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", 1, {"unsupported", "tensor x", "F4"}},
      {R"({"x":{"dtype":7,"shape":[2],"data_offsets":[0,1]}})", 1, {"tensor x", "dtype"}},
      {R"({"x":{"shape":[2],"data_offsets":[0,8]}})", 8, {"tensor x", "expected dtype, shape and data_offsets"}},
      {R"({"x":[1]})", 0, {"tensor x", "expected an object"}},
      {R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"y":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
       6,
       {"tensors x and y overlap at data byte 2"}},
      {R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       1,
       {"\"x\"", "twice"}},
      {R"({"__metadata__":{"format":1}})", 0, {"__metadata__", "text"}},
      {R"([1,2])", 0, {"expected a JSON object"}},
      {R"({"x":)", 0, {"not valid JSON", "line 1"}},
      {R"({"x":{"y":{"z":{"w":{}}}}})", 0, {"nested deeper"}},
  };
  for (const auto& bad : cases) {
    ScratchDir dir;
    put_safetensors(dir / "bad.safetensors", bad.header, bad.num_data_bytes);
    const std::string message = open_error(dir / "bad.safetensors");
    EXPECT_THAT(message, HasSubstr("bad.safetensors")) << bad.header;
    for (const auto& part : bad.message) EXPECT_THAT(message, HasSubstr(part)) << bad.header;
  }
}

TEST(SafetensorsTest, HeaderLengthIsBoundedByTheFile) {
  ScratchDir dir;
  put(dir / "short", "abc");
  EXPECT_THAT(open_error(dir / "short"), HasSubstr("3 bytes"));
  put(dir / "empty", "");
  EXPECT_THAT(open_error(dir / "empty"), HasSubstr("0 bytes"));
  put(dir / "long", std::string(8, '\xff') + "{}");
  EXPECT_THAT(open_error(dir / "long"), AllOf(HasSubstr("18446744073709551615"), HasSubstr("2 follow")));
  EXPECT_THAT(open_error(dir / "absent"), HasSubstr("not found"));
  put_safetensors(dir / "deep", std::string(200000, '['), 0);
  EXPECT_THAT(open_error(dir / "deep"), HasSubstr("nested deeper"));
}

const char* const kOne = R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";

std::string index_error(const std::string& index) {
  ScratchDir dir;
  put_safetensors(dir / "a.safetensors", kOne, 1);
  put_safetensors(dir / "b.safetensors", R"({"y":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1);
  put_safetensors(dir / "again.safetensors", kOne, 1);
  put(dir / "model.safetensors.index.json", index);
  return error_of([&] { TensorDir tensors(dir.path()); });
}

TEST(TensorDirTest, ReadsShards) {
  ScratchDir dir;
  put_safetensors(dir / "a.safetensors", kOne, 1);
  put(dir / "model.safetensors.index.json", R"({"metadata": {}, "weight_map": {"x": "a.safetensors"}})");
  const TensorDir tensors(dir.path());
  ASSERT_EQ(tensors.items().size(), 1u);
  EXPECT_EQ(tensors.items()[0].tensor->name, "x");
}

TEST(TensorDirTest, TheIndexMustStayInTheDirectoryAndTellTheTruth) {
  EXPECT_EQ(index_error(R"({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})"), "no error");
  for (const char* name :
       {"../a.safetensors", "/etc/passwd", "..", "", "sub/a.safetensors", "a\\u0000.safetensors", "config.json"})
    EXPECT_THAT(index_error(std::string(R"({"weight_map": {"x": ")") + name + "\"}}"),
                AllOf(HasSubstr("tensor x"), HasSubstr("is not the name of a safetensors file in this directory")));
  EXPECT_THAT(index_error(R"({"weight_map": {"x": "gone.safetensors"}})"), HasSubstr("gone.safetensors"));
  EXPECT_THAT(index_error(R"({"weight_map": {"y": "a.safetensors"}})"),
              AllOf(HasSubstr("tensor y"), HasSubstr("a.safe")));
  EXPECT_THAT(index_error(R"({"weight_map": {"x": "a.safetensors", "z": "again.safetensors"}})"),
              HasSubstr("tensor x is in a.safetensors and in again.safetensors"));
  EXPECT_THAT(index_error(R"({"weight_map": [1]})"), HasSubstr("weight_map"));
  EXPECT_THAT(index_error("{"), HasSubstr("not valid JSON"));
  ScratchDir dir;
  EXPECT_THAT(error_of([&] { TensorDir tensors(dir.path()); }), HasSubstr("neither model.safetensors nor"));
}

}  // namespace
}  // namespace temper::checkpoint
