// The string constants of a Python program, read without running it.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace temper::data {

// By name, the values of the program's assignments NAME = ... or NAME: type = ... that begin a line and whose right
// side is one string: literals in any quotes, raw or not, side by side or joined by +, in brackets or not. Every other
// statement is passed over, as are f-strings, byte strings and \N{...} escapes. Of equal names the last counts.
// Source: the Python language reference, 2.4.1 (string literals). The text is hostile: any bytes are read without harm.
std::map<std::string, std::string> read_python_strings(std::string_view program);

}  // namespace temper::data
