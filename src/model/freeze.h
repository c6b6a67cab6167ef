// Which parameters a run leaves as they are.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "layers/parameter.h"

namespace temper::model {

// Whether text matches pattern, in which * stands for any characters, also none.
bool matches_pattern(std::string_view text, std::string_view pattern);

// Makes the parameters that a pattern names not trainable. Throws kInvalidArgument for a pattern that names none.
void freeze(std::span<layers::Parameter* const> parameters, std::span<const std::string> patterns);

}  // namespace temper::model
