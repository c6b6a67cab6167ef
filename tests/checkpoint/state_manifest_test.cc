#include "checkpoint/state_manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/files.h"

namespace temper::checkpoint {
namespace {

using testing::HasSubstr;

StateManifest two_tensors() {
  StateManifest manifest;
  manifest.step = 12;
  manifest.score = 0.1;
  manifest.facts = {{"seed", 18446744073709551615u}, {"rate", 0.1}};
  manifest.header_bytes = 200;
  manifest.header_xxh3 = std::string(32, '0');
  manifest.tensors = {{"a", DType::kI64, {3}, 200, 24, std::string(32, 'a')},
                      {"b", DType::kBF16, {2, 5}, 224, 20, std::string(32, 'b')}};
  manifest.file_bytes = 244;
  return manifest;
}

TEST(StateManifestTest, TextIsReadAsItWasWritten) {
  StateManifest written = two_tensors();
  const std::string text = manifest_text(written);
  const StateManifest read = parse_manifest(text, "m");
  EXPECT_EQ(read.step, 12);
  EXPECT_EQ(read.score, 0.1);
  EXPECT_EQ(read.facts.dump(), written.facts.dump());
  EXPECT_EQ(read.hash, written.hash);
  EXPECT_EQ(read.file_bytes, 244);
  ASSERT_EQ(read.tensors.size(), 2u);
  EXPECT_EQ(read.tensors[1].name, "b");
  EXPECT_EQ(read.tensors[1].dtype, DType::kBF16);
  EXPECT_EQ(read.tensors[1].shape, (Shape{2, 5}));
  EXPECT_EQ(read.tensors[1].offset, 224);
  StateManifest again = read;
  EXPECT_EQ(manifest_text(again), text);
}

// The error of a manifest in which `from` stands for `to`, with a hash that is right.
std::string error_with(const std::string& from, const std::string& to) {
  StateManifest manifest = two_tensors();
  std::string text = manifest_text(manifest);
  std::string body = text.substr(0, text.rfind(",\n\"hash\""));
  const size_t at = body.find(from);
  if (at == std::string::npos) return "no place for " + from;
  body.replace(at, from.size(), to);
  return error_of([&] { parse_manifest(with_hash(body), "m"); });
}

TEST(StateManifestTest, HostileManifestsAreRefusedByName) {
  EXPECT_EQ(error_with("\"step\"", "\"step\""), "no error");
  EXPECT_THAT(error_with("temper run state", "another"), HasSubstr("m: format must be temper run state"));
  EXPECT_THAT(error_with("\"version\": 1", "\"version\": 2"),
              HasSubstr("unsupported: m: version 2 of the run state, this program reads version 1"));
  EXPECT_THAT(error_with("\"step\": 12", "\"step\": -1"), HasSubstr("m: step must be a count, found -1"));
  EXPECT_THAT(error_with("\"step\": 12", "\"stop\": 12"), HasSubstr("m: step must be a count, found nothing"));
  EXPECT_THAT(error_with("\"score\": 0.1", "\"score\": \"x\""), HasSubstr("m: score must be a number"));
  EXPECT_THAT(error_with("tensors-00000.safetensors", "../tensors-00000.safetensors"),
              HasSubstr("m: file: name must be tensors-00000.safetensors, found \"../tensors"));
  EXPECT_THAT(error_with("\"header_bytes\":200", "\"header_bytes\":245"),
              HasSubstr("m: file: header_bytes must be at most the bytes of the file"));
  EXPECT_THAT(error_with("\"header_bytes\":200", "\"header_bytes\":199"),
              HasSubstr("m: the tensors end at byte 243, the file at 244"));
  EXPECT_THAT(error_with("\"bytes\":244", "\"bytes\":243"), HasSubstr("m: tensor b: bytes must be within the bytes"));
  EXPECT_THAT(error_with("\"BF16\"", "\"F8\""), HasSubstr("m: tensor b: dtype must be F64, F32, BF16, I32 or I64"));
  EXPECT_THAT(error_with("[2,5]", "[2,6]"), HasSubstr("m: tensor b: bytes must be what dtype and shape take"));
  EXPECT_THAT(error_with("[2,5]", "[2,-5]"), HasSubstr("m: tensor b: shape must be a list of counts"));
  EXPECT_THAT(error_with("[2,5]", "[2,1,1,1,1,5]"), HasSubstr("m: tensor b: shape must be a list of at most 5"));
  EXPECT_THAT(error_with("[2,5]", "[4294967296,4294967296]"), HasSubstr("m: tensor b: shape must be smaller than"));
  EXPECT_THAT(error_with("\"name\":\"b\"", "\"name\":\"a\""), HasSubstr("m: tensor a: name must be a name that no"));
  EXPECT_THAT(error_with("\"name\":\"b\"", "\"name\":7"), HasSubstr("m: tensor number 1: name must be text"));
  EXPECT_THAT(error_with(std::string(32, 'b'), std::string(32, 'B')), HasSubstr("xxh3 must be 32 hexadecimal digits"));
  EXPECT_THAT(error_with("\"facts\": {", "\"facts\": 3, \"x\": {"), HasSubstr("m: facts must be an object"));
  EXPECT_THAT(error_with("\"step\": 12", "\"step\": 12, \"step\": 13"), HasSubstr("\"step\" occurs twice"));
  EXPECT_THAT(error_with("\"step\": 12", "\"step\": 12, \"new\": []"), HasSubstr("no error"));
}

TEST(StateManifestTest, BytesWithoutAHashAreRefused) {
  for (const char* text : {"", "{}", "{\n\"hash\": \"\"\n}\n"})
    EXPECT_THAT(error_of([&] { parse_manifest(text, "m"); }), HasSubstr("m: does not end with its hash")) << text;
  EXPECT_THAT(error_of([] { parse_manifest(with_hash("[1"), "m"); }), HasSubstr("m: not valid JSON"));
  EXPECT_THAT(error_of([] { parse_manifest(with_hash("{\"a\": 1"), "m"); }), HasSubstr("format must be text"));
}

}  // namespace
}  // namespace temper::checkpoint
