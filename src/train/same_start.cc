#include "train/same_start.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <string>

#include "base/error.h"
#include "base/file.h"
#include "parallel/texts.h"
#include "train/configuration.h"

namespace temper::train {
namespace {

using Json = nlohmann::ordered_json;

// Another version has other facts, of which nothing follows but this.
constexpr const char* kProgram = "the program";

Json value_in(const Json& facts, const std::string& name) {
  const auto found = facts.find(name);
  return found == facts.end() ? Json() : *found;
}

std::string difference(const std::string& name, const Json& here, const Json& first) {
  return fmt::format("{} is {}, on rank 0 {}", name, here.dump(), first.dump());
}

std::string differences(const Json& here, const Json& first) {
  if (value_in(here, kProgram) != value_in(first, kProgram))
    return difference(kProgram, value_in(here, kProgram), value_in(first, kProgram));
  std::string text;
  for (const auto& [name, value] : first.items())
    if (value_in(here, name) != value)
      text += (text.empty() ? "" : "; ") + difference(name, value_in(here, name), value);
  return text;
}

}  // namespace

Json started_with(const RunConfig& config) {
  const MappedFile program("/proc/self/exe");
  const auto hash = XXH3_64bits(program.data(), static_cast<size_t>(program.size()));
  Json facts = {{kProgram, fmt::format("{} bytes, hash {:016x}", program.size(), hash)}};
  facts.update(configuration_of(config));
  return facts;
}

void check_alike(comm::Comm& world, const Json& facts) {
  const Json first = Json::parse(parallel::tell_all(&world, facts.dump()));
  const std::string problem = parallel::first_problem(&world, differences(facts, first));
  if (problem.empty()) return;
  fail(ErrorCode::kInvalidArgument,
       "the ranks of a run must be started alike, with the same program, run file, model and data; {}", problem);
}

}  // namespace temper::train
