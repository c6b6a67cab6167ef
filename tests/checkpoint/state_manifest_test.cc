#include "checkpoint/state_manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/files.h"

namespace temper::checkpoint {
namespace {

using testing::HasSubstr;

// Three files; the first tensor is in two of them.
StateManifest two_tensors() {
  StateManifest manifest;
  manifest.step = 12;
  manifest.score = 0.1;
  manifest.facts = {{"seed", 18446744073709551615u}, {"rate", 0.1}};
  const std::string zeros(32, '0');
  manifest.files = {{"tensors-00000.safetensors", 236, 200, zeros},
                    {"tensors-00001.safetensors", 108, 100, zeros},
                    {"tensors-00005.safetensors", 50, 50, zeros}};
  manifest.tensors = {{"a", DType::kI64, {3}, {{0, 2, 0, 200, std::string(32, 'a')}, {2, 1, 1, 100, zeros}}},
                      {"b", DType::kBF16, {2, 5}, {{0, 10, 0, 216, std::string(32, 'b')}}}};
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
  EXPECT_EQ(read.num_bytes(), 236 + 108 + 50);
  ASSERT_EQ(read.tensors.size(), 2u);
  EXPECT_EQ(read.tensors[0].pieces[1].begin, 2);
  EXPECT_EQ(read.tensors[0].pieces[1].file, 1);
  EXPECT_EQ(read.tensors[1].name, "b");
  EXPECT_EQ(read.tensors[1].dtype, DType::kBF16);
  EXPECT_EQ(read.tensors[1].shape, (Shape{2, 5}));
  EXPECT_EQ(read.tensors[1].pieces[0].offset, 216);
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
  EXPECT_THAT(error_with("\"version\": 2", "\"version\": 1"),
              HasSubstr("unsupported: m: version 1 of the run state, this program reads version 2"));
  EXPECT_THAT(error_with("\"step\": 12", "\"step\": -1"), HasSubstr("m: step must be a count, found -1"));
  EXPECT_THAT(error_with("\"step\": 12", "\"stop\": 12"), HasSubstr("m: step must be a count, found nothing"));
  EXPECT_THAT(error_with("\"score\": 0.1", "\"score\": \"x\""), HasSubstr("m: score must be a number"));
  EXPECT_THAT(error_with("\"BF16\"", "\"F8\""), HasSubstr("m: tensor b: dtype must be F64, F32, BF16, I32 or I64"));
  EXPECT_THAT(error_with("[2,5]", "[2,6]"), HasSubstr("m: tensor b: its pieces end at element 10, the tensor has 12"));
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

TEST(StateManifestTest, FilesOutsideTheStateAreRefused) {
  EXPECT_THAT(error_with("tensors-00000.safetensors", "../tensors-00000.safetensors"),
              HasSubstr("m: file number 0: name must be tensors-<digits>.safetensors, of a higher rank"));
  EXPECT_THAT(error_with("tensors-00000", "tensors-0000"), HasSubstr("m: file number 0: name must be"));
  EXPECT_THAT(error_with("tensors-00000", "tensors-99999999999999999999"), HasSubstr("m: file number 0: name must be"));
  EXPECT_THAT(error_with("tensors-00001", "tensors-00000"), HasSubstr("m: file number 1: name must be"));
  EXPECT_THAT(error_with("\"header_bytes\":200", "\"header_bytes\":245"),
              HasSubstr("m: file number 0: header_bytes must be at most the bytes of the file"));
}

TEST(StateManifestTest, GapsAndOverlapsAreRefusedByName) {
  EXPECT_THAT(error_with("\"begin\":2,\"count\":1", "\"begin\":1,\"count\":2"),
              HasSubstr("m: tensor a: piece number 1: begin must be 2, where the piece before ends, found 1"));
  EXPECT_THAT(error_with("\"begin\":2,\"count\":1", "\"begin\":2,\"count\":2"),
              HasSubstr("m: tensor a: piece number 1: count must be at least 1, and within the tensor"));
  EXPECT_THAT(error_with("\"begin\":2,\"count\":1", "\"begin\":2,\"count\":0"),
              HasSubstr("m: tensor a: piece number 1: count must be at least 1, and within the tensor"));
  EXPECT_THAT(error_with("\"count\":2,\"file\":0", "\"count\":1,\"file\":0"),
              HasSubstr("m: tensor a: piece number 1: begin must be 1"));
  EXPECT_THAT(error_with("\"file\":1", "\"file\":3"), HasSubstr("piece number 1: file must be the number of a file"));
  EXPECT_THAT(error_with("\"file\":1", "\"file\":2"), HasSubstr("piece number 1: at must be such that the piece lies"));
  EXPECT_THAT(error_with("\"at\":216", "\"at\":217"), HasSubstr("m: tensor b: piece number 0: at must be such that"));
  EXPECT_THAT(error_with("\"at\":216", "\"at\":199"), HasSubstr("m: tensor b: piece number 0: at must be such that"));
  EXPECT_THAT(error_with("\"at\":216", "\"at\":210"),
              HasSubstr("m: a piece begins at byte 210 of tensors-00000.safetensors, the one before ends at 216"));
  EXPECT_THAT(error_with("\"header_bytes\":200", "\"header_bytes\":196"),
              HasSubstr("m: a piece begins at byte 200 of tensors-00000.safetensors, the one before ends at 196"));
  EXPECT_THAT(error_with("\"bytes\":50", "\"bytes\":51"),
              HasSubstr("m: the pieces of tensors-00005.safetensors end at byte 50, the file at 51"));
}

TEST(StateManifestTest, BytesWithoutAHashAreRefused) {
  for (const char* text : {"", "{}", "{\n\"hash\": \"\"\n}\n"})
    EXPECT_THAT(error_of([&] { parse_manifest(text, "m"); }), HasSubstr("m: does not end with its hash")) << text;
  EXPECT_THAT(error_of([] { parse_manifest(with_hash("[1"), "m"); }), HasSubstr("m: not valid JSON"));
  EXPECT_THAT(error_of([] { parse_manifest(with_hash("{\"a\": 1"), "m"); }), HasSubstr("format must be text"));
}

}  // namespace
}  // namespace temper::checkpoint
