#include "base/simulated_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace temper::test {
namespace {

using Path = std::filesystem::path;

[[noreturn]] void refuse_with(const char* action, const Path& path, int reason) {
  fail(ErrorCode::kIo, "cannot {} {}: {}", action, path.string(), std::generic_category().message(reason));
}

// Replaces the bytes of a file from offset on; a gap before them is zeros.
void put_at(std::string& contents, int64_t offset, const std::string& bytes) {
  const auto begin = static_cast<size_t>(offset);
  if (contents.size() < begin + bytes.size()) contents.resize(begin + bytes.size(), '\0');
  contents.replace(begin, bytes.size(), bytes);
}

}  // namespace

struct SimulatedDisk::Node {
  using Names = std::map<std::string, NodePtr>;
  struct Change {  // of a file: bytes at offset, or with cuts the length offset
    int64_t offset = 0;
    std::string bytes;
    bool cuts = false;
  };
  using NameChange = std::function<void(Names&)>;  // does nothing where it does not apply

  explicit Node(bool is_directory_in) : is_directory(is_directory_in) {}

  void change(Change made) {
    apply(contents, made);
    changes.push_back(std::move(made));
  }
  void change_names(const NameChange& made) {
    made(names);
    name_changes.push_back(made);
  }
  static void apply(std::string& to, const Change& change) {
    if (change.cuts) return to.resize(static_cast<size_t>(change.offset));
    put_at(to, change.offset, change.bytes);
  }

  const bool is_directory;
  std::string contents, durable_contents;
  std::vector<Change> changes;  // not durable
  Names names, durable_names;
  std::vector<NameChange> name_changes;
};

class SimulatedDisk::Output : public OutputFile {
 public:
  Output(SimulatedDisk& disk, Path path, NodePtr node)
      : disk_(disk), path_(std::move(path)), node_(std::move(node)), born_(disk.num_crashes_) {}

  void write(const void* data, int64_t num_bytes) override {
    const std::lock_guard lock(disk_.mutex_);
    check();
    disk_.write(*node_, path_, static_cast<const char*>(data), num_bytes);
  }
  void sync() override {
    const std::lock_guard lock(disk_.mutex_);
    check();
    const auto changes = std::exchange(node_->changes, {});
    disk_.operate("sync", path_);
    for (const auto& change : changes) Node::apply(node_->durable_contents, change);
  }
  void truncate(int64_t num_bytes) override {
    const std::lock_guard lock(disk_.mutex_);
    check();
    disk_.operate("cut back", path_);
    node_->change({num_bytes, "", true});
  }
  int64_t size() const override {
    const std::lock_guard lock(disk_.mutex_);
    return static_cast<int64_t>(node_->contents.size());
  }

 private:
  void check() const {
    if (born_ != disk_.num_crashes_) refuse_with("use after a crash", path_, EBADF);
  }
  SimulatedDisk& disk_;
  Path path_;
  NodePtr node_;
  int64_t born_;
};

class SimulatedDisk::Input : public InputFile {
 public:
  Input(const SimulatedDisk& disk, Path path, NodePtr node)
      : disk_(disk), path_(std::move(path)), node_(std::move(node)) {}

  void read(void* to, int64_t num_bytes, int64_t offset) const override {
    const std::lock_guard lock(disk_.mutex_);
    const auto& refused = disk_.unreadable_;
    if (std::find(refused.begin(), refused.end(), path_.lexically_normal()) != refused.end())
      refuse_with("read", path_, EIO);
    const auto size = static_cast<int64_t>(node_->contents.size());
    if (offset + num_bytes > size)
      fail(ErrorCode::kCorrupt, "{}: the file ends at byte {}, {} more were expected", path_.string(), size,
           offset + num_bytes - size);
    if (num_bytes > 0) std::memcpy(to, node_->contents.data() + offset, static_cast<size_t>(num_bytes));
  }
  int64_t size() const override {
    const std::lock_guard lock(disk_.mutex_);
    return static_cast<int64_t>(node_->contents.size());
  }

 private:
  const SimulatedDisk& disk_;
  Path path_;
  NodePtr node_;
};

SimulatedDisk::SimulatedDisk() : root_(std::make_shared<Node>(true)) {}
SimulatedDisk::~SimulatedDisk() = default;

