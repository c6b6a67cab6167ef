// The texts of the special tokens that the V4 conversation format writes (architecture page 11.1, 11.2).
// The bar is U+FF5C, the low line U+2581.
#pragma once

#include <array>
#include <string_view>

namespace temper::data {

inline constexpr std::string_view kBos = "<｜begin▁of▁sentence｜>";
inline constexpr std::string_view kEos = "<｜end▁of▁sentence｜>";
inline constexpr std::string_view kPad = "<｜▁pad▁｜>";
inline constexpr std::string_view kUser = "<｜User｜>";
inline constexpr std::string_view kAssistant = "<｜Assistant｜>";
inline constexpr std::string_view kThink = "<think>";
inline constexpr std::string_view kEndThink = "</think>";
inline constexpr std::string_view kDsml = "｜DSML｜";
inline constexpr std::string_view kLatestReminder = "<｜latest_reminder｜>";

// All of them and the task tokens, in the order in which a tokenizer trained here numbers them from 0.
inline constexpr std::array<std::string_view, 15> kConversationTokens = {
    kBos,           kEos,          kPad,
    kUser,          kAssistant,    kThink,
    kEndThink,      kDsml,         kLatestReminder,
    "<｜action｜>", "<｜query｜>", "<｜authority｜>",
    "<｜domain｜>", "<｜title｜>", "<｜read_url｜>"};

// The tasks that a message may ask for, and the token of each.
struct TaskToken {
  std::string_view task, token;
};
inline constexpr std::array<TaskToken, 6> kTaskTokens = {{{"action", "<｜action｜>"},
                                                          {"query", "<｜query｜>"},
                                                          {"authority", "<｜authority｜>"},
                                                          {"domain", "<｜domain｜>"},
                                                          {"title", "<｜title｜>"},
                                                          {"read_url", "<｜read_url｜>"}}};

// How many of the conversation's tokens, from the first, are "special" in the file's sense (left out when decoding
// without specials).
inline constexpr size_t kNumSilentTokens = 3;

}  // namespace temper::data
