// The bytes are model.safetensors.index.json of a directory in memory (/dev/shm) that has the shards a.safetensors and
// b.safetensors. An accepted directory reads files that lie in it, each tensor once.
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <set>

#include "checkpoint/tensor_dir.h"
#include "fuzz.h"

namespace temper::checkpoint {
namespace {

namespace fs = std::filesystem;

// Directory D/model with the shards, and a file D/c.safetensors that must not be reached; removed at exit.
class Directory {
 public:
  Directory() : root_("/dev/shm/temper_fuzz_" + std::to_string(::getpid())) {
    fs::create_directories(model());
    put(model() / "a.safetensors", safetensors_header({{"x", FileDType::kF32, {1}}}) + std::string(4, '\0'));
    put(model() / "b.safetensors", safetensors_header({{"y", FileDType::kU8, {2}}}) + std::string(2, '\0'));
    put(root_ / "c.safetensors", safetensors_header({{"z", FileDType::kU8, {0}}}));
    index_ = ::open((model() / kIndexFileName).c_str(), O_WRONLY | O_CREAT, 0600);
    CHECK(index_ >= 0);
  }
  ~Directory() {
    ::close(index_);
    fs::remove_all(root_);
  }
  fs::path model() const { return root_ / "model"; }
  void put_index(std::string_view text) const {
    CHECK(::ftruncate(index_, 0) == 0);
    CHECK(::pwrite(index_, text.data(), text.size(), 0) == std::ssize(text));
  }

 private:
  static void put(const fs::path& path, std::string_view text) { std::ofstream(path, std::ios::binary) << text; }

  fs::path root_;
  int index_ = -1;
};

void check(std::string_view index) {
  static const Directory directory;
  directory.put_index(index);
  fuzz::accepts([&] {
    const TensorDir tensors(directory.model());
    std::set<std::string> names;
    for (const auto& [tensor, file] : tensors.items()) {
      CHECK(file->path().parent_path() == directory.model() && file->path().has_filename(), file->path().string());
      CHECK(names.insert(tensor->name).second && tensor->name != "z", tensor->name);
    }
  });
}

}  // namespace
}  // namespace temper::checkpoint

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  temper::checkpoint::check(temper::fuzz::as_text(data, size));
  return 0;
}