int64_t SimulatedDisk::num_operations() const {
  const std::lock_guard lock(mutex_);
  return num_operations_;
}

void SimulatedDisk::refuse(int64_t n, int reason) {
  const std::lock_guard lock(mutex_);
  refused_operation_ = num_operations_ + n;
  refuse_reason_ = reason;
}

void SimulatedDisk::lose_power_at(int64_t n) {
  const std::lock_guard lock(mutex_);
  power_ends_at_ = num_operations_ + n;
}

void SimulatedDisk::refuse_reading(const Path& path) {
  const std::lock_guard lock(mutex_);
  unreadable_.push_back(path.lexically_normal());
}

void SimulatedDisk::set_capacity(int64_t num_bytes) {
  const std::lock_guard lock(mutex_);
  capacity_ = num_bytes;
}

int64_t SimulatedDisk::used_bytes() const {
  const std::function<int64_t(const Node&)> count = [&](const Node& node) {
    auto used = static_cast<int64_t>(node.contents.size());
    for (const auto& [name, below] : node.names) used += count(*below);
    return used;
  };
  return count(*root_);
}

void SimulatedDisk::operate(const char* action, const Path& path) {
  ++num_operations_;
  if (power_ends_at_ > 0 && num_operations_ >= power_ends_at_) refuse_with(action, path, EIO);
  if (num_operations_ == refused_operation_) refuse_with(action, path, refuse_reason_);
}

void SimulatedDisk::write(Node& node, const Path& path, const char* data, int64_t num_bytes) {
  const auto end = static_cast<int64_t>(node.contents.size());
  try {
    operate("write", path);
  } catch (const Error&) {
    if (num_bytes > 1) node.change({end, std::string(data, static_cast<size_t>(num_bytes / 2))});
    throw;
  }
  const int64_t room = capacity_ < 0 ? num_bytes : std::clamp<int64_t>(capacity_ - used_bytes(), 0, num_bytes);
  if (room > 0) node.change({end, std::string(data, static_cast<size_t>(room))});
  if (room < num_bytes) refuse_with("write", path, ENOSPC);
}

SimulatedDisk::NodePtr SimulatedDisk::find(const Path& path) const {
  NodePtr at = root_;
  for (const auto& part : path.lexically_normal().relative_path()) {
    if (part.empty() || part == ".") continue;
    const auto next = at->names.find(part.string());
    if (next == at->names.end()) return nullptr;
    at = next->second;
  }
  return at;
}

SimulatedDisk::Node& SimulatedDisk::parent_of(const Path& path, const char* action) const {
  const NodePtr parent = find(path.parent_path());
  if (!parent || !parent->is_directory) refuse_with(action, path, ENOENT);
  return *parent;
}

// The file of that name, made if it is not there.
SimulatedDisk::NodePtr SimulatedDisk::open_file(const Path& path) {
  operate("write", path);
  NodePtr node = find(path);
  if (node && node->is_directory) refuse_with("write", path, EISDIR);
  if (node) return node;
  node = std::make_shared<Node>(false);
  parent_of(path, "write").change_names([name = path.filename().string(), node](Node::Names& names) {
    names[name] = node;
  });
  return node;
}

std::unique_ptr<OutputFile> SimulatedDisk::create(const Path& path) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = open_file(path);
  if (!node->contents.empty()) node->change({0, "", true});
  return std::make_unique<Output>(*this, path, node);
}

std::unique_ptr<OutputFile> SimulatedDisk::append(const Path& path, int64_t keep_bytes) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = open_file(path);
  if (static_cast<int64_t>(node->contents.size()) > keep_bytes) node->change({keep_bytes, "", true});
  return std::make_unique<Output>(*this, path, node);
}

std::unique_ptr<InputFile> SimulatedDisk::open_read(const Path& path) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = find(path);
  if (!node) fail(ErrorCode::kNotFound, "cannot open {}: No such file or directory", path.string());
  if (node->is_directory) fail(ErrorCode::kIo, "cannot use {}: not a regular file", path.string());
  return std::make_unique<Input>(*this, path, node);
}

