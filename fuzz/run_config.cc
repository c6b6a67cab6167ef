// The bytes are a run file; lines behind a line "---" are overrides of the command line.
#include "train/run_config.h"

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace temper;
  std::string_view text = fuzz::as_text(data, size);
  constexpr std::string_view kCut = "\n---\n";
  const size_t cut = text.find(kCut);
  std::vector<std::string> overrides;
  for (std::string_view rest = cut == text.npos ? "" : text.substr(cut + kCut.size()); !rest.empty();)
    overrides.emplace_back(fuzz::take_until(rest, '\n'));
  fuzz::accepts([&] {
    const auto config = train::parse_run_config(std::string(text.substr(0, cut)), "fuzz", overrides);
    CHECK((config.train.steps > 0) != (config.train.epochs > 0));
    CHECK(config.optimizer.min_lr <= config.optimizer.lr);
  });
  return 0;
}
