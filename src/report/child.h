// Another program as a filter: text in, bytes out.
#pragma once

#include <string>
#include <vector>

namespace temper::report {

// Runs argv[0], found on the PATH, with `input` as its standard input, and gives its standard output. No shell takes
// part. Throws kNotFound naming `purpose` and the `package` of the distribution where the program is not installed, and
// kIo with its standard error where it fails.
std::string run_child(const std::vector<std::string>& argv, const std::string& input, const std::string& purpose,
                      const std::string& package);

}  // namespace temper::report
