#include "comm/checks.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/registry.h"
#include "base/error.h"

namespace temper::comm::testing {
namespace {

// Around the sizes at which the engines change their ways: nothing, less than ranks, one chunk, several and odd ones.
constexpr int64_t kSizes[] = {0, 1, 3, 129, 4'097, 70'001, 200'007};
constexpr int64_t kFewSizes[] = {3, 70'001};

void require(bool right, std::string_view what, int64_t rank, int64_t size, int64_t at) {
  if (!right) {
    fail(ErrorCode::kInvalidArgument, "{} is wrong on rank {} of {}, element {}", what, rank, size, at);
  }
}

// Numbers of many magnitudes, so that another order of a sum gives other bits. Same on every rank that asks.
template <class T>
T number(int64_t rank, int64_t i, int64_t salt) {
  uint64_t h = static_cast<uint64_t>(rank) * 0x9E3779B97F4A7C15u + static_cast<uint64_t>(i) * 0xC2B2AE3D27D4EB4Fu +
               static_cast<uint64_t>(salt) * 0x165667B19E3779F9u;
  h ^= h >> 29;
  h *= 0xBF58476D1CE4E5B9u;
  h ^= h >> 32;
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(h % 2'000'001) - 1'000'000;
  } else {
    const double unit = static_cast<double>(h % 1'000'003) / 1'000'003 - 0.5;
    return T(static_cast<float>(unit * static_cast<double>(uint64_t{1} << (h >> 40) % 20)));
  }
}

template <class T>
std::vector<T> numbers(int64_t rank, int64_t count, int64_t salt) {
  std::vector<T> x(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) x[static_cast<size_t>(i)] = number<T>(rank, i, salt);
  return x;
}

template <class T>
View view(std::vector<T>& x) {
  return View(x.data(), kDTypeOf<T>, {std::ssize(x)});
}

// The definition: the sum over ranks [first, first + width) that exist is that of its two halves.
template <class T, class Sum>
Sum tree(int64_t first, int64_t width, int64_t size, Reduce reduce, const std::function<T(int64_t)>& of) {
  if (width == 1) return static_cast<Sum>(of(first));
  const Sum left = tree<T, Sum>(first, width / 2, size, reduce, of);
  if (first + width / 2 >= size) return left;
  const Sum right = tree<T, Sum>(first + width / 2, width / 2, size, reduce, of);
  return reduce == Reduce::kSum ? left + right : std::max(left, right);
}

template <class T>
T expected(int64_t size, Reduce reduce, const std::function<T(int64_t)>& of) {
  using Sum = std::conditional_t<std::is_same_v<T, bf16>, float, T>;
  int64_t width = 1;
  while (width < size) width *= 2;
  return T(tree<T, Sum>(0, width, size, reduce, of));
}

template <class T>
bool same(T a, T b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

template <class T>
void check_reductions_of(Comm& group, std::span<const int64_t> sizes) {
  const int64_t rank = group.rank(), size = group.size();
  for (const int64_t count : sizes) {
    for (const Reduce reduce : {Reduce::kSum, Reduce::kMax}) {
      auto x = numbers<T>(rank, count, 1);
      group.all_reduce(nullptr, view(x), reduce, {.what = "numbers", .layer = 2});
      // Every element is compared once by somebody: by all of them the scalar reference would take the test's time.
      for (int64_t i = rank; i < count; i += size) {
        const T want = expected<T>(size, reduce, [&](int64_t r) { return number<T>(r, i, 1); });
        require(same(x[static_cast<size_t>(i)], want), "all_reduce", rank, size, i);
      }
      // And all have the same bits.
      uint64_t hash = 0;
      for (int64_t i = 0; i < count; ++i) {
        uint64_t bits = 0;
        std::memcpy(&bits, &x[static_cast<size_t>(i)], sizeof(T));
        hash = (hash ^ bits) * 0x100000001b3u;
      }
      std::vector<int64_t> most{static_cast<int64_t>(hash >> 1)}, least{-most[0]};
      group.all_reduce(nullptr, view(most), Reduce::kMax, {.what = "hashes"});
      group.all_reduce(nullptr, view(least), Reduce::kMax, {.what = "hashes"});
      require(most[0] == -least[0], "equality of all_reduce", rank, size, count);
    }
    for (const bool in_place : {false, true}) {
      auto all = numbers<T>(rank, count * size, 3);
      std::vector<T> apart(static_cast<size_t>(count));
      const View whole = view(all);
      const View mine = in_place ? whole.rows(rank * count, (rank + 1) * count) : view(apart);
      group.reduce_scatter(nullptr, mine, whole, {.what = "pieces"});
      for (int64_t i = 0; i < count; i += 7) {
        const T want = expected<T>(size, Reduce::kSum, [&](int64_t r) { return number<T>(r, rank * count + i, 3); });
        require(same(mine.data<T>()[i], want), "reduce_scatter", rank, size, i);
      }
    }
  }
}

template <class T>
void check_gather(Comm& group, int64_t count, bool in_place) {
  const int64_t rank = group.rank(), size = group.size();
  auto own = numbers<T>(rank, count, 5);
  std::vector<T> all(static_cast<size_t>(count * size));
  View mine = view(own);
  if (in_place) {
    mine = view(all).rows(rank * count, (rank + 1) * count);
    std::ranges::copy(own, all.begin() + rank * count);
  }
  group.all_gather(nullptr, view(all), mine, {.what = "weights"});
  for (int64_t r = 0; r < size; ++r) {
    const auto want = numbers<T>(r, count, 5);
    require(std::equal(want.begin(), want.end(), all.begin() + r * count), "all_gather", rank, size, r);
  }
}

// Rows that rank `from` has for rank `to`: uneven, often none.
int64_t num_rows(int64_t from, int64_t to, int64_t scale) {
  const int64_t n = (from * 7 + to * 5 + scale) % 5;
  return n == 1 ? 0 : n * scale;
}

void check_exchange(Comm& group, int64_t scale) {
  constexpr int64_t kWidth = 3;
  const int64_t rank = group.rank(), size = group.size();
  std::vector<int64_t> send_rows, recv_rows;
  std::vector<float> from, want;
  for (int64_t r = 0; r < size; ++r) {
    send_rows.push_back(num_rows(rank, r, scale));
    recv_rows.push_back(num_rows(r, rank, scale));
    for (int64_t i = 0; i < kWidth * send_rows.back(); ++i) from.push_back(number<float>(rank * size + r, i, 7));
    for (int64_t i = 0; i < kWidth * recv_rows.back(); ++i) want.push_back(number<float>(r * size + rank, i, 7));
  }
  std::vector<float> to(want.size());
  const View from_rows(from.data(), DType::kF32, {std::ssize(from) / kWidth, kWidth});
  const View to_rows(to.data(), DType::kF32, {std::ssize(to) / kWidth, kWidth});
  group.all_to_all_v(nullptr, to_rows, recv_rows, from_rows, send_rows, {.what = "dispatch", .layer = 1});
  require(to == want, "all_to_all_v", rank, size, scale);
}

// A group of which all calls go through a stream for communication, and are waited for.
class BesideComm : public Comm {
 public:
  BesideComm(Comm& group, backend::Stream* stream) : group_(group), stream_(stream) {}
  BesideComm(std::unique_ptr<Comm> group, backend::Stream* stream)
      : owned_(std::move(group)), group_(*owned_), stream_(stream) {}
  int64_t rank() const override { return group_.rank(); }
  int64_t size() const override { return group_.size(); }
  std::unique_ptr<Comm> split(int64_t color, int64_t key, std::string_view name) override {
    return std::make_unique<BesideComm>(group_.split(color, key, name), stream_);
  }
  void barrier(backend::Stream*, Call call) override { group_.barrier(stream_, call), wait(); }
  void all_reduce(backend::Stream*, View x, Reduce reduce, Call call) override {
    group_.all_reduce(stream_, x, reduce, call), wait();
  }
  void all_gather(backend::Stream*, View all, View mine, Call call) override {
    group_.all_gather(stream_, all, mine, call), wait();
  }
  void reduce_scatter(backend::Stream*, View mine, View all, Call call) override {
    group_.reduce_scatter(stream_, mine, all, call), wait();
  }
  void all_to_all_v(backend::Stream*, View to, std::span<const int64_t> recv_rows, View from,
                    std::span<const int64_t> send_rows, Call call) override {
    group_.all_to_all_v(stream_, to, recv_rows, from, send_rows, call), wait();
  }
  void send(backend::Stream*, View x, int64_t to, Call call) override { group_.send(stream_, x, to, call), wait(); }
  void recv(backend::Stream*, View x, int64_t from, Call call) override { group_.recv(stream_, x, from, call), wait(); }
  void abort(std::string_view why) noexcept override { group_.abort(why); }
  void set_place(int64_t step, std::string_view instruction) override { group_.set_place(step, instruction); }
  void set_deadline(double seconds) override { group_.set_deadline(seconds); }
  Traffic traffic() const override { return group_.traffic(); }

 private:
  void wait() { backend::cpu().device.stream_sync(stream_); }

  const std::unique_ptr<Comm> owned_;
  Comm& group_;
  backend::Stream* const stream_;
};

}  // namespace

CommStream::CommStream() : stream_(backend::cpu().device.comm_stream_create()) {}
CommStream::~CommStream() { backend::cpu().device.stream_destroy(stream_); }

void check_beside(Comm& world) {
  {
    const CommStream stream;
    BesideComm one_by_one(world, stream.get());
    check_movements(one_by_one);
    check_messages(one_by_one);
    check_splits(one_by_one);
  }
  // Many under way on the stream, while this thread does the same in another group.
  constexpr int64_t kCalls = 20, kCount = 30'011;
  const int64_t rank = world.rank(), size = world.size();
  const auto beside = world.split(0, rank, "beside");
  std::vector<std::vector<float>> sums, gathered, own;
  for (int64_t n = 0; n < kCalls; ++n) {
    sums.push_back(numbers<float>(rank, kCount, n));
    own.push_back(numbers<float>(rank, kCount, n));
    gathered.emplace_back(static_cast<size_t>(kCount * size));
  }
  const CommStream stream;
  for (size_t n = 0; n < kCalls; ++n) {
    beside->all_reduce(stream.get(), view(sums[n]), Reduce::kSum, {.what = "gradients"});
    beside->all_gather(stream.get(), view(gathered[n]), view(own[n]), {.what = "weights"});
  }
  check_gather<float>(world, 70'001, false);
  check_reductions_of<float>(world, kFewSizes);
  backend::cpu().device.stream_sync(stream.get());
  for (int64_t n = 0; n < kCalls; ++n) {
    const auto at = static_cast<size_t>(n);
    for (int64_t i = 0; i < kCount; i += 101) {
      const float want = expected<float>(size, Reduce::kSum, [&](int64_t r) { return number<float>(r, i, n); });
      require(same(sums[at][static_cast<size_t>(i)], want), "all_reduce beside", rank, size, i);
    }
    for (int64_t r = 0; r < size; ++r) {
      const auto want = numbers<float>(r, kCount, n);
      require(std::equal(want.begin(), want.end(), gathered[at].begin() + r * kCount), "all_gather beside", rank, size,
              r);
    }
  }
  world.barrier(nullptr, {.what = "end"});
}

void check_reductions(Comm& group) {
  check_reductions_of<float>(group, kSizes);
  check_reductions_of<double>(group, kFewSizes);
  check_reductions_of<bf16>(group, kFewSizes);
  check_reductions_of<int32_t>(group, kFewSizes);
  check_reductions_of<int64_t>(group, kFewSizes);
}

void check_movements(Comm& group) {
  for (const int64_t count : kSizes) {
    for (const bool in_place : {false, true}) {
      check_gather<float>(group, count, in_place);
      check_gather<bf16>(group, count, in_place);
      check_gather<int64_t>(group, count, in_place);
    }
  }
  for (const int64_t scale : {0, 1, 2, 3, 100, 20'011}) check_exchange(group, scale);
  for (int i = 0; i < 100; ++i) group.barrier(nullptr, {.what = "line"});
}

void check_messages(Comm& group) {
  const int64_t rank = group.rank(), size = group.size();
  const int64_t next = (rank + 1) % size, previous = (rank + size - 1) % size;
  for (const int64_t count : kSizes) {
    constexpr int64_t kAtATime = 6;
    for (int64_t n = 0; n < kAtATime; ++n) {
      auto x = numbers<float>(rank, count, n);
      group.send(nullptr, view(x), next, {.what = "activations", .layer = n});
      std::ranges::fill(x, -1.0f);  // the message has been copied
    }
    for (int64_t n = 0; n < kAtATime; ++n) {
      std::vector<float> got(static_cast<size_t>(count));
      group.recv(nullptr, view(got), previous, {.what = "activations", .layer = n});
      require(got == numbers<float>(previous, count, n), "recv", rank, size, n);
    }
  }
  // From all to all, received in the other order of ranks, between collectives.
  for (int64_t r = 0; r < size; ++r) {
    auto x = numbers<int64_t>(rank * size + r, 5'000, 9);
    group.send(nullptr, view(x), r, {.what = "tokens"});
  }
  group.barrier(nullptr, {.what = "line"});
  for (int64_t r = size - 1; r >= 0; --r) {
    std::vector<int64_t> got(5'000);
    group.recv(nullptr, view(got), r, {.what = "tokens"});
    require(got == numbers<int64_t>(r * size + rank, 5'000, 9), "recv from all", rank, size, r);
  }
}

void check_splits(Comm& world) {
  const int64_t rank = world.rank(), size = world.size();
  const auto row = world.split(rank / 2, rank, "row");
  require(row->size() == std::min<int64_t>(2, size - rank / 2 * 2) && row->rank() == rank % 2, "row", rank, size, 0);
  const auto column = world.split(rank % 2, -rank, "column");  // backwards
  require(column->size() == (size + 1 - rank % 2) / 2, "column", rank, size, 0);
  require(column->rank() == column->size() - 1 - rank / 2, "order in column", rank, size, 0);
  const auto alone = world.split(-rank, 0, "alone");
  require(alone->size() == 1 && alone->rank() == 0, "alone", rank, size, 0);
  const auto pair = column->split(column->rank() / 2, 0, "pair");
  for (Comm* group : {row.get(), column.get(), alone.get(), pair.get()}) {
    std::vector<int64_t> members(static_cast<size_t>(group->size())), own{rank};
    group->all_gather(nullptr, view(members), view(own), {.what = "members"});
    require(members[static_cast<size_t>(group->rank())] == rank, "members", rank, size, 0);
    check_exchange(*group, 100);
    check_gather<float>(*group, 70'001, false);
    check_reductions_of<float>(*group, kFewSizes);
    check_messages(*group);
  }
  require(row->traffic().num_calls > 0 && row->traffic().num_bytes > 0, "traffic", rank, size, 0);
}

void check_all(Comm& world) {
  check_reductions(world);
  check_movements(world);
  check_messages(world);
  check_splits(world);
  world.barrier(nullptr, {.what = "end"});
}

}  // namespace temper::comm::testing
