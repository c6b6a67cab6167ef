// The GPT-2 byte alphabet: byte-level tokenizer files spell each byte as one printable Unicode character.
//
// Bytes 33..126, 161..172 and 174..255 stand for themselves; the other 68, in ascending order, are U+0100, U+0101, ...
// Source: Radford et al. 2019 (GPT-2 encoder); the ByteLevel component of Hugging Face tokenizers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace temper::data {

// The UTF-8 spelling of one byte.
std::string spell_byte(uint8_t byte);

// The UTF-8 spelling of a string of bytes.
std::string spell_bytes(std::string_view bytes);

// The bytes that a spelling stands for; nothing if it holds a character outside the alphabet or is not UTF-8.
std::optional<std::string> unspell_bytes(std::string_view spelling);

// Length in bytes (1-4) of the UTF-8 character at the head of `text`, or 0 if the head is not valid UTF-8 (overlong,
// surrogate, above U+10FFFF, truncated or stray continuation) or text is empty.
int64_t utf8_length(std::string_view text);

// Code point of the character at the head of `text`; utf8_length(text) must not be 0.
char32_t utf8_head(std::string_view text);

// Appends a code point below U+110000 as UTF-8.
void append_utf8(char32_t code_point, std::string& out);

}  // namespace temper::data
