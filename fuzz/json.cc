// The bytes are JSON from outside. Both kinds of objects accept the same texts, and what is accepted is the same value
// when it is written and read again.
#include "base/json.h"

#include "fuzz.h"

namespace temper {
namespace {

template <class Json>
bool read_and_write(std::string_view text) {
  Json value;
  if (!fuzz::accepts([&] { value = parse_json<Json>(text, "fuzz"); })) return false;
  CHECK(describe_json(value).size() <= 60);
  CHECK(parse_json<Json>(value.dump(), "written") == value);
  return true;
}

}  // namespace
}  // namespace temper

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = temper::fuzz::as_text(data, size);
  const bool sorted = temper::read_and_write<nlohmann::json>(text);
  CHECK(temper::read_and_write<nlohmann::ordered_json>(text) == sorted);
  return 0;
}
