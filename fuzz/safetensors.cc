// The bytes are a safetensors file. Accepted tensors lie in it and survive being written and read again.
#include <algorithm>
#include <string>

#include "checkpoint/safetensors.h"
#include "fuzz.h"

namespace temper::checkpoint {
namespace {

std::string_view data_of(const StoredTensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.data), static_cast<size_t>(tensor.num_bytes())};
}

// A file of the same tensors in the order that the writer needs.
std::string write_again(std::vector<StoredTensor> tensors) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return file_dtype_bytes(a.dtype) > file_dtype_bytes(b.dtype);
  });
  std::string file = safetensors_header({tensors.begin(), tensors.end()});
  for (const auto& tensor : tensors) file += data_of(tensor);
  return file;
}

void check(std::span<const std::byte> bytes) {
  SafetensorsContents contents;
  if (!fuzz::accepts([&] { contents = read_safetensors(bytes, "fuzz"); })) return;
  for (const auto& tensor : contents.tensors) {
    CHECK(tensor.data >= bytes.data() && tensor.num_bytes() >= 0);
    CHECK(tensor.num_bytes() <= bytes.data() + bytes.size() - tensor.data, tensor.name);
  }
  const std::string file = write_again(contents.tensors);
  const auto again = read_safetensors(std::as_bytes(std::span(file)), "written");
  CHECK(again.tensors.size() == contents.tensors.size());
  for (const auto& tensor : contents.tensors) {
    const auto at = std::find_if(again.tensors.begin(), again.tensors.end(),
                                 [&](const StoredTensor& other) { return other.name == tensor.name; });
    CHECK(at != again.tensors.end() && at->dtype == tensor.dtype && at->shape == tensor.shape, tensor.name);
    CHECK(data_of(*at) == data_of(tensor), tensor.name);
  }
}

}  // namespace
}  // namespace temper::checkpoint

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  temper::checkpoint::check(std::as_bytes(std::span(data, size)));
  return 0;
}
