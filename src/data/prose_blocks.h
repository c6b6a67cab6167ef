// The fixed passages of prose that the conversation format writes into a prompt: data of the model, not of this
// program.
//
// They are read from the model directory's encoding/encoding_dsv4.py, or from a file that the user names, and each is
// checked against the SHA-256 that the architecture page gives for it (11.5). A block that is absent or is another text
// is an error only where a conversation needs it.
//
//   of the program                         used as
//   REASONING_EFFORT_MAX                   as it stands
//   TOOLS_TEMPLATE                         {dsml_token}, {thinking_start_token}, {thinking_end_token} filled in, cut in
//                                          two at {tool_schemas}
//   response_format_template               what is before {schema}, which must end it
//
// The user's file is such a program (.py), or JSON: an object of strings with the names of kProseBlockNames, the texts
// as they stand in a prompt; names may be missing.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace temper::data {

enum class ProseBlock : uint8_t { kEffortMax, kToolsBefore, kToolsAfter, kResponseFormat };

inline constexpr size_t kNumProseBlocks = 4;
inline constexpr std::array<std::string_view, kNumProseBlocks> kProseBlockNames = {
    "reasoning_effort_max", "tools_before", "tools_after", "response_format"};

// SHA-256 of each block, in lower-case hexadecimal.
using ProseHashes = std::array<std::string_view, kNumProseBlocks>;

// Of the preview models' texts (architecture page 11.5).
inline constexpr ProseHashes kPreviewProse = {"f7a24f3b3050d4a83781e9b755b316aae2ec1d9dc87562541d90bcb04d7350f7",
                                              "c7c9042638154a237b5d1bd48be772374a35a4d24c5cacfd1ffbd92703da329c",
                                              "690702850fe256512cb1ee67c4e436ecb3e735c71ebee77ca45ff357a75fb5a7",
                                              "5200f58413f49f3957c43beddbc97bead023232cb5934fad0c1997c30c139112"};

class ProseBlocks {
 public:
  // Has none.
  ProseBlocks();

  // Those of a model directory; without encoding/encoding_dsv4.py, or with one that has other texts, the blocks that
  // are missing are missing. Refuses (kIo) a file that is there and cannot be read.
  static ProseBlocks of_model(const std::filesystem::path& model_dir, const ProseHashes& expected = kPreviewProse);

  // Those of a file that the user names. Refuses: kNotFound, kIo; kCorrupt, JSON that is not an object of strings;
  // kInvalidArgument, a name that is not known or a file without any block; kUnsupported, a text that is not the
  // preview models'.
  static ProseBlocks read(const std::filesystem::path& file, const ProseHashes& expected = kPreviewProse);

  // The text, or nullptr.
  const std::string* find(ProseBlock block) const;

  // The text. Fails beginning with `origin`: kNotFound, a missing block, saying where it was looked for; kUnsupported,
  // one with another text.
  const std::string& get(ProseBlock block, std::string_view origin) const;

 private:
  struct Entry {
    std::string text;     // empty: missing
    std::string problem;  // why
    bool is_other_text = false;
  };

  explicit ProseBlocks(const ProseHashes& expected) : ProseBlocks() { expected_ = expected; }
  void accept(ProseBlock block, std::string text, const std::string& where);
  void accept_program(std::string_view program, const std::string& where);
  void accept_json(std::string_view text, const std::string& where);

  ProseHashes expected_ = kPreviewProse;
  std::array<Entry, kNumProseBlocks> entries_;
};

// SHA-256 of bytes, in lower-case hexadecimal.
std::string sha256_hex(std::string_view bytes);

}  // namespace temper::data
