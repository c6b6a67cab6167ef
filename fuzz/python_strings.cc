// The bytes are a Python program, encoding_dsv4.py of a model. What is taken out of it is not longer than it.
#include "data/python_strings.h"

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  size_t num_bytes = 0;
  for (const auto& [name, value] : temper::data::read_python_strings(temper::fuzz::as_text(data, size))) {
    CHECK(!name.empty());
    num_bytes += name.size() + value.size();
  }
  CHECK(num_bytes <= size, num_bytes, size);
  return 0;
}
