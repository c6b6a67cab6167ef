// Blocks of prose for tests: stand-ins made up here, and the tools block cut out of the official vectors.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/scratch_dir.h"
#include "data/prose_blocks.h"
#include "data_test_support.h"

namespace temper::data {

// By ProseBlock. The tools block has special tokens, as the real one has.
inline const std::array<std::string, kNumProseBlocks> kStandInProse = {
    "Think hard.\n\n", "## Stand-in\nWrite <｜DSML｜tool_calls> in \"quotes\" {so}, after <think>...</think>.\n\n",
    "\n\nThat is all.\n", "Answer by:\n"};

// A program with these texts.
inline std::string stand_in_program() {
  return R"py(import json
dsml_token: str = "no placeholder"
REASONING_EFFORT_MAX = (
    "Think "
    "hard.\n\n"
)
TOOLS_TEMPLATE = """## Stand-in
Write <{dsml_token}tool_calls> in \"quotes\" {{so}}, after {thinking_start_token}...{thinking_end_token}.

{tool_schemas}

That is all.
"""
response_format_template: str = (
    "Answer by:\n{schema}"
)
)py";
}

inline ProseHashes stand_in_hashes() {
  static const std::array<std::string, kNumProseBlocks> kHashes = {
      sha256_hex(kStandInProse[0]), sha256_hex(kStandInProse[1]), sha256_hex(kStandInProse[2]),
      sha256_hex(kStandInProse[3])};
  return {kHashes[0], kHashes[1], kHashes[2], kHashes[3]};
}

// The blocks of a file that is written for the moment of reading it.
inline ProseBlocks read_prose(const std::string& name, const std::string& text, const ProseHashes& hashes) {
  const test::ScratchDir folder;
  return ProseBlocks::read(folder.write(name, text), hashes);
}

inline ProseBlocks stand_in_prose() { return read_prose("stand_in.py", stand_in_program(), stand_in_hashes()); }

struct ToolsBlock {
  std::string before, after;
};

// Cut out of the first vector: before and after its two lines of schemas.
inline ToolsBlock tools_block_of_vectors() {
  const std::string text = read_file(shared_data() / "deepseek-v4-encoding" / "test_output_1.txt");
  const size_t begin = text.find("## Tools"), schemas = text.find("{\"name\""), user = text.find("<｜User｜>");
  const size_t last_schema = text.rfind("\n{\"name\"", user) + 1;
  const size_t end = text.find('\n', last_schema);
  return {text.substr(begin, schemas - begin), text.substr(end, user - end)};
}

inline ProseBlocks prose_of_vectors() {
  const ToolsBlock block = tools_block_of_vectors();
  const nlohmann::json json = {{"tools_before", block.before}, {"tools_after", block.after}};
  return read_prose("vectors.json", json.dump(), kPreviewProse);
}

}  // namespace temper::data
