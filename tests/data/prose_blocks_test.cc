#include "data/prose_blocks.h"

#include "data/python_strings.h"
#include "data/special_tokens.h"
#include "data_test_support.h"
#include "prose_support.h"

namespace temper::data {
namespace {

TEST(PythonStrings, ReadsConstantsAsPythonWould) {
  const auto constants = read_python_strings(R"py("""A docstring with
INSIDE = "no"
"""
import json
PLAIN = "a\n\t\"\\ \x41\u00e9\U0001F600\101\q"  # comment
TYPED: str = 'it\'s'
LONG = """one "quoted"
two \
joined"""
PARTS = (
    "a"  # first
    'b' r"\n"
    + "c"
)
RAW = r'\d"'
EMPTY = ""
OTHER = PLAIN + "x"
FORMATTED = f"{PLAIN}"
def f(x="y"):
    LOCAL = "no"
    return x == "y"
CALL = dict(a="b")
TWICE = "1"
TWICE = "2"
LAST = "end")py");
  std::map<std::string, std::string> expected = {{"PLAIN", "a\n\t\"\\ A\u00e9\U0001F600A\\q"},
                                                 {"TYPED", "it's"},
                                                 {"LONG", "one \"quoted\"\ntwo joined"},
                                                 {"PARTS", "ab\\nc"},
                                                 {"RAW", "\\d\""},
                                                 {"EMPTY", ""},
                                                 {"TWICE", "2"},
                                                 {"LAST", "end"}};
  EXPECT_EQ(constants, expected);
}

TEST(PythonStrings, HostileProgramsAreReadWithoutHarm) {
  for (const char* program : {"A = \"", "A = \"\\", "A = '''", "A = \"\\x4\"", "A = \"\\U00110000\"", "A = \"\\ud800\"",
                              "A = (", "A = (\"a\"", "A = \"a\" )", "A = \"a\nb\"", "A", "A =", "A: str",
                              "\xff = \"\xff", "A = \"\\N{DASH}\"", "A = b\"x\"", "A = +\"x\"", "A == \"x\""})
    EXPECT_TRUE(read_python_strings(program).empty()) << program;
}

TEST(ProseBlocks, KnowsSha256) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

class ProseBlocksTest : public DataTest {
 protected:
  // A model directory whose program has this text.
  std::filesystem::path model(std::string_view program) {
    write("encoding/encoding_dsv4.py", program);
    return folder_.path();
  }
};

TEST_F(ProseBlocksTest, ReadsTheModelsProgram) {
  const ProseBlocks blocks = ProseBlocks::of_model(model(stand_in_program()), stand_in_hashes());
  for (size_t i = 0; i < kNumProseBlocks; ++i)
    EXPECT_EQ(blocks.get(static_cast<ProseBlock>(i), "here"), kStandInProse[i]);
}

TEST_F(ProseBlocksTest, ReadsAFileThatTheUserNames) {
  const auto json = write("prose.json", R"({"tools_before": "Tools \"x\":\n", "tools_after": "\nEnd.\n"})");
  const ProseHashes hashes = {"", "4d3ba3e97d0ae5fff54e45d0d4a2d4b0f9f5a1c5b4a2d3c6a7b0b2a1b8e6f0c1", "", ""};
  expect_error(ErrorCode::kUnsupported, {"tools_before", "prose.json", hashes[1], sha256_hex("Tools \"x\":\n")},
               [&] { ProseBlocks::read(json, hashes); });
  const std::string before = sha256_hex("Tools \"x\":\n"), after = sha256_hex("\nEnd.\n");
  const ProseBlocks blocks = ProseBlocks::read(json, {"", before, after, ""});
  EXPECT_EQ(blocks.get(ProseBlock::kToolsBefore, "here"), "Tools \"x\":\n");
  EXPECT_EQ(*blocks.find(ProseBlock::kToolsAfter), "\nEnd.\n");
  expect_error(ErrorCode::kNotFound, {"talk:3", "reasoning_effort_max", "prose.json"},
               [&] { blocks.get(ProseBlock::kEffortMax, "talk:3"); });
  const ProseBlocks program = ProseBlocks::read(write("p.py", stand_in_program()), stand_in_hashes());
  EXPECT_EQ(*program.find(ProseBlock::kEffortMax), kStandInProse[0]);
}

TEST_F(ProseBlocksTest, AbsentBlocksAreAnErrorOnlyWhenNeeded) {
  expect_error(ErrorCode::kNotFound, {"x:1", "\"tools_before\"", "encoding_dsv4.py is not there"},
               [&] { ProseBlocks::of_model(folder_.path()).get(ProseBlock::kToolsBefore, "x:1"); });
  expect_error(ErrorCode::kNotFound, {"no model directory"}, [&] { ProseBlocks().get(ProseBlock::kEffortMax, "x"); });
  const auto bare = ProseBlocks::of_model(model("X = 1\nTOOLS_TEMPLATE = '{tool_schemas}{oops}'"));
  expect_error(ErrorCode::kNotFound, {"no string constant REASONING_EFFORT_MAX"},
               [&] { bare.get(ProseBlock::kEffortMax, "x"); });
  expect_error(ErrorCode::kNotFound, {"TOOLS_TEMPLATE", "not the template"},
               [&] { bare.get(ProseBlock::kToolsAfter, "x"); });
}

TEST_F(ProseBlocksTest, OtherTextsAreSaidToBeNotThePreviewModels) {
  const auto blocks = ProseBlocks::of_model(model(stand_in_program()));
  EXPECT_EQ(blocks.find(ProseBlock::kToolsBefore), nullptr);
  expect_error(ErrorCode::kUnsupported,
               {"x:1", "not the preview models' text", "-0731", kPreviewProse[1], sha256_hex(kStandInProse[1])},
               [&] { blocks.get(ProseBlock::kToolsBefore, "x:1"); });
}

TEST_F(ProseBlocksTest, RefusesFilesOfAnotherKind) {
  const auto refused = [&](ErrorCode code, std::string_view part, std::string_view text, const char* name = "p.json") {
    expect_error(code, {name, part}, [&] { ProseBlocks::read(write(name, text)); });
  };
  refused(ErrorCode::kCorrupt, "not a JSON object", "[]");
  refused(ErrorCode::kCorrupt, "p.json", "{");
  refused(ErrorCode::kCorrupt, "not a string", R"({"tools_before": 1})");
  refused(ErrorCode::kInvalidArgument, "\"tools\" is no prose block", R"({"tools": "x"})");
  refused(ErrorCode::kInvalidArgument, "none of the prose blocks", "{}");
  refused(ErrorCode::kInvalidArgument, "none of the prose blocks", "X = 1", "p.py");
  refused(ErrorCode::kInvalidArgument, "bytes", std::string(2 << 20, ' '));
  expect_error(ErrorCode::kNotFound, {"gone.json"}, [&] { ProseBlocks::read(folder_ / "gone.json"); });
}

// The tools block stands in the vectors; the other two blocks do not.
TEST(ProseBlocks, VectorsHoldThePreviewModelsToolsBlock) {
  SKIP_WITHOUT_SHARED_DATA("deepseek-v4-encoding");
  const ToolsBlock block = tools_block_of_vectors();
  EXPECT_EQ(block.before.size(), 890u);
  EXPECT_EQ(block.after.size(), 99u);
  EXPECT_EQ(sha256_hex(block.before), kPreviewProse[1]);
  EXPECT_EQ(sha256_hex(block.after), kPreviewProse[2]);
}

}  // namespace
}  // namespace temper::data