// Within one directory, which is all that its users do; the change is durable or not as a whole.
void SimulatedDisk::rename(const Path& from, const Path& to) {
  const std::lock_guard lock(mutex_);
  operate("rename", from);
  Node& parent = parent_of(from, "rename");
  if (&parent != &parent_of(to, "rename")) refuse_with("rename to another directory", from, EXDEV);
  const NodePtr moved = find(from), there = find(to);
  if (!moved) refuse_with("rename", from, ENOENT);
  if (there && there->is_directory) refuse_with("rename onto a directory", to, ENOTEMPTY);
  parent.change_names([from = from.filename().string(), to = to.filename().string()](Node::Names& names) {
    const auto at = names.find(from);
    const auto target = names.find(to);
    if (at == names.end() || (target != names.end() && target->second->is_directory)) return;
    names[to] = at->second;
    names.erase(from);
  });
}

void SimulatedDisk::make_directories(const Path& path) {
  const std::lock_guard lock(mutex_);
  Path at;
  for (const auto& part : path.lexically_normal()) {
    at /= part;
    if (const NodePtr node = find(at)) {
      if (!node->is_directory) refuse_with("create the directory", at, ENOTDIR);
      continue;
    }
    operate("create the directory", at);
    parent_of(at, "create the directory")
        .change_names([name = at.filename().string(), node = std::make_shared<Node>(true)](Node::Names& names) {
          names[name] = node;
        });
  }
}

void SimulatedDisk::remove_all(const Path& path) {
  const std::lock_guard lock(mutex_);
  if (find(path)) remove_below(parent_of(path, "remove"), path.filename().string(), path);
}

void SimulatedDisk::remove_below(Node& parent, const std::string& name, const Path& path) {
  Node& node = *parent.names.at(name);
  while (!node.names.empty()) {
    const std::string first = node.names.begin()->first;
    remove_below(node, first, path / first);
  }
  operate("remove", path);
  parent.change_names([name](Node::Names& names) { names.erase(name); });
}

void SimulatedDisk::sync_directory(const Path& path) {
  const std::lock_guard lock(mutex_);
  operate("sync the directory", path);
  const NodePtr node = find(path);
  if (!node || !node->is_directory) refuse_with("open the directory", path, ENOENT);
  node->durable_names = node->names;
  node->name_changes.clear();
}

std::vector<std::string> SimulatedDisk::list(const Path& path) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = find(path);
  if (!node) fail(ErrorCode::kNotFound, "cannot list {}: No such file or directory", path.string());
  std::vector<std::string> names;
  for (const auto& [name, below] : node->names) names.push_back(name);
  return names;
}

bool SimulatedDisk::exists(const Path& path) {
  const std::lock_guard lock(mutex_);
  return find(path) != nullptr;
}

std::string SimulatedDisk::get(const Path& path) const {
  const std::lock_guard lock(mutex_);
  const NodePtr node = find(path);
  if (!node || node->is_directory) refuse_with("get", path, ENOENT);
  return node->contents;
}

void SimulatedDisk::put(const Path& path, const std::string& bytes) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = open_file(path);
  node->contents = node->durable_contents = bytes;
  node->changes.clear();
  Node& parent = parent_of(path, "put");
  parent.durable_names[path.filename().string()] = node;
}

void SimulatedDisk::crash(uint64_t seed) {
  const std::lock_guard lock(mutex_);
  std::mt19937_64 random(seed);
  crash_below(*root_, random, seed);
  power_ends_at_ = refused_operation_ = 0;
  ++num_crashes_;
}

void SimulatedDisk::crash_below(Node& node, std::mt19937_64& random, uint64_t seed) {
  const auto survives = [&] { return seed == 1 || (seed > 1 && random() % 2 == 0); };
  for (auto& change : std::exchange(node.changes, {})) {
    if (!survives()) continue;
    if (seed > 1 && random() % 2 == 0) change.bytes.resize(random() % (change.bytes.size() + 1));
    Node::apply(node.durable_contents, change);
  }
  node.contents = node.durable_contents;
  for (const auto& change : std::exchange(node.name_changes, {}))
    if (survives()) change(node.durable_names);
  node.names = node.durable_names;
  for (const auto& [name, below] : node.names) crash_below(*below, random, seed);
}

}  // namespace temper::test
