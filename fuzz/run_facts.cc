// The bytes are the facts in the manifest of a run state: where a run was, and what its guard knew. Accepted facts read
// back equal from what we write.
#include "base/json.h"
#include "fuzz.h"
#include "train/guard.h"
#include "train/run_state.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace temper;
  using Json = nlohmann::ordered_json;
  Json written;
  const bool is_good = fuzz::accepts([&] {
    const auto state = train::RunState::from_json(parse_json<Json>(fuzz::as_text(data, size), "fuzz"), "fuzz");
    for (const auto& [name, num_bytes] : state.log_bytes) CHECK(num_bytes >= 0, name);
    CHECK(state.step >= 0 && state.num_updates >= 0 && state.loader.step >= 0);
    train::Guard guard{train::GuardOptions()};
    fuzz::accepts([&] { guard.from_json(state.guard); });
    written = state.to_json();
  });
  if (is_good) CHECK(train::RunState::from_json(written, "written").to_json() == written);
  return 0;
}
