// Checks of numbers on the command line. CLI11's own answer "-n 0" with all 309 digits of the largest double.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace temper::app {

inline CLI::Validator above_zero() {
  const auto check = [](const std::string& text) -> std::string {
    double value = 0;
    return CLI::detail::lexical_cast(text, value) && value > 0 ? "" : text + " is not a number above 0";
  };
  return {check, "POSITIVE"};
}

inline CLI::Validator zero_or_above() {
  const auto check = [](const std::string& text) -> std::string {
    double value = 0;
    return CLI::detail::lexical_cast(text, value) && value >= 0 ? "" : text + " is not a number from 0 on";
  };
  return {check, "NONNEGATIVE"};
}

}  // namespace temper::app
