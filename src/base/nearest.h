// "Did you mean": the known name that a misspelt one most resembles.
#pragma once

#include <span>
#include <string_view>

namespace temper {

// Number of insertions, deletions, substitutions and swaps of neighbours that turn a into b.
int edit_distance(std::string_view a, std::string_view b);

// The known name nearest to `name` if it is near enough to be a misspelling: one edit in names up to 8 characters, two
// in longer ones. Empty if there is none.
std::string_view nearest_name(std::string_view name, std::span<const std::string_view> known);

}  // namespace temper
